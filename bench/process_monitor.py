"""Monitor of a process, once a second: its memory and its processor time."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Sample:
    """``resident`` and ``wal`` are in bytes, ``time`` is POSIX, ``processor`` is seconds since the start."""

    time: float
    resident: int
    processor: float
    wal: int
    threads: int
    files: int


@dataclass(slots=True)
class Watch:
    """Samples of a process for as long as the context lasts; ``wal`` is a file whose size goes with them."""

    pid: int
    wal: Path | None = None
    samples: list[Sample] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            taken = sample(self.pid, self.wal)
            if taken is not None:
                self.samples.append(taken)
            self._ended.wait(1.0)


def sample(pid: int, wal: Path | None = None) -> Sample | None:
    """A process now; None if it has ended."""
    process = Path("/proc") / str(pid)
    try:
        numbers = (process / "stat").read_text().rpartition(")")[2].split()
        resident = int((process / "statm").read_text().split()[1]) * _PAGE
        files = len(list((process / "fd").iterdir()))
    except OSError:
        return None
    # proc(5): fields 14, 15 and 20, the first two are before the bracket.
    processor = (int(numbers[11]) + int(numbers[12])) / _TICKS
    return Sample(time.time(), resident, processor, size_of(wal), int(numbers[17]), files)


def size_of(path: Path | None) -> int:
    """The bytes of a file, 0 where there is none."""
    return path.stat().st_size if path is not None and path.exists() else 0


def between(samples: Sequence[Sample], start: float, end: float) -> list[Sample]:
    """The samples of a span of time; the nearest one where it is too short to have its own."""
    inside = [one for one in samples if start <= one.time <= end]
    return inside or [min(samples, key=lambda one: abs(one.time - start))]


def query(ledger: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Query a ledger, also while a job writes it."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(sql, values).fetchall()
