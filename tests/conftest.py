"""Fixtures that every test may use."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.peers.fixtures import corpus, start

if TYPE_CHECKING:
    from tests.postgres_server import PostgresServer

#: No test asserts a time: a busy machine is no failure.
settings.register_profile("quarry", deadline=None)
settings.load_profile("quarry")

__all__ = ["corpus", "start"]


_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _jobs_of_this_test(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of this user's jobs is neither read nor written by a test; every test has its own.

    The folder is not made: most tests have no job.
    """
    folder = tmp_path_factory.getbasetemp() / f"state-home-{next(_numbers)}"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests of this process that use it."""
    from tests.postgres_server import running_postgres  # psycopg takes time to load

    with running_postgres() as server:
        yield server
