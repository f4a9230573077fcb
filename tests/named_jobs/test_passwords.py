"""A server that demands a password: where it may come from, and what is said without one."""

from __future__ import annotations

import secrets
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.e2e.command import quarry
from tests.named_jobs.named_job import NamedJob
from tests.peers.process import wait_for
from tests.postgres_server import PostgresServer

PASSWORD = "geheim 'n\\ß"


@pytest.fixture(scope="module")
def secured(postgres: PostgresServer) -> str:
    """The URL of a database whose owner needs a password."""
    name = f"secured_{secrets.token_hex(4)}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        password = psycopg.sql.Literal(PASSWORD)
        connection.execute(psycopg.sql.SQL(f"CREATE ROLE {name} LOGIN PASSWORD {{}}").format(password))
        connection.execute(f"CREATE DATABASE {name} OWNER {name}")
    postgres.demand_password(name)
    url = urlsplit(postgres.url)._replace(netloc=f"{name}@127.0.0.1:{postgres.port}", path=name).geturl()
    wait_for(lambda: not answers(url), "the new rule of the server", 60)
    return url


def answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_job_with_the_password_in_a_file_of_the_settings(work: Path, secured: str) -> None:
    secret = work / "secret"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o600)
    assert quarry("cluster", "init", secured, "--password-file", secret).code == 0
    with NamedJob(work, secured, f'password-file = "{secret}"') as job:
        done = job.run()
        assert done.code == 1, done.out + done.err
        assert "4 of 4 studies complete" in quarry("status", job.label).out
        kept = [path for path in work.rglob("*") if path.is_file() and path != secret]
        assert not [path for path in kept if PASSWORD.encode() in path.read_bytes()]


def test_the_password_of_the_environment_or_of_the_home_folder(
    work: Path, secured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        assert quarry("cluster", "init", secured).code == 0
    passwords = work / ".pgpass"
    escaped = PASSWORD.replace("\\", "\\\\")
    passwords.write_text(f"127.0.0.1:*:*:*:{escaped}\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("HOME", str(work))
    assert quarry("cluster", "init", secured).code == 0


@pytest.mark.parametrize(
    ("given", "words"), [("", "write the password to"), ("guessed", "look at the password in")]
)
def test_without_the_password_it_is_said_where_it_belongs(
    work: Path, secured: str, monkeypatch: pytest.MonkeyPatch, given: str, words: str
) -> None:
    if given:
        monkeypatch.setenv("PGPASSWORD", given)
    refused = quarry("cluster", "init", secured)
    assert refused.code == 3
    assert words in refused.err and "~/.pgpass" in refused.err
    assert "guessed" not in refused.err
