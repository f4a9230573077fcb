"""Guests for tests: one without limits, and a clock that moves only when somebody waits."""

from __future__ import annotations

from datetime import datetime

from dicom_quarry.config.settings import Limits
from dicom_quarry.jobs.progress import Board
from dicom_quarry.scheduling.throttle import Clock, Guest
from dicom_quarry.system.shutdown import Stop, Stopped


def unlimited(stop: Stop, board: Board) -> Guest:
    """May ask at any time, one move at once."""
    return Guest(Limits(), {}, at_once=1, shared=None, stop=stop, board=board)


class Simulated(Stop):
    """A stop whose waits take no time: they set its clock forward. For one thread."""

    def __init__(self, start: datetime) -> None:
        super().__init__()
        self.seconds = start.timestamp()
        self.clock = Clock(lambda: self.seconds, lambda: self.seconds)

    def wait(self, seconds: float) -> None:
        self.check()
        self.seconds += seconds

    def pause(self, seconds: float) -> None:
        if self.urgent:
            raise Stopped
        self.seconds += seconds
