"""Work on its way between a job's threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dicom_quarry.extraction.closable_queue import ClosableQueue
from dicom_quarry.system.shutdown import Stopped


def nothing() -> None:
    """Go on."""


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Started; what it returned, or raised, stands in the list when it has ended."""
    came: list[object] = []

    def run() -> None:
        try:
            came.append(work())
        except Stopped as error:
            came.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, came


def ended(thread: threading.Thread) -> None:
    thread.join(30)
    assert not thread.is_alive()


def test_all_items_arrive_once_in_their_order_and_then_the_end() -> None:
    belt: ClosableQueue[int] = ClosableQueue(3, nothing)
    taken: list[list[int]] = [[], [], []]

    def take(mine: list[int]) -> None:
        while item := belt.take():
            mine.append(item)

    takers = [in_thread(lambda mine=mine: take(mine))[0] for mine in taken]  # type: ignore[misc]
    for item in range(1, 1001):
        belt.put(item)
    belt.close()
    for taker in takers:
        ended(taker)
    assert sorted(item for mine in taken for item in mine) == list(range(1, 1001))
    assert all(mine == sorted(mine) for mine in taken)


def test_there_is_no_more_in_it_than_it_has_room_for() -> None:
    belt: ClosableQueue[int] = ClosableQueue(1, nothing)
    belt.put(1)
    putter, _ = in_thread(lambda: belt.put(2))
    putter.join(0.1)
    assert putter.is_alive()
    assert belt.take() == 1
    ended(putter)
    assert belt.take() == 2


def test_what_is_left_is_taken_after_the_end() -> None:
    belt: ClosableQueue[int] = ClosableQueue(2, nothing)
    belt.put(1)
    belt.close()
    assert (belt.take(), belt.take()) == (1, None)


def test_who_waits_learns_of_the_end() -> None:
    belt: ClosableQueue[int] = ClosableQueue(1, nothing)
    waiting = threading.Event()
    taker, came = in_thread(lambda: belt.take(on_idle=waiting.set))
    assert waiting.wait(30)
    belt.close()
    ended(taker)
    assert came == [None]


def test_who_waits_does_its_own_work_first_and_who_need_not_wait_does_not() -> None:
    belt: ClosableQueue[int] = ClosableQueue(1, nothing)
    done: list[str] = []
    belt.put(1)
    belt.take(on_idle=lambda: done.append("in vain"))
    belt.close()
    belt.take(on_idle=lambda: done.append("at the end"))
    assert not done


@pytest.mark.parametrize("side", ["put", "take"])
def test_who_waits_is_stopped(side: str) -> None:
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise Stopped

    belt: ClosableQueue[int] = ClosableQueue(1, check)
    if side == "put":
        belt.put(1)
    thread, came = in_thread(belt.take if side == "take" else lambda: belt.put(2))
    stopped.set()
    ended(thread)
    assert isinstance(came[0], Stopped)
