"""The roles of docs/many-hosts.md, with its GRANTs: each can do what it must, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.cluster.site import STUDIES, Site
from tests.e2e.command import quarry, until
from tests.postgres_server import PostgresServer

PAGE = Path(__file__).parents[2] / "docs" / "many-hosts.md"
DATABASE = "quarry_of_roles"


def url_of(server: PostgresServer, role: str) -> str:
    parts = urlsplit(server.url)
    return parts._replace(netloc=f"{role}@{parts.hostname}:{parts.port}", path=f"/{DATABASE}").geturl()


def documented(words: str) -> str:
    """Return the statements of the one block of the page that has these words, for this test's database."""
    blocks: list[str] = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    found = [block for block in blocks if words in block]
    assert len(found) == 1, found
    return found[0].replace("DATABASE quarry ", f"DATABASE {DATABASE} ")


def documented_grants(role: str, page_role: str) -> str:
    """Return the statements of the page for a role, which has another name there."""
    return re.sub(rf"\b{page_role}\b", role, documented(f" TO {page_role};"))


@pytest.fixture
def roles(server: PostgresServer) -> Iterator[PostgresServer]:
    """A database of the role quarry_admin, with the users anna, bob and carol and the role of the workers."""
    names = ("anna", "bob", "carol", "quarry_worker", "quarry_admin")
    with psycopg.connect(server.url, autocommit=True) as connection:
        for statement in documented("CREATE DATABASE").split(";\n"):
            connection.execute(statement)
        for name in ("bob", "carol"):
            connection.execute(f"CREATE ROLE {name} LOGIN")
    admin = url_of(server, "quarry_admin")
    assert quarry("cluster", "init", admin).code == 0
    with psycopg.connect(admin, autocommit=True) as connection:
        for role, page_role in [("anna", "anna"), ("bob", "anna"), ("quarry_worker", "quarry_worker")]:
            connection.execute(documented_grants(role, page_role))
        connection.execute(documented_grants("carol", "carol"))
    yield server
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        for name in names:
            connection.execute(f"DROP ROLE {name}")


def refused(url: str, statement: str) -> bool:
    """Return True if the server refuses a statement, or it changes no row."""
    with psycopg.connect(url, autocommit=True) as connection:
        try:
            return connection.execute(statement).rowcount == 0
        except psycopg.errors.InsufficientPrivilege:
            return True


def test_each_role_can_do_what_it_must_and_nothing_else(
    tmp_path: Path, roles: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    anna, bob, carol, worker, admin = (
        url_of(roles, name) for name in ("anna", "bob", "carol", "quarry_worker", "quarry_admin")
    )
    with Site(tmp_path, anna, STUDIES) as site:
        site.worker_url = worker
        site.start_worker("W1")
        (tmp_path / "bob").mkdir()
        site.write_settings(tmp_path / "bob", url=bob)
        # The workers are no members of bob's role: they leave his job, and do the others.
        with site.start("his", STUDIES[:1], cwd=tmp_path / "bob") as his:
            until(his, "its start", lambda: "the workers of the database fetch" in his.output)
            assert site.run("hers", STUDIES[:2]).code == 0
            assert not his.ended
            his.interrupt()
            assert his.wait() == 4, his.output
        weight = quarry("cluster", "weight", "job:his", 9)
        assert weight.code == 2
        assert "job:his is a job of the role bob: its members alone can change it" in weight.err
        for verb in ("stop", "status"):
            assert "no record that you may read" in quarry(verb, "job:his").err
        for statement in (
            "SELECT * FROM job_2.requests",
            "UPDATE quarry.jobs SET folder = '/tmp' WHERE name = 'his'",
            "DELETE FROM quarry.jobs WHERE name = 'his'",
            "INSERT INTO quarry.jobs (name, folder, host, owner, role) VALUES ('x', '/', '', '', 'bob')",
            "INSERT INTO quarry.actions (role, person, host, job, action) VALUES ('bob', '', '', '', '')",
            "DELETE FROM quarry.actions",
            "UPDATE quarry.version SET revision = '99'",
            "DELETE FROM quarry.workers",
        ):
            assert refused(anna, statement.replace("job_2", job_schema(roles, "his"))), statement
        hers = job_schema(roles, "hers")
        assert refused(worker, f"SELECT * FROM {job_schema(roles, 'his')}.requests")
        assert refused(admin, f"SELECT * FROM {hers}.requests")
        assert not refused(admin, "UPDATE quarry.jobs SET weight = 2")
        upgraded = quarry("cluster", "upgrade", admin)
        assert upgraded.code == 0
        assert "2 jobs of other roles: have their users type the same command" in upgraded.out
        assert "The records of 1 job are of this version" in quarry("cluster", "upgrade", anna).out
        check_reader(roles, site, anna, carol, hers)


def job_schema(roles: PostgresServer, name: str) -> str:
    with psycopg.connect(url_of(roles, "quarry_admin")) as connection:
        found = connection.execute("SELECT number FROM quarry.jobs WHERE name = %s", (name,)).fetchone()
    assert found is not None
    return f"job_{found[0]}"


def check_reader(roles: PostgresServer, site: Site, anna: str, carol: str, hers: str) -> None:
    """Check that a reader sees a job once it is granted, and changes nothing."""
    folder = site.work / "carol"
    folder.mkdir()
    site.write_settings(folder, url=carol)
    assert refused(carol, f"SELECT * FROM {hers}.requests")
    assert quarry("status", "job:hers", cwd=folder).code == 2
    found = re.search(r"`(GRANT USAGE ON SCHEMA job_17 TO bob;.*?)`", PAGE.read_text(encoding="utf-8"))
    assert found is not None
    with psycopg.connect(anna, autocommit=True) as connection:
        connection.execute(found[1].replace("job_17", hers).replace("bob", "carol"))
    assert quarry("status", "job:hers", cwd=folder).code == 0
    assert quarry("explain", "job:hers", "--row", 1, cwd=folder).code == 0
    done = quarry("verify", "job:hers")
    assert done.code == 0 and "The workers of the database compare the files" in done.out, done.out + done.err
    # Those tables are new, and not granted.
    assert quarry("status", "job:hers", cwd=folder).code == 0
    for statement in (
        f"DELETE FROM {hers}.requests",
        f"INSERT INTO {hers}.audit (event) VALUES ('x')",
        "UPDATE quarry.jobs SET weight = 9",
        "INSERT INTO quarry.actions (person, host, job, action) VALUES ('', '', '', '')",
    ):
        assert refused(carol, statement), statement
