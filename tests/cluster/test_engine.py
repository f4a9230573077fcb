"""The engine: tokens go to workers, to others if one vanishes, and on after an absence of the database."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest
from psycopg.types.json import Jsonb

from dicom_quarry.cluster import engine
from dicom_quarry.cluster.engine import (
    ROWS_QUEUE,
    ROWS_TASK,
    STUDY_TASK,
    Engine,
    Work,
    study_queue,
)
from dicom_quarry.cluster.engine_schema import create_schema
from dicom_quarry.jobs.cluster.workers import ENGINE_SCHEMA
from tests.peers.process import wait_for
from tests.postgres_server import PostgresServer

QUEUE = study_queue("main")


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        create_schema(connection)
        create_schema(connection)  # once more does no harm
        connection.execute(f"SET search_path = {ENGINE_SCHEMA}")
        yield connection


@pytest.fixture
def start(url: str, connection: psycopg.Connection) -> Iterator[Callable[[Work], Engine]]:
    with ExitStack() as stack:

        def start_one(work: Work) -> Engine:
            threads = {QUEUE: 2, ROWS_QUEUE: 1}
            engine = Engine(url, "W1", threads, {STUDY_TASK: work, ROWS_TASK: work}, vanished_after=1.0)
            engine.start()
            stack.callback(engine.stop)
            return engine

        yield start_one


def give(connection: psycopg.Connection, count: int, queue: str = QUEUE, task: str = STUDY_TASK) -> None:
    for number in range(count):
        arguments = {"job": number, "archive": "main"} if task == STUDY_TASK else {"job": number}
        connection.execute(
            "SELECT procrastinate_defer_jobs_v1(ARRAY[ROW(%s, %s, 0, NULL, NULL, %s, NULL)"
            "::procrastinate_job_to_defer_v1])",
            (queue, task, Jsonb(arguments)),
        )


def give_until(connection: psycopg.Connection, done: list[int]) -> bool:
    """Give a token, unless one was worked on; return True then."""
    if not done:
        give(connection, 1)
    return bool(done)


def left(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM procrastinate_jobs").fetchone()
    assert row is not None
    return int(row[0])


def test_tokens_of_every_queue_are_worked_on_and_deleted(
    connection: psycopg.Connection, start: Callable[[Work], Engine]
) -> None:
    done: list[tuple[int, str]] = []
    start(lambda job, archive: done.append((job, archive)))
    give(connection, 3)
    give(connection, 2, ROWS_QUEUE, ROWS_TASK)
    wait_for(lambda: not left(connection), "the end of all tokens")
    assert sorted(done) == [(0, ""), (0, "main"), (1, ""), (1, "main"), (2, "main")]


def test_as_many_at_once_as_there_are_threads(
    connection: psycopg.Connection, start: Callable[[Work], Engine]
) -> None:
    both = threading.Barrier(2, timeout=60)

    def work(*_: object) -> None:
        both.wait()

    start(work)
    give(connection, 4)
    wait_for(lambda: not left(connection), "the end of all tokens")


def test_work_that_fails_ends_its_token_alone(
    connection: psycopg.Connection, start: Callable[[Work], Engine]
) -> None:
    done: list[int] = []

    def work(job: int, _: str) -> None:
        if job == 0:
            raise ValueError("a defect")
        done.append(job)

    start(work)
    give(connection, 2)
    wait_for(lambda: not left(connection), "the end of both")
    assert done == [1]


def test_a_stop_waits_for_what_runs_and_takes_no_more(
    connection: psycopg.Connection, start: Callable[[Work], Engine]
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    done: list[int] = []

    def work(job: int, _: str) -> None:
        begun.set()
        may_end.wait(60)
        done.append(job)

    engine = start(work)
    give(connection, 6)
    assert begun.wait(60)
    stopping = threading.Thread(target=engine.stop)
    stopping.start()
    may_end.set()
    stopping.join(60)
    assert not stopping.is_alive()
    assert len(done) + left(connection) == 6
    assert len(done) >= 1


_VANISHING = f"""
import sys, time
from dicom_quarry.cluster.engine import STUDY_TASK, Engine
def work(job, archive):
    print(job, flush=True)
    time.sleep(600)
