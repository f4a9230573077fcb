"""A PostgreSQL server for the tests of many hosts, with an empty list of jobs for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dicom_quarry.jobs.cluster.database import Cluster
from tests.cluster.site import STUDIES, Site
from tests.namespaces import Network, missing
from tests.postgres_server import PostgresServer, running_postgres


@pytest.fixture(scope="package")
def bridge() -> Iterator[Network | None]:
    """The network of the hosts of these tests, None where there can be none."""
    if missing():
        yield None
        return
    with Network() as network:
        yield network


@pytest.fixture
def network(bridge: Network | None) -> Iterator[Network]:
    """The network, without hosts; the test is skipped where there can be none."""
    if bridge is None:
        pytest.skip(missing())
    yield bridge
    bridge.remove_hosts()


@pytest.fixture(scope="package")
def server(bridge: Network | None) -> Iterator[PostgresServer]:
    """A server of these tests alone: they stop it."""
    with running_postgres(bridge.database if bridge else "127.0.0.1") as server:
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


@pytest.fixture
def site(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    with Site(tmp_path, url, STUDIES) as site:
        yield site
