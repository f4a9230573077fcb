"""Complete studies: the on-complete command, and the release of files that are elsewhere."""
