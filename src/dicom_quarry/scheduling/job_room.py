"""The room that a job may take on the disk: while it is used up, no further study is begun."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dicom_quarry.errors import RoomUsedUp
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.system.shutdown import Shutdown

#: Seconds between two counts of what a job has stored, and the largest share of the time for them.
_INTERVAL, _MAX_SHARE = 5.0, 0.05


class JobRoom:
    """The room of a job, ``limit`` bytes; None for no limit.

    ``get_used`` returns the bytes of all its files here, those of other workers, too. ``waits``: a study
    waits for room; a worker leaves the job to others instead, see ``require``.
    """

    def __init__(
        self,
        limit: int | None,
        get_used: Callable[[], int],
        shutdown: Shutdown,
        status_board: StatusBoard,
        *,
        waits: bool = True,
        interval: float = _INTERVAL,
    ) -> None:
        self._limit = limit
        self._get_used = get_used
        self._shutdown = shutdown
        self._status_board = status_board
        self._waits = waits
        self._interval = interval
        self._lock = threading.Lock()
        self._used, self._counted_again_at = 0, 0.0
        self._is_reported = False

    def require(self) -> None:
        """Raise RoomUsedUp if the room is used up."""
        if not self._has_room():
            raise RoomUsedUp(self._describe())

    def wait(self) -> None:
        """Wait until there is room again; raise Stopped when a shutdown is requested."""
        if not self._waits or self._has_room():
            return
        with self._lock:
            is_first, self._is_reported = not self._is_reported, True
        if is_first:
            self._status_board.report(f"{self._describe()}; the job then continues by itself")
        with self._status_board.report_waiting("room for the job", needs_operator=True):
            while not self._has_room():
                self._shutdown.wait_unless_stopping(self._interval)
        self._is_reported = False

    def _has_room(self) -> bool:
        if self._limit is None:
            return True
        with self._lock:
            began_at = time.monotonic()
            if began_at >= self._counted_again_at:
                self._used = self._get_used()
                ended_at = time.monotonic()
                self._counted_again_at = ended_at + max(self._interval, (ended_at - began_at) / _MAX_SHARE)
            return self._used < self._limit

    def _describe(self) -> str:
        return (
            f"its room of {(self._limit or 0) / 1e9:g} GB is used up (room): release studies, or run the job "
            "again with more"
        )
