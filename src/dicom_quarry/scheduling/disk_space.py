"""Room on the disk: nothing is asked for, and nothing taken, while there is too little of it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from dicom_quarry.errors import OutOfSpace
from dicom_quarry.jobs.progress import Board
from dicom_quarry.model import Arrival, Sink, Writer
from dicom_quarry.system.shutdown import Stop

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds between two looks at a disk that is full.
_PAUSE = 5.0

#: After an instance found no room, so much more must be free; or so many seconds pass, since what is free
#: does not tell of quotas.
_MORE = 16_000_000
_TRY_AGAIN = 600.0

#: Where so many bytes more than needed are free, nobody fills them within so many seconds.
_PLENTY = 4_000_000_000
_FOR = 0.1


def free_bytes(path: Path) -> int:
    """What this user may still write there."""
    return shutil.disk_usage(path).free


class Room:
    """Watches the disk that a job fills; ``keep_free`` bytes are left to others."""

    def __init__(
        self,
        path: Path,
        keep_free: int,
        stop: Stop,
        board: Board,
        *,
        free: Callable[[Path], int] = free_bytes,
        pause: float = _PAUSE,
    ) -> None:
        self._path = path
        self._keep_free = keep_free
        self._stop = stop
        self._board = board
        self._free = free
        self._pause = pause
        self._lock = threading.Lock()
        self._short: tuple[int, float] | None = None  # what must be free, or when to try all the same
        self._waiting = 0
        self._plenty_until = 0.0

    def check(self) -> None:
        """Before an instance is taken; raises OutOfSpace."""
        if time.monotonic() < self._plenty_until:
            return
        free = self._free(self._path)
        if free < self._keep_free:
            raise OutOfSpace("there is too little space left on the disk")
        if free - self._keep_free >= _PLENTY:
            self._plenty_until = time.monotonic() + _FOR

    def ran_out(self) -> None:
        """An instance found no room, though there seemed to be some."""
        with self._lock:
            self._short = (self._free(self._path) + _MORE, time.monotonic() + _TRY_AGAIN)

    def wait(self) -> None:
        """Return when there is room; raises Stopped when the job is stopped meanwhile."""
        if self._enough():
            return
        with self._lock:
            first = not self._waiting
            self._waiting += 1
        if first:
            self._board.say(self._lacking())
        try:
            with self._board.waiting("room on the disk", person=True):
                while not self._enough():
                    self._stop.wait(self._pause)
        finally:
            with self._lock:
                self._waiting -= 1
                last = not self._waiting
        if last:
            self._board.say("there is room on the disk again")

    def _enough(self) -> bool:
        free = self._free(self._path)
        with self._lock:
            if self._short and (free >= self._short[0] or time.monotonic() >= self._short[1]):
                self._short = None
            return self._short is None and free >= self._keep_free

    def _lacking(self) -> str:
        free = f"only {self._free(self._path) / 1e9:.2f} GB are free on the disk of {self._path}"
        if self._short:
            return f"{free}, too little for an instance: waiting for room"
        return f"{free}, and {self._keep_free / 1e9:g} GB are to be left (keep-free): waiting for room"


class RoomySink:
    """The store while there is room; who waits for room is told when there was none."""

    def __init__(self, store: Sink, room: Room) -> None:
        self._store = store
        self._room = room

    def begin(self, arrival: Arrival) -> Writer:
        """Start one instance. Raises OutOfSpace, or Refused."""
        self._room.check()
        return _RoomyWriter(self._store.begin(arrival), self._room)


class _RoomyWriter:
    def __init__(self, inner: Writer, room: Room) -> None:
        self.write = _watched(inner.write, room)
        self.commit = _watched(inner.commit, room)
        self.abort = inner.abort


def _watched(step: Callable[P, T], room: Room) -> Callable[P, T]:
    def watched(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return step(*args, **kwargs)
        except OutOfSpace:
            room.ran_out()
            raise

    return watched