Engine(sys.argv[1], "W2", {{{QUEUE!r}: 1}}, {{STUDY_TASK: work}}, vanished_after=1.0).start()
time.sleep(600)
"""


def test_tokens_of_a_killed_worker_are_given_to_another(
    url: str, connection: psycopg.Connection, start: Callable[[Work], Engine]
) -> None:
    give(connection, 1)
    with subprocess.Popen(
        [sys.executable, "-c", _VANISHING, url], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "0\n"
        done: list[int] = []
        start(lambda job, _: done.append(job))
        child.kill()
    wait_for(lambda: done == [0], "the token")
    wait_for(lambda: not left(connection), "its end")


def test_the_loops_begin_again_when_the_database_is_back(
    url: str, server: PostgresServer, connection: psycopg.Connection, start: Callable[[Work], Engine]
) -> None:
    done: list[int] = []
    start(lambda job, _: done.append(job))
    give(connection, 1)
    wait_for(lambda: len(done) == 1, "the first token")
    server.kill()
    time.sleep(0.3)  # long enough for the loops to meet a dead server
    server.start()
    with psycopg.connect(url, autocommit=True) as again:
        again.execute(f"SET search_path = {ENGINE_SCHEMA}")
        give(again, 3)
        wait_for(lambda: len(done) >= 4 and not left(again), "the tokens after the absence")


def test_tokens_that_end_while_the_database_is_away_are_ended_once_it_is_back(
    server: PostgresServer, connection: psycopg.Connection, start: Callable[[Work], Engine], url: str
) -> None:
    begun, may_end, done = threading.Event(), threading.Event(), list[int]()

    def work(job: int, _: str) -> None:
        begun.set()
        may_end.wait(60)
        done.append(job)

    start(work)
    give(connection, 1)
    assert begun.wait(60)
    server.kill()
    may_end.set()
    wait_for(lambda: done == [0], "the end of the work")
    server.start()
    with psycopg.connect(url, autocommit=True) as again:
        again.execute(f"SET search_path = {ENGINE_SCHEMA}")
        wait_for(lambda: not left(again), "the end of the token")
    assert done == [0]


def test_notifications_and_signs_of_life_come_again_after_an_absence(
    url: str,
    server: PostgresServer,
    connection: psycopg.Connection,
    start: Callable[[Work], Engine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "_POLL_INTERVAL", 600.0)
    done: list[int] = []
    start(lambda job, _: done.append(job))
    wait_for(lambda: give_until(connection, done), "a notification")
    server.kill()
    time.sleep(0.3)  # long enough for the loops to meet a dead server
    server.start()
    done.clear()
    with psycopg.connect(url, autocommit=True) as again:
        again.execute(f"SET search_path = {ENGINE_SCHEMA}")
        wait_for(lambda: give_until(again, done), "a notification after the absence")
        seen = again.execute("SELECT max(last_heartbeat) FROM procrastinate_workers").fetchone()
        wait_for(
            lambda: again.execute("SELECT max(last_heartbeat) FROM procrastinate_workers").fetchone() != seen,
            "a sign of life",
        )


def test_a_token_whose_delivery_was_lost_with_the_connection_is_given_back(
    url: str, connection: psycopg.Connection, start: Callable[[Work], Engine]
) -> None:
    done: list[int] = []
    start(lambda job, _: done.append(job))
    wait_for(lambda: give_until(connection, done), "the first token")
    wait_for(lambda: not left(connection), "its end")
    done.clear()
    waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'fetch_job'"
    with psycopg.connect(url, autocommit=True) as other, connection.transaction():
        connection.execute("LOCK TABLE procrastinate_jobs")
        give(connection, 2)
        wait_for(lambda: other.execute(f"SELECT {waiting}").rowcount == 2, "the looks for tokens")
        # As if each loop had just taken one when its connection was lost: it knows of none.
        connection.execute(
            "UPDATE procrastinate_jobs SET status = 'doing', worker_id = loop FROM (SELECT id AS loop,"
            " row_number() OVER () AS number FROM procrastinate_workers) loops WHERE args->>'job' ="
            " (number - 1)::text"
        )
        other.execute(f"SELECT pg_terminate_backend(pid) {waiting}")
    wait_for(lambda: sorted(done) == [0, 1], "the lost tokens")
