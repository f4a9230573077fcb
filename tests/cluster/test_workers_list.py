"""The list of workers: signs of life, capacity, and the ones that vanished."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from dicom_quarry.errors import StartError
from dicom_quarry.jobs.cluster.workers import (
    Registration,
    forget_vanished,
    list_workers,
    total_capacity,
)


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def silence(connection: psycopg.Connection, name: str, seconds: float) -> None:
    connection.execute(
        "UPDATE quarry.workers SET beat = clock_timestamp() - %s * interval '1 s' WHERE name = %s",
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
