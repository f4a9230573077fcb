"""Room on the disk: nothing is asked for, and nothing taken, while there is too little of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from dicom_quarry.errors import OutOfSpace
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.model import InstanceInfo, Sink, Writer
from dicom_quarry.system.file_systems import free_bytes
from dicom_quarry.system.shutdown import Shutdown

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds between two looks at a disk that is full.
_POLL_INTERVAL = 5.0

#: After an instance found no room, so much more must be free; or so many seconds pass, since what is free
#: does not tell of quotas.
_RETRY_MARGIN_BYTES = 16_000_000
_RETRY_SECONDS = 600.0

#: Where so many bytes more than needed are free, nobody fills them within so many seconds.
_PLENTY_BYTES = 4_000_000_000
_PLENTY_SECONDS = 0.1


class DiskSpaceMonitor:
    """Watches the disk that a job fills; ``keep_free`` bytes are left to others."""

    def __init__(
        self,
        path: Path,
        keep_free: int,
        shutdown: Shutdown,
        status_board: StatusBoard,
        *,
        get_free: Callable[[Path], int] = free_bytes,
        poll_interval: float = _POLL_INTERVAL,
    ) -> None:
        self._path = path
        self._keep_free = keep_free
        self._shutdown = shutdown
        self._status_board = status_board
        self._get_free = get_free
        self._poll_interval = poll_interval
        self._lock = threading.Lock()
        self._shortage: tuple[int, float] | None = None  # what must be free, or when to try all the same
        self._waiter_count = 0
        self._plenty_until = 0.0

    def require_space(self) -> None:
        """Before an instance is taken; raises OutOfSpace."""
        if time.monotonic() < self._plenty_until:
            return
        free = self._get_free(self._path)
        if free < self._keep_free:
            raise OutOfSpace("there is too little space left on the disk")
        if free - self._keep_free >= _PLENTY_BYTES:
            self._plenty_until = time.monotonic() + _PLENTY_SECONDS

    def mark_full(self) -> None:
        """An instance found no room, though there seemed to be some."""
        with self._lock:
            self._shortage = (
                self._get_free(self._path) + _RETRY_MARGIN_BYTES,
                time.monotonic() + _RETRY_SECONDS,
            )

    def wait_for_space(self) -> None:
        """Return when there is room; raises Stopped when the job is stopped meanwhile."""
        if self._has_space():
            return
        with self._lock:
            first = not self._waiter_count
            self._waiter_count += 1
        if first:
            self._status_board.report(self._describe_shortage())
        try:
            with self._status_board.report_waiting("room on the disk", needs_operator=True):
                while not self._has_space():
                    self._shutdown.wait_unless_stopping(self._poll_interval)
        finally:
            with self._lock:
                self._waiter_count -= 1
                last = not self._waiter_count
        if last:
            self._status_board.report("there is room on the disk again")

    def _has_space(self) -> bool:
        free = self._get_free(self._path)
        with self._lock:
            if self._shortage and (free >= self._shortage[0] or time.monotonic() >= self._shortage[1]):
                self._shortage = None
            return self._shortage is None and free >= self._keep_free

    def _describe_shortage(self) -> str:
        free = f"only {self._get_free(self._path) / 1e9:.2f} GB are free on the disk of {self._path}"
        if self._shortage:
            return f"{free}, too little for an instance: waiting for room"
        return f"{free}, and {self._keep_free / 1e9:g} GB are to be left (keep-free): waiting for room"


class SpaceCheckedSink:
    """The store while there is room; who waits for room is told when there was none."""

    def __init__(self, store: Sink, disk_space: DiskSpaceMonitor) -> None:
        self._store = store
        self._disk_space = disk_space

    def begin(self, arrival: InstanceInfo) -> Writer:
        """Start one instance. Raises OutOfSpace, or Refused."""
        self._disk_space.require_space()
        return _SpaceCheckedWriter(self._store.begin(arrival), self._disk_space)


class _SpaceCheckedWriter:
    def __init__(self, inner: Writer, disk_space: DiskSpaceMonitor) -> None:
        self.write = _marking_full(inner.write, disk_space)
        self.commit = _marking_full(inner.commit, disk_space)
        self.abort = inner.abort


def _marking_full(step: Callable[P, T], disk_space: DiskSpaceMonitor) -> Callable[P, T]:
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return step(*args, **kwargs)
        except OutOfSpace:
            disk_space.mark_full()
            raise

    return wrapper
