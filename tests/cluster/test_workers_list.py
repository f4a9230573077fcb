"""The list of workers: signs of life, capacity, the ones that vanished; and what is shown of a database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dicom_quarry.cluster.engine_schema import create_schema
from dicom_quarry.cluster.lease_state import LeaseState
from dicom_quarry.config.archive_profile import Limits
from dicom_quarry.errors import StartError
from dicom_quarry.jobs.cluster.workers import (
    Registration,
    forget_vanished,
    list_workers,
    total_capacity,
)
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.reporting.cluster_text import cluster_lines
from dicom_quarry.reporting.cluster_view import ClusterView, JobCounts, JobShare, read_cluster_view
from dicom_quarry.scheduling.archive_facts import ArchiveFacts
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.shutdown import Shutdown

PACS = "PACS@10.1.2.3:104"
SITE = Limits(parallel=2, studies_per_hour=200, queries_per_second=50)


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        create_schema(connection)
        yield connection


def silence(connection: psycopg.Connection, name: str, seconds: float) -> None:
    """Have a worker be silent; the server may have begun later, which is no worker's silence."""
    connection.execute(
        "UPDATE quarry.workers SET beat = clock_timestamp() - %s * interval '1 s',"
        " vanished_after = least(vanished_after, 0.001) WHERE name = %s",
        (seconds, name),
    )


def test_what_the_workers_take_is_added_up(connection: psycopg.Connection) -> None:
    Registration("W1", "id-1", "W1:11112", "/data").beat(connection, {"rows": 1, "studies:main": 4})
    Registration("W2", "id-2", "W2:11112", "/data").beat(connection, {"rows": 1, "studies:other": 2})
    Registration("W2", "id-2", "W2:11112", "/data").beat(connection, {"rows": 1}, "the window, until 19:00")
    first, other = list_workers(connection)
    assert (first.name, first.receiver, first.root, first.state) == ("W1", "W1:11112", "/data", "")
    assert other.state == "the window, until 19:00"
    assert total_capacity([first, other]) == {"rows": 2, "studies:main": 4}


def test_a_worker_that_vanished_takes_nothing_and_is_listed_for_a_day(connection: psycopg.Connection) -> None:
    for name in ("W1", "W2"):
        Registration(name, name, f"{name}:11112", "/data").beat(connection, {"rows": 1})
    silence(connection, "W1", 30)
    vanished, there = list_workers(connection)
    assert vanished.has_vanished
    assert not there.has_vanished
    assert total_capacity([vanished, there]) == {"rows": 1}
    forget_vanished(connection)
    assert len(list_workers(connection)) == 2
    silence(connection, "W1", 100_000)
    forget_vanished(connection)
    assert [one.name for one in list_workers(connection)] == ["W2"]


def test_the_reason_to_leave_a_job_is_of_that_job_alone(connection: psycopg.Connection) -> None:
    registration = Registration("W1@host", "a", "W1:11112", "/data")
    for _ in range(2):  # the first one enters the worker
        registration.beat(connection, {}, "waiting for disk space; job:ct: not here; job:mr: removed")
    [worker] = list_workers(connection)
    assert [worker.reason_to_leave(f"job:{name}") for name in ("ct", "mr", "us")] == [
        "not here",
        "removed",
        "",
    ]


def test_a_worker_that_ends_leaves_the_list(connection: psycopg.Connection) -> None:
    registration = Registration("W1", "id-1", "W1:11112", "/data")
    registration.beat(connection, {})
    registration.remove(connection)
    assert list_workers(connection) == []


def test_a_worker_whose_name_was_taken_gives_no_sign_of_life_and_removes_no_other(
    connection: psycopg.Connection,
) -> None:
    old, new = (Registration("W1", identity, "W1:11112", "/data") for identity in ("old", "new"))
    old.enter(connection)
    with pytest.raises(StartError, match="a worker W1 runs already"):
        new.enter(connection)
    silence(connection, "W1", 31)
    new.enter(connection)
    assert new.beat(connection, {"rows": 1})
    assert not old.beat(connection, {"rows": 9})
    old.remove(connection)
    (left,) = list_workers(connection)
    assert (left.identity, left.queues) == ("new", {"rows": 1})


def make_throttle(state: LeaseState, **own: object) -> ArchiveThrottle:
    return ArchiveThrottle(
        Limits.model_validate(own),
        {"10.1.2.3.104": SITE, "all": Limits(parallel=9)},
        parallel=4,
        shared_state=state,
        shutdown=Shutdown(),
        status_board=StatusBoard(),
        archive="archive.pacs",
    )


