"""A PostgreSQL server for the tests of many hosts, with an empty list of jobs for each."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from dicom_quarry.jobs.cluster.database import Cluster
from tests.postgres_server import PostgresServer, running_postgres


@pytest.fixture(scope="package")
def server() -> Iterator[PostgresServer]:
    """A server of these tests alone: they stop it."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    with psycopg.connect(server.url, autocommit=True) as connection:
        for (name,) in connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(quarry|job_)'"
        ).fetchall():
            connection.execute(f"DROP SCHEMA {name} CASCADE")
    assert Cluster(server.url).init()
    return server.url
