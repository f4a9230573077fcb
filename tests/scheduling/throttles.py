"""Guests for tests: one without limits, and a clock that moves only when somebody waits."""

from __future__ import annotations

from datetime import datetime

from dicom_quarry.config.archive_profile import Limits
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.scheduling.shared_state import Clock, ProcessState
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.shutdown import Shutdown, Stopped


def unlimited(stop: Shutdown, board: StatusBoard) -> ArchiveThrottle:
    """May ask at any time, one move at once."""
    return ArchiveThrottle(
        Limits(), {}, parallel=1, shared_state=ProcessState(), shutdown=stop, status_board=board
    )


class Simulated(Shutdown):
    """A stop whose waits take no time: they set its clock forward. For one thread."""

    def __init__(self, start: datetime) -> None:
        super().__init__()
        self.seconds = start.timestamp()
        self.clock = Clock(lambda: self.seconds, lambda: self.seconds)

    def wait_unless_stopping(self, seconds: float) -> None:
        self.raise_if_requested()
        self.seconds += seconds

    def wait_unless_cancelled(self, seconds: float) -> None:
        if self.cancel_requested:
            raise Stopped
        self.seconds += seconds
