"""Databases of other versions: what is upgraded, who waits for it, and who finishes and ends."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from procrastinate.schema import SchemaManager

from dicom_quarry import api
from dicom_quarry.api.cluster_upgrade import UpgradeResult
from dicom_quarry.errors import LedgerError
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.cluster.lease import JobLease
from dicom_quarry.jobs.cluster.list_schema import list_version
from dicom_quarry.jobs.cluster.workers import Registration
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.migrations import schema_version
from tests.cluster.site import STUDIES, Site
from tests.e2e.command import Running, quarry, until
from tests.ledger.helpers import read_schema
from tests.peers.process import wait_for

OLDER = Path(__file__).parent / "older"

#: A revision of a build to come.
NEWER = "99.99.99"

# A path, as the folder of a command is another; -P: beside it is a module "site".
NEXT_VERSION = (sys.executable, "-P", str(Path(__file__).with_name("next_version.py")))


def run_sql(url: str, sql: str, *values: object) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        done = connection.execute(sql, values or None)
        return done.fetchall() if done.description else []


def columns(url: str) -> list[tuple[object, ...]]:
    policies = run_sql(url, "SELECT policyname, cmd, qual, with_check FROM pg_policies ORDER BY 1")
    return policies + run_sql(
        url,
        "SELECT table_name, column_name, data_type, column_default, is_nullable"
        " FROM information_schema.columns WHERE table_schema = 'quarry'"
        " ORDER BY table_name, ordinal_position",
    )


def make_older(url: str, job: str) -> None:
    """Bring a database, and the record of a job in it, back to what an earlier build made."""
    (number,) = run_sql(url, "SELECT number FROM quarry.jobs WHERE name = %s", job)[0]
    run_sql(
        url,
        f"""
        SET search_path = job_{number};
        DROP TABLE claims;
        DROP INDEX tasks_waiting, tasks_waiting_for_archive;
        CREATE INDEX tasks_by_state ON tasks (state, not_before, id);
        UPDATE schema_version SET version = 1
        """,
    )
    run_sql(url, "UPDATE quarry.version SET revision = '2.1.3.4.0.50'")


@pytest.mark.parametrize("dump", sorted(OLDER.glob("list_*.sql")), ids=lambda dump: dump.stem)
def test_an_older_list_becomes_what_a_new_one_is_and_keeps_its_jobs(url: str, dump: Path) -> None:
    expected = columns(url)
    run_sql(url, "DROP SCHEMA quarry CASCADE")
    run_sql(url, dump.read_text())
    run_sql(url, "INSERT INTO quarry.jobs (name, folder, host, owner) VALUES ('trial', '/d', 'h', 'anna')")
    with pytest.raises(LedgerError, match="older version of Quarry: have its owner run  quarry cluster up"):
        Cluster(url).find("trial")
    for _ in range(2):  # the second time there is nothing to do
        assert api.upgrade_cluster(url).left == ()
    assert columns(url) == expected
    assert Cluster(url).find("trial") is not None


def test_there_is_a_dump_of_every_older_list() -> None:
    assert {dump.stem for dump in OLDER.glob("list_*.sql")} == {
        f"list_{number}" for number in range(1, list_version())
    }


def test_a_newer_database_is_left_alone(url: str) -> None:
    run_sql(url, "UPDATE quarry.version SET revision = %s", NEWER)
    for use in (lambda: api.upgrade_cluster(url), lambda: Cluster(url).find("trial")):
        with pytest.raises(LedgerError, match="of a newer version of Quarry"):
            use()


def test_the_engine_is_upgraded_by_its_own_statements_that_are_newer(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.init_cluster(url)
    (tmp_path / "03.04.00_50_post_there.sql").write_text("SELECT * FROM nowhere")
    (tmp_path / "03.05.00_01_pre_more.sql").write_text("CREATE TABLE more (number integer)")
    (tmp_path / "03.05.00_50_post_more.sql").write_text("INSERT INTO more VALUES (5)")
    monkeypatch.setattr(SchemaManager, "get_migrations_path", lambda: str(tmp_path))
    api.upgrade_cluster(url)
    assert run_sql(url, "SELECT number FROM quarry_engine.more") == [(5,)]
    assert run_sql(url, "SELECT revision, upgrade FROM quarry.version") == [
        (f"{list_version()}.{schema_version()}.3.5.0.50", "")
    ]


def test_a_newer_worker_waits_for_the_upgrade_and_goes_on_by_itself(site: Site) -> None:
    site.enter("trial", STUDIES)
    job = Cluster(site.url).find("trial")
    assert job is not None
    location = Cluster(site.url).location(job.number)
    new_one = read_schema(location)
    make_older(site.url, "trial")
    assert read_schema(location) != new_one
    worker = site.start_worker("W1")
    wait_for(lambda: "waits for  quarry cluster upgrade" in site.worker_states(), "its state", 60)
    refused = quarry("status", "job:trial")
    assert refused.code == 3
    assert "quarry cluster upgrade" in refused.err
    done = quarry("cluster", "upgrade", site.url)
    assert done.code == 0, done.err
    assert "The records of 1 job are of this version" in done.out
    assert read_schema(location) == new_one
    assert site.run("trial", STUDIES).code == 0, worker.output
    assert site.outcomes("trial") == ["complete"] * len(STUDIES)


def test_an_older_worker_finishes_what_it_has_and_ends_when_the_upgrade_is_done(site: Site) -> None:
    worker = site.start_worker("W1")
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.now == 1, "a move", 60)
        run_sql(site.url, "UPDATE quarry.version SET upgrade = %s", NEWER)  # as a newer build's upgrade does
        wait_for(lambda: "finishes what it has" in site.worker_states(), "its state", 60)
        site.archive.hold = False
        wait_for(lambda: is_idle(site.url), "the end of what it had", 60)
        assert sum(site.archive.moves.values()) == 1
        assert "takes no more: the database is being upgraded" in quarry("cluster", "status").out
        run_sql(site.url, "UPDATE quarry.version SET upgrade = ''")  # it was interrupted
        assert watching.wait() == 0, watching.output
    assert set(site.archive.moves.values()) == {1}
    run_sql(site.url, "UPDATE quarry.version SET revision = %s", NEWER)
    assert worker.wait() == 3
    assert "start the worker of that version" in worker.output


def is_idle(url: str) -> bool:
    return run_sql(url, "SELECT idle FROM quarry.workers") == [(True,)]


def test_an_upgrade_that_is_interrupted_lets_the_older_workers_go_on(url: str) -> None:
    api.init_cluster(url)
    run_sql(url, "UPDATE quarry.version SET revision = '2.1.3.4.0.50'")
    with Cluster(url).connected() as connection:
        Registration("W1", "id-1", "W1:11112", "/data", revision=(2, 1, 3, 4, 0, 50)).enter(connection)
    seen: list[object] = []

    def interrupt(names: str) -> None:
        seen.extend([names, *run_sql(url, "SELECT upgrade <> '' FROM quarry.version")])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.upgrade_cluster(url, on_wait=interrupt)
    assert seen == ["W1", (True,)]
    assert run_sql(url, "SELECT revision, upgrade FROM quarry.version") == [("2.1.3.4.0.50", "")]


def test_a_record_that_a_process_works_on_is_left_and_named(url: str, tmp_path: Path) -> None:
    cluster = Cluster(url)
    job = cluster.add("trial", tmp_path)
    Ledger(cluster.location(job.number)).close()
    make_older(url, "trial")
    run_sql(url, "UPDATE quarry.version SET revision = '2.2.3.4.0.50'")
    lease = JobLease(cluster, job, lambda: None)
    lease.acquire()
    try:
        (reason,) = api.upgrade_cluster(url).left
        assert reason.startswith("job:trial: ")
        assert "works on it" in reason
    finally:
        lease.release()
    with pytest.raises(LedgerError, match="have it upgraded by its role with  quarry cluster upgrade"):
        Ledger(cluster.location(job.number))
    assert api.upgrade_cluster(url) == UpgradeResult(1)
    Ledger(cluster.location(job.number)).close()


@pytest.mark.cluster
def test_workers_of_two_builds_and_the_upgrade_between_them(site: Site) -> None:
    older = site.start_worker("W1")
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching, ExitStack() as stack:
        wait_for(lambda: site.archive.now == 1, "a move", 60)
        newer = site.start_worker("W2", command=NEXT_VERSION)
        upgrade = stack.enter_context(
            Running(site.work / "up.txt", "cluster", "upgrade", site.url, command=NEXT_VERSION)
        )
        until(upgrade, "its wait", lambda: "until these workers have finished: W1" in upgrade.output)
        assert "waits for  quarry cluster upgrade" in site.worker_states()
        assert watching.wait() == 4, watching.output  # it lets go
        site.archive.hold = False
        assert upgrade.wait() == 0, upgrade.output
        assert older.wait() == 3, older.output
        refused = site.run("trial", STUDIES)
        assert refused.code == 3 and "newer version of Quarry" in refused.err
        again = Running(site.work / "again.txt", *site.extract("trial", STUDIES), command=NEXT_VERSION)
        with again:
            assert again.wait() == 0, again.output + newer.output
    assert site.outcomes("trial") == ["complete"] * len(STUDIES)
    assert set(site.archive.moves.values()) == {1}
