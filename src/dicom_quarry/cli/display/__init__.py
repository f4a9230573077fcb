"""Terminal output of a running command."""
