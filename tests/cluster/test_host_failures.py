"""Hosts that are killed in each state of a study, frozen, or left without a database (make test-cluster)."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.cluster.site import Site
from tests.cluster.test_hosts import count
from tests.e2e.command import Running, quarry
from tests.namespaces import Network
from tests.peers.process import wait_for
from tests.postgres_server import PostgresServer
from tests.scripted.faults import Late

pytestmark = pytest.mark.cluster

STUDIES = generate_studies(8, seed=33, images=2)

#: A place for the studies of two workers at once, at most.
LIMITS = "parallel = 2\n"


@pytest.fixture
def hosts(tmp_path: Path, url: str, network: Network, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Site]:
    monkeypatch.chdir(tmp_path)

    def make(limits: str = LIMITS, **options: float) -> Site:
        return Site(tmp_path, url, STUDIES, network=network, limits=limits, **options)  # type: ignore[arg-type]

    return make


def check(site: Site, *, cut: int, most: int) -> None:
    """Every row is complete, each file is there once, and only moves that were cut were repeated."""
    assert site.outcomes("trial") == ["complete"] * len(STUDIES)
    assert len(site.files("trial")) == sum(len(list(study.instances())) for study in STUDIES)
    assert quarry("verify", "job:trial").code == 0
    assert count(site.url, "job_1.tasks WHERE state = 'concluded'") == len(STUDIES)
    assert site.archive.moves.total() == len(STUDIES) + cut
    assert site.archive.most <= most


@contextmanager
def locked(url: str, table: str) -> Iterator[Callable[[], bool]]:
    """Let every transaction wait that writes a table; yield a function that tells whether one does."""
    with psycopg.connect(url) as connection, psycopg.connect(url, autocommit=True) as other:
        connection.execute(f"LOCK TABLE {table} IN SHARE MODE")
        waits = "SELECT FROM pg_locks WHERE relation = %s::regclass AND NOT granted"
        yield lambda: other.execute(waits, (table,)).rowcount > 0


def kill_when(
    site: Site, first: Running, watching: Running, what: str, condition: Callable[[], bool]
) -> None:
    """Kill the first worker in the midst of something, and let another one do all the rest."""
    wait_for(condition, what, 60)
    first.kill()
    site.archive.hold, site.archive.keeps = False, ()
    site.start_worker("W2")
    assert watching.wait() == 0, watching.output


@pytest.mark.parametrize("levels", [("STUDY",), ("SERIES", "IMAGE")], ids=["resolving", "listing"])
def test_a_host_that_is_killed_in_a_query(hosts: Callable[..., Site], levels: tuple[str, ...]) -> None:
    with hosts() as site:
        first = site.start_worker("W1")
        site.archive.keeps = levels
        with site.start("trial", STUDIES) as watching:
            kill_when(site, first, watching, "a query", lambda: site.archive.kept > 0)
        check(site, cut=0, most=2)


def test_a_host_that_is_killed_while_it_waits_for_a_place(hosts: Callable[..., Site]) -> None:
    with hosts("parallel = 1\n") as site:
        site.start_worker("W1")
        site.archive.hold = True
        with site.start("trial", STUDIES) as watching:
            wait_for(lambda: site.archive.now == 1, "the move of the first one", 60)
            second = site.start_worker("W2")
            lists = len(site.archive.requests("find", "IMAGE"))
            wait_for(
                lambda: len(site.archive.requests("find", "IMAGE")) > lists, "the list of the second", 60
            )
            wait_for(lambda: count(site.url, "job_1.folders") >= 2, "the end of the list", 60)
            second.kill()
            site.archive.hold = False
            assert watching.wait() == 0, watching.output
        check(site, cut=0, most=1)


def test_a_host_that_is_killed_in_a_move(hosts: Callable[..., Site]) -> None:
    with hosts() as site:
        first = site.start_worker("W1")
        site.archive.hold = site.archive.breaks_off = True
        with site.start("trial", STUDIES) as watching:
            kill_when(site, first, watching, "a move", lambda: site.archive.now == 1)
        check(site, cut=1, most=2)


def test_a_host_that_is_killed_while_it_waits_for_late_images(hosts: Callable[..., Site]) -> None:
    with hosts(settle=60) as site:
        first = site.start_worker("W1")
        site.archive.faults.append(Late(120, times=1))
        with site.start("trial", STUDIES) as watching:
            ended = lambda: site.archive.ended_at > 0  # noqa: E731
            kill_when(site, first, watching, "a move that has ended", ended)
        check(site, cut=1, most=2)


@pytest.mark.parametrize("table", ["audit", "instances"], ids=["before the audit log", "concluding"])
def test_a_host_that_is_killed_while_it_records_an_outcome(hosts: Callable[..., Site], table: str) -> None:
    with hosts() as site:
        first = site.start_worker("W1")
        site.archive.hold = True
        with site.start("trial", STUDIES) as watching:
            wait_for(lambda: site.archive.now == 1, "a move", 60)
            with locked(site.url, f"job_1.{table}") as waits:
                site.archive.hold = False
                wait_for(waits, "the record of the outcome", 60)
                first.kill()
            site.start_worker("W2")
            assert watching.wait() == 0, watching.output
        check(site, cut=1, most=2)


def test_a_database_that_is_away_for_longer_than_the_leases_costs_the_moves_alone(
    hosts: Callable[..., Site], server: PostgresServer
) -> None:
    with hosts() as site:
        workers = [site.start_worker(title) for title in ("W1", "W2")]
        site.archive.hold = True
        with site.start("trial", STUDIES) as watching:
            wait_for(lambda: site.archive.now == 2, "two moves", 60)
            server.kill()
            wait_for(lambda: site.archive.now == 0, "the end of the moves", 60)
            site.archive.hold = False
            server.start()
            assert watching.wait() == 0, watching.output + workers[0].output
        check(site, cut=2, most=2)


def test_a_host_that_is_frozen_in_a_move_changes_nothing_when_it_goes_on(hosts: Callable[..., Site]) -> None:
    with hosts("parallel = 1\n") as site:
        frozen = site.start_worker("W1")
        site.archive.hold = True
        with site.start("trial", STUDIES) as watching:
            wait_for(lambda: site.archive.now == 1, "a move", 60)
            frozen.signal(signal.SIGSTOP)
            site.start_worker("W2")
            wait_for(lambda: site.archive.now == 2, "the move of the other worker", 60)
            site.archive.hold = False
            wait_for(lambda: count(site.url, "job_1.tasks WHERE state = 'concluded'") > 2, "studies", 60)
            frozen.signal(signal.SIGCONT)
            assert watching.wait() == 0, watching.output
        frozen.terminate()
        assert frozen.wait() == 0, frozen.output
        check(site, cut=1, most=2)


def test_hosts_that_start_leave_the_files_in_flight_of_another_alone(hosts: Callable[..., Site]) -> None:
    with hosts() as site:
        site.start_worker("W1")
        site.archive.hold = site.archive.breaks_off = True
        with site.start("trial", STUDIES) as watching:
            wait_for(lambda: len(list((site.root / "trial").rglob("*.dcm"))) == 1, "the first image", 60)
            for title in ("W2", "W3"):
                site.start_worker(title)
            wait_for(lambda: site.archive.now == 2, "a move of another", 60)
            site.archive.hold = False
            assert watching.wait() == 0, watching.output
        check(site, cut=0, most=2)
