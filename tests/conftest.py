"""Fixtures that every test may use."""

from tests.peers.fixtures import corpus, start

__all__ = ["corpus", "start"]
