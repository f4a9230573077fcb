"""What a running job says of itself: to a display in this process, and to ``quarry status`` in another."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from dicom_quarry.ledger.reader import Counts, Reader

_log = logging.getLogger("dicom_quarry.job")

#: Over how many seconds the rates are taken.
_SPAN = 30.0

#: Counting a large ledger takes a while: at most this part of the time goes into it.
_SHARE = 0.02


@dataclass(slots=True)
class Moving:
    """A study on its way: the first row that asked for it, and how many of its instances are here."""

    row: int
    stored: int
    listed: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job at one moment. ``waiting`` says what it waits for, empty if it does not; times are in seconds."""

    counts: Counts
    elapsed: float
    instances: int
    size: int
    instances_per_second: float
    bytes_per_second: float
    seconds_left: float | None
    moving: tuple[Moving, ...]
    waiting: str
    stopping: bool


@dataclass(frozen=True, slots=True)
class Asking:
    """A plan, or another look, at one moment: of a ``number`` of ``what``, those that were asked about."""

    what: str
    number: int
    asked: int
    per_second: float
    seconds_left: float | None
    waiting: str
    stopping: bool


class Board:
    """Where the threads of a job write what they do, without patient identifiers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moving: dict[int, Moving] = {}
        self._waits: list[tuple[str, bool]] = []
        self._messages: deque[str] = deque(maxlen=1000)

    def say(self, message: str) -> None:
        """Tell the user, and the log."""
        _log.info(message)
        self._messages.append(message)

    def messages(self) -> Iterator[str]:
        """What was said since the last call."""
        while self._messages:
            yield self._messages.popleft()

    @contextmanager
    def waiting(self, why: str, *, person: bool = False) -> Iterator[None]:
        """The job waits, for what a person should know of; ``person``: and may have to do something about."""
        wait = (why, person)
        with self._lock:
            self._waits.append(wait)
        try:
            yield
        finally:
            with self._lock:
                self._waits.remove(wait)

    @property
    def waits_for(self) -> str:
        """What the job waits for, empty if it does not."""
        with self._lock:
            return self._waits[-1][0] if self._waits else ""

    @property
    def needs(self) -> str:
        """What it waits for that a person may have to do something about; empty if nothing."""
        with self._lock:
            return next((why for why, person in self._waits if person), "")

    @contextmanager
    def moving(self, task_id: int, row: int, listed: int) -> Iterator[Moving]:
        """A study is on its way."""
        moving = Moving(row, 0, listed)
        with self._lock:
            self._moving[task_id] = moving
        try:
            yield moving
        finally:
            with self._lock:
                del self._moving[task_id]

    def in_flight(self) -> tuple[Moving, ...]:
        """The studies on their way."""
        with self._lock:
            return tuple(self._moving.values())


class Meter:
    """Turns a board, the ledger's counts and the receiver's totals into snapshots."""

    def __init__(self, reader: Reader, board: Board) -> None:
        self._reader = reader
        self._board = board
        self._started = time.monotonic()
        self._counts = reader.counts()
        self._first = self._counts
        self._counted = self._started
        self._cost = 0.0
        self._totals: deque[tuple[float, int, int]] = deque([(self._started, 0, 0)])

    def snapshot(self, instances: int, size: int, *, stopping: bool) -> Snapshot:
        """The job now; ``instances`` and ``size`` are what has been received so far."""
        now = time.monotonic()
        self._count(now)
        self._totals.append((now, instances, size))
        while len(self._totals) > 2 and now - self._totals[0][0] > _SPAN:
            self._totals.popleft()
        then, instances_then, size_then = self._totals[0]
        span = max(now - then, 0.001)
        return Snapshot(
            counts=self._counts,
            elapsed=now - self._started,
            instances=instances,
            size=size,
            instances_per_second=(instances - instances_then) / span,
            bytes_per_second=(size - size_then) / span,
            seconds_left=self._seconds_left(now),
            moving=self._board.in_flight(),
            waiting=self._board.waits_for,
            stopping=stopping,
        )

    def _count(self, now: float) -> None:
        if now - self._counted < max(0.5, self._cost / _SHARE):
            return
        self._counts = self._reader.counts()
        self._counted = time.monotonic()
        self._cost = self._counted - now

    def _seconds_left(self, now: float) -> float | None:
        done = _rows_done(self._counts) - _rows_done(self._first)
        if done <= 0:
            return None
        return (self._counts.rows - _rows_done(self._counts)) * (now - self._started) / done


def _rows_done(counts: Counts) -> int:
    return sum(count for word, count in counts.rows_by_word.items() if word != "pending")


def write_progress(path: Path, snapshot: Snapshot) -> None:
    """Leave the snapshot for ``quarry status``; whole or not at all."""
    _leave(path, asdict(snapshot))


def write_queued(path: Path, behind: str) -> None:
    """The same of a job that waits for its port, and for what in front of it."""
    _leave(path, {"queued": True, "waiting": behind})


def _leave(path: Path, facts: Mapping[str, object]) -> None:
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps({"process": os.getpid(), "time": time.time(), **facts}))
    beside.replace(path)
