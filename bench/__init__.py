"""Benchmarks: Quarry compared with other programs."""
