"""Slots and numbers that workers share as rows: leases, renewed and lost, and the database's clock."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import psycopg
import pytest

from dicom_quarry.cluster.lease_state import Lease, LeaseState
from dicom_quarry.scheduling.shared_state import Numbers
from dicom_quarry.system.shutdown import Stopped
from tests.peers.process import wait_for
from tests.postgres_server import PostgresServer

#: Seconds of a lease where a test waits for its end; renewed six times meanwhile.
SHORT = 1.5


@pytest.fixture
def open_state(url: str) -> Iterator[Callable[..., LeaseState]]:
    with ExitStack() as stack:
        yield lambda worker="W1", **options: stack.enter_context(LeaseState(url, worker, **options))


def give_up(_: float) -> None:
    raise Stopped


def held(state: LeaseState, pool: str, limit: int) -> ExitStack | None:
    """Take a slot that is free now."""
    stack = ExitStack()
    try:
        stack.enter_context(state.slot(pool, limit, give_up))
    except Stopped:
        return None
    return stack


def test_no_more_slots_than_the_limit_over_all_workers(open_state: Callable[..., LeaseState]) -> None:
    one, two = open_state("W1"), open_state("W2")
    first, second = held(one, "pacs", 2), held(two, "pacs", 2)
    assert first
    assert second
    assert held(one, "pacs", 2) is None
    assert held(two, "pacs", 2) is None
    assert held(two, "other", 1), "pools are apart"
    assert two.describe_holder("pacs") == "the worker W1 has a slot"
    first.close()
    again = held(two, "pacs", 2)
    assert again
    assert held(one, "pacs", 3), "a limit that was raised"


def test_many_threads_of_two_workers_never_exceed_it(open_state: Callable[..., LeaseState]) -> None:
    states = open_state("W1"), open_state("W2")
    lock, now, most = threading.Lock(), 0, 0

    def work(number: int) -> None:
        nonlocal now, most
        with states[number % 2].slot("pacs", 3, time.sleep):
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.005)
            with lock:
                now -= 1

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(60)))
    assert most == 3


def test_a_lease_is_renewed_for_as_long_as_it_is_held(open_state: Callable[..., LeaseState]) -> None:
    one, two = open_state("W1", seconds=SHORT), open_state("W2", seconds=SHORT)
    with one.slot("pacs", 1, give_up) as lease:
        began = lease.expires_at
        wait_for(lambda: lease.expires_at > began + SHORT, "two renewals")
        assert not lease.is_lost
        assert held(two, "pacs", 1) is None


def test_a_killed_worker_holds_its_slot_no_longer_than_the_lease(
    url: str, open_state: Callable[..., LeaseState]
) -> None:
    with Holder(url) as child:
        child.kill()
        child.wait()
        state = open_state("W2", seconds=SHORT)
        assert held(state, "pacs", 1) is None
        with state.slot("pacs", 1, time.sleep):
            pass


def test_a_frozen_worker_learns_that_it_has_lost_its_slot(
    url: str, open_state: Callable[..., LeaseState]
) -> None:
    with Holder(url) as child:
        child.send_signal(signal.SIGSTOP)
        with open_state("W2", seconds=SHORT).slot("pacs", 1, time.sleep):
            child.send_signal(signal.SIGCONT)
            assert child.stdout is not None
            assert child.stdout.readline() == "lost\n"
            assert child.wait(60) == 0


_HOLDER = f"""
import sys, time
from dicom_quarry.cluster.lease_state import LeaseState
with LeaseState(sys.argv[1], "W1", seconds={SHORT}) as state, state.slot("pacs", 1, time.sleep) as lease:
    print("held", flush=True)
    while not lease.is_lost:
        time.sleep(0.01)
    print("lost", flush=True)
"""


class Holder:
    """A process that holds the one slot of a pool, and says so."""

    def __init__(self, url: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, url], stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __enter__(self) -> subprocess.Popen[str]:
        assert self._child.stdout is not None
        assert self._child.stdout.readline() == "held\n"
        return self._child

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()


def test_a_database_that_is_away_ends_a_lease_in_time_and_is_waited_for(
    server: PostgresServer, open_state: Callable[..., LeaseState]
) -> None:
    state = open_state("W1", seconds=SHORT)
    with state.slot("pacs", 1, give_up) as lease:
        server.kill()
        try:
            began = time.monotonic()
            wait_for(lambda: lease.is_lost, "the loss")
            assert lease.expires_at < began + SHORT, "before anyone else can have the slot"
        finally:
            server.start()
    assert isinstance(lease, Lease)
    with state.slot("pacs", 1, time.sleep) as again:
        assert not again.is_lost
    assert lease.is_lost, "what was lost stays lost"


def test_numbers_are_changed_by_one_worker_at_a_time(open_state: Callable[..., LeaseState]) -> None:
    states = open_state("W1"), open_state("W2")

    def add(numbers: Numbers) -> tuple[Numbers, float]:
        total = (numbers[0] if numbers else 0.0) + 1
        return (total, 0.5), total

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: states[number % 2].update("rate", add), range(80)))
    assert sorted(results) == [float(number) for number in range(1, 81)]
    assert states[0].read("rate") == (80.0, 0.5)
    assert states[1].read("another") == ()


def test_numbers_that_cannot_be_computed_change_nothing(open_state: Callable[..., LeaseState]) -> None:
    state = open_state()
    with pytest.raises(ZeroDivisionError):
        state.update("rate", lambda _: ((1 / 0,), None))
    assert state.read("rate") == ()


def test_all_workers_have_the_clock_of_the_database(url: str, open_state: Callable[..., LeaseState]) -> None:
    one, two = open_state("W1"), open_state("W2")
    with closing(psycopg.connect(url)) as connection:
        row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::double precision").fetchone()
    assert row is not None
    for state in one, two:
        assert state.clock.now() == pytest.approx(row[0], abs=5.0)
        assert state.clock.monotonic() == pytest.approx(state.clock.now(), abs=1.0)
