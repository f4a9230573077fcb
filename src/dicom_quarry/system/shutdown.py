"""Graceful shutdown: the first request finishes the studies being transferred, the second cancels them."""

from __future__ import annotations

import threading
import time

#: Seconds after a cancel: until associations that did not end are aborted and connections are cut; and until
#: a thread that still waits, such as for a host name, is not waited for any longer.
ABORT_AFTER = 4.0
ABANDON_AFTER = 5.0


class Stopped(Exception):
    """A shutdown was requested, and the work of this thread is to end."""


class Shutdown:
    """The state of a shutdown, shared by all threads of a job.

    It only sets flags, so that a signal handler may call ``request``.
    """

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._cancel_requested = threading.Event()
        self._cancelled_at = float("inf")

    def request(self) -> None:
        """Request the shutdown; a second call cancels the work in progress."""
        if self._requested.is_set():
            self._cancelled_at = min(self._cancelled_at, time.monotonic())
            self._cancel_requested.set()
        self._requested.set()

    @property
    def requested(self) -> bool:
        """True after the first request: threads start nothing new."""
        return self._requested.is_set()

    @property
    def cancel_requested(self) -> bool:
        """True after the second request: threads cancel the work in progress."""
        return self._cancel_requested.is_set()

    @property
    def seconds_since_cancel(self) -> float:
        """The seconds since the second request; negative without bound before it."""
        return time.monotonic() - self._cancelled_at

    def raise_if_requested(self) -> None:
        """Raise Stopped after the first request."""
        if self.requested:
            raise Stopped

    def raise_if_cancelled(self) -> None:
        """Raise Stopped after the second request."""
        if self.cancel_requested:
            raise Stopped

    def wait_unless_stopping(self, seconds: float) -> None:
        """Sleep; raise Stopped as soon as a shutdown is requested."""
        if self._requested.wait(seconds):
            raise Stopped

    def wait_unless_cancelled(self, seconds: float) -> None:
        """Sleep, also after the first request; raise Stopped as soon as the work in progress is cancelled."""
        if self._cancel_requested.wait(seconds):
            raise Stopped
