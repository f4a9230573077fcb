"""How a job is stopped: once, and what is in flight is finished; twice, and it is cancelled."""

from __future__ import annotations

import threading


class Stopped(Exception):
    """The job was asked to stop while this thread waited."""


class Shutdown:
    """Shared by all threads of a job. Only sets flags, so that a signal handler may call it."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._cancel_requested = threading.Event()

    def request(self) -> None:
        """Stop; a second call cancels what is in flight."""
        if self._requested.is_set():
            self._cancel_requested.set()
        self._requested.set()

    @property
    def requested(self) -> bool:
        """Nothing new is to be started."""
        return self._requested.is_set()

    @property
    def cancel_requested(self) -> bool:
        """What is in flight is to be cancelled."""
        return self._cancel_requested.is_set()

    def raise_if_requested(self) -> None:
        """Raise Stopped if the job is to stop."""
        if self.requested:
            raise Stopped

    def wait_unless_stopping(self, seconds: float) -> None:
        """Wait so long; raises Stopped at once when the job is to stop."""
        if self._requested.wait(seconds):
            raise Stopped

    def wait_unless_cancelled(self, seconds: float) -> None:
        """Wait so long, also when the job is to stop; raises Stopped once what is in flight is cancelled."""
        if self._cancel_requested.wait(seconds):
            raise Stopped
