"""Fixtures for the peers; tests/conftest.py hands them to every test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from tests.peers.process import Server

S = TypeVar("S", bound=Server)

#: Starts a server, waits for it, and has it stopped at the end of the test.
Start = Callable[[S], S]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[S], S]]:
    with ExitStack() as servers:

        def start_server(server: S) -> S:
            return servers.enter_context(server)

        yield start_server
