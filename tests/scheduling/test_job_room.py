"""The room of a job: told by the test, counted now and then, and waited for."""

from __future__ import annotations

import threading

import pytest

from dicom_quarry.errors import RoomUsedUp
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.scheduling.job_room import JobRoom
from dicom_quarry.system.shutdown import Shutdown, Stopped
from tests.peers.process import wait_for


class Folder:
    """A folder with a room of 100 bytes; ``used`` is what a job has stored there."""

    def __init__(self, limit: int | None = 100, *, waits: bool = True, interval: float = 0.01) -> None:
        self.used = self.counted = 0
        self.stop, self.board = Shutdown(), StatusBoard()
        self.room = JobRoom(limit, self.count, self.stop, self.board, waits=waits, interval=interval)

    def count(self) -> int:
        self.counted += 1
        return self.used


def test_a_study_waits_for_room_and_goes_on_by_itself() -> None:
    folder = Folder()
    folder.room.wait()
    folder.used = 100
    wait_for(lambda: not folder.room._has_room(), "the next count", 10)
    threads = [threading.Thread(target=folder.room.wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: folder.board.waiting_for == "room for the job", "the wait", 10)
    folder.used = 99
    for thread in threads:
        thread.join(10)
    assert [one for one in folder.board.take_messages() if "its room of 1e-07 GB is used up (room)" in one]
    assert folder.board.waiting_for == ""


def test_a_stop_ends_the_wait() -> None:
    folder = Folder()
    folder.used = 100
    folder.stop.request()
    with pytest.raises(Stopped):
        folder.room.wait()


def test_a_worker_does_not_wait_and_counts_now_and_then() -> None:
    folder = Folder(waits=False, interval=3600)
    folder.used = 100
    for _ in range(3):
        with pytest.raises(RoomUsedUp, match="release studies, or run the job again with more"):
            folder.room.require()
        folder.room.wait()
    assert folder.counted == 1


def test_without_a_limit_nothing_is_counted() -> None:
    folder = Folder(None)
    folder.room.require()
    folder.room.wait()
    assert folder.counted == 0
