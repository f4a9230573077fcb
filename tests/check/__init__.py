"""Tests of quarry check."""
