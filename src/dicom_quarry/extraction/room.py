"""Room on the disk: nothing is asked for while there is too little of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from dicom_quarry.extraction.progress import Board
from dicom_quarry.extraction.stop import Stop

#: Seconds between two looks at a disk that is full.
_PAUSE = 5.0


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
    ) -> None:
        self._path = path
        self._keep_free = keep_free
        self._stop = stop
        self._board = board
        self._free = free

    def wait(self) -> None:
        """Return when there is room; raises Stopped when the job is stopped meanwhile."""
        if self._free(self._path) >= self._keep_free:
            return
        self._board.say(
            f"the disk of {self._path} is full but for {self._keep_free / 1e9:g} GB: waiting for room"
        )
        with self._board.waiting("room on the disk"):
            while self._free(self._path) < self._keep_free:
                self._stop.wait(_PAUSE)
        self._board.say("there is room on the disk again")
