"""A database with a list of jobs, and one without."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from dicom_quarry.jobs.cluster.database import Cluster
from tests.named_jobs.named_job import NamedJob
from tests.postgres_server import PostgresServer


def create_database(postgres: PostgresServer) -> str:
    name = f"quarry_{secrets.token_hex(4)}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return urlsplit(postgres.url)._replace(path=f"/{name}").geturl()


@pytest.fixture
def empty_database(postgres: PostgresServer) -> str:
    """The URL of a new database."""
    return create_database(postgres)


@pytest.fixture(scope="session")
def database(postgres: PostgresServer) -> str:
    """The URL of a database with a list of jobs; each test has names of its own."""
    url = create_database(postgres)
    assert Cluster(url).init()
    return url


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def job(work: Path, database: str) -> Iterator[NamedJob]:
    """A job with a name of its own, against an archive that can hold a study."""
    with NamedJob(work, database) as made:
        yield made
