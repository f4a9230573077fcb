"""Fixtures for the peers; tests/conftest.py hands them to every test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol, TypeVar

import pytest

from tests.peers.corpus import Corpus, build
from tests.peers.process import Server

S = TypeVar("S", bound=Server)


class Start(Protocol):
    """Starts a server, waits for it, and has it stopped at the end of the test."""

    def __call__(self, server: S) -> S: ...


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as servers:

        def start_server(server: S) -> S:
            servers.enter_context(server)
            return server

        yield start_server


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build(tmp_path_factory.mktemp("corpus"))
