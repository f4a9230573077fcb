"""Completed studies: run a command for each, release their files."""
