"""Free disk space: while there is too little, nothing is requested and no instance accepted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from dicom_quarry.errors import OutOfSpace
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.system.file_systems import free_bytes
from dicom_quarry.system.shutdown import Shutdown

#: Seconds between two checks of a full disk.
_POLL_INTERVAL = 5.0

#: After a write that failed, so many bytes more must be free, or so many seconds pass: the free bytes of a
#: file system do not show a user's quota.
_RETRY_MARGIN_BYTES = 16_000_000
_RETRY_SECONDS = 600.0

#: With so many bytes more than needed the next check may wait for so many seconds.
_PLENTY_BYTES = 4_000_000_000
_PLENTY_SECONDS = 0.1


class DiskSpaceMonitor:
    """Monitors the disk that a job fills; the job leaves ``keep_free`` bytes free."""

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
        self._shortage: tuple[int, float] | None = (
            None  # bytes that must be free, or time of the next attempt
        )
        self._waiter_count = 0
        self._plenty_until = 0.0

    def require_space(self) -> None:
        """Check the free space before an instance is accepted; raise OutOfSpace."""
        if time.monotonic() < self._plenty_until:
            return
        free = self._get_free(self._path)
        if free < self._keep_free:
            raise OutOfSpace("there is too little space left on the disk")
        if free - self._keep_free >= _PLENTY_BYTES:
            self._plenty_until = time.monotonic() + _PLENTY_SECONDS

    def mark_full(self) -> None:
        """Record that a write failed for lack of space, although some seemed free."""
        with self._lock:
            self._shortage = (
                self._get_free(self._path) + _RETRY_MARGIN_BYTES,
                time.monotonic() + _RETRY_SECONDS,
            )

    def wait_for_space(self) -> None:
        """Wait until there is enough space; raise Stopped when a shutdown is requested."""
        if self._has_space():
            return
        with self._lock:
            first = not self._waiter_count
            self._waiter_count += 1
        if first:
            self._status_board.report(self._describe_shortage())
        try:
            with self._status_board.report_waiting("free disk space", needs_operator=True):
                while not self._has_space():
                    self._shutdown.wait_unless_stopping(self._poll_interval)
        finally:
            with self._lock:
                self._waiter_count -= 1
                last = not self._waiter_count
        if last:
            self._status_board.report("there is enough free disk space again")

    def _has_space(self) -> bool:
        free = self._get_free(self._path)
        with self._lock:
            if self._shortage and (free >= self._shortage[0] or time.monotonic() >= self._shortage[1]):
                self._shortage = None
            return self._shortage is None and free >= self._keep_free

    def _describe_shortage(self) -> str:
        free = f"{self._get_free(self._path) / 1e6:,.0f} MB free on the disk of {self._path}"
        reason = (
            "too little for an instance, or your quota is used up"
            if self._shortage
            else f"Quarry keeps {self._keep_free / 1e9:g} GB free (keep-free)"
        )
        return f"disk full: {free}, {reason}. Free some space; the job then continues by itself"
