"""Fuzzing of ``wire/``: harness functions, their corpus, and the ways to run them (README.md)."""
