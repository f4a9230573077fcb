"""How a job is stopped: once, and what is in flight is finished; twice, and it is cancelled."""

from __future__ import annotations

import threading


class Stopped(Exception):
    """The job was asked to stop while this thread waited."""


class Stop:
    """Shared by all threads of a job. Only sets flags, so that a signal handler may call it."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._urgent = threading.Event()

    def request(self) -> None:
        """Stop; a second call cancels what is in flight."""
        if self._requested.is_set():
            self._urgent.set()
        self._requested.set()

    @property
    def requested(self) -> bool:
        """Nothing new is to be started."""
        return self._requested.is_set()

    @property
    def urgent(self) -> bool:
        """What is in flight is to be cancelled."""
        return self._urgent.is_set()

    def check(self) -> None:
        """Raise Stopped if the job is to stop."""
        if self.requested:
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Wait so long; raises Stopped at once when the job is to stop."""
        if self._requested.wait(seconds):
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Wait so long, also when the job is to stop; raises Stopped once what is in flight is cancelled."""
        if self._urgent.wait(seconds):
            raise Stopped