def enter(connection: psycopg.Connection, name: str, throttle: ArchiveThrottle, state: str = "") -> None:
    registration = Registration(f"{name}@host1", f"id-{name}", f"{name}@10.1.2.9:11112", "/data/research")
    facts = ArchiveFacts.of(throttle, PACS)
    assert registration.beat(connection, {"studies:main": 4}, state, {"main": facts.to_json()})


def text_of(view: ClusterView, width: int = 100) -> str:
    return " ".join(" ".join(cluster_lines(view, width)).split())


def test_the_limits_of_an_archive_are_those_of_all_workers(connection: psycopg.Connection, url: str) -> None:
    with LeaseState(url, "W1@host1") as one, LeaseState(url, "W2@host1") as two:
        first, second = make_throttle(one), make_throttle(two, window="00:00-00:01", megabytes_per_second=5)
        first.acquire_query()
        with first.acquire_retrieval():
            second.on_rejected(two.clock.monotonic())
            assert (one.held_slots(), two.held_slots()) == ({"10.1.2.3.104": 1, "all": 1}, {})
            enter(connection, "W1", first)
            enter(connection, "W2", second, "waiting for the window, until Mon 00:00")
            view = read_cluster_view(connection, url)
            text = text_of(view)
            assert "main, PACS@10.1.2.3:104: answers in work" in text
            assert "slots 1 of 2 in use: W1@host1 1" in text
            assert "slots 1 of 9 in use, for all archives together: W1@host1 1" in text
            assert (
                "rates 0.017 of 50 queries a second, 1 of 200 studies an hour, 0 of 5 MB a second by" in text
            )
            assert (
                "workers 2, for 3 of 4 retrievals at once: fewer for a while, as it was too busy (W2" in text
            )
            assert "for the jobs below /data/research; Quarry" in text
            first.archive_state.problem = "it refused the connection"
            first.archive_state.mark_unavailable(1.0, 0.0)
            first.archive_state.on_probe_failed(3, 60.0, 0.0)
            enter(connection, "W1", first)
            [archive] = read_cluster_view(connection, url).archives
        assert archive.since
        assert abs(archive.since - view.time) < timedelta(minutes=1)
        down = text_of(replace(view, archives=(archive,)))
        assert "104: does not answer since" in down
        assert "; 3 probes without an answer: it refused the connection in work" in down
        first.archive_state.mark_available()
        assert "104: answers, again since" in text_of(read_cluster_view(connection, url))
        [archive] = read_cluster_view(connection, url).archives
        assert {pool.used for pool in archive.pools} == {0}, "the slot was given back"
        assert {*one.held_slots().values()} == {0}


def test_the_window_and_the_workers_that_vanished(connection: psycopg.Connection, url: str) -> None:
    with LeaseState(url, "W1@host1") as state:
        soon = datetime.now(UTC) + timedelta(hours=2)
        closed = make_throttle(
            state, window=f"{soon:%H:%M}-{soon + timedelta(hours=1):%H:%M}", time_zone="UTC"
        )
        enter(connection, "W1", closed)
    enter(connection, "W2", closed)
    silence(connection, "W2@host1", 31)
    connection.execute("UPDATE quarry.workers SET version = '9' WHERE name = 'W2@host1'")
    view = read_cluster_view(connection, url)
    assert "window closed, opens " in text_of(view)
    [archive] = view.archives
    assert archive.window_changes_at == soon.replace(second=0, microsecond=0)
    assert [*archive.at_once] == ["W1@host1"], "of living workers alone"
    assert "vanished: its studies are given to others" in text_of(view)
    assert "/data/research, 9" in text_of(view, 200), "roots and versions, as they differ"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit_their_width_however_many_workers_there_are(
    connection: psycopg.Connection, url: str, width: int
) -> None:
    assert text_of(read_cluster_view(connection, url)).endswith("0 jobs with the workers")
    with LeaseState(url, "W@host") as state:
        throttle = make_throttle(state)
    for number in range(20):
        enter(connection, f"QUARRY{number}.research-node.hospital.example", throttle, "waiting for " * 30)
    job = JobShare(1, "j" * 63, "anna", datetime.now(UTC), 1.0, 1.0, 2, JobCounts(13_200, 3204, 9996, 12, 5))
    view = replace(read_cluster_view(connection, url), jobs=(job, replace(job, counts=None)))
    lines = list(cluster_lines(view, width))
    assert max(map(len, lines[1:])) <= width
    assert "2 studies in work, 9,994 waiting, 12 of them postponed, 3,204 of 13,200 done; 5 rows" in text_of(
        view
    )
    assert "2 studies in work; you may not read its record" in text_of(view)
