"""The circuit breaker of an archive: while it does not answer, all threads wait and one of them probes it.

Closed: requests pass. Open, after ``trip``: every thread waits, of all jobs that share the archive's state.
Half-open: one thread of one job sends a C-ECHO (or its HTTP counterpart) at growing intervals, and closes the
circuit breaker of all jobs when the archive answers.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dicom_quarry.archive.base import Archive, Verdict
from dicom_quarry.archive.dimse.status import interpret_failure
from dicom_quarry.errors import (
    ArchiveError,
    ConnectionLost,
    OperatorActionRequired,
    QueryFailed,
    Rejected,
    Unreachable,
    redact,
)
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.backoff import MAX_FRUITLESS_ROUNDS, backoff
from dicom_quarry.system.durations import format_duration
from dicom_quarry.system.shutdown import Shutdown

T = TypeVar("T")

#: Seconds after which a waiting thread checks whether another job has had an answer.
_POLL_INTERVAL = 0.5

#: Attempts at a query that the archive answers with a failure, with a pause between them.
_MAX_QUERY_ATTEMPTS = 3


def _is_final(failure: QueryFailed) -> bool:
    """Return True for a failure that the same query would have again, such as A900 (PS3.4 C.4.1.1.4)."""
    return interpret_failure(failure).verdict in (Verdict.UNSUPPORTED, Verdict.CONFIGURATION)


class CircuitBreaker:
    """Runs requests while the archive is available; trips when it cannot be reached.

    Outside the time window no request passes, not even a probe, and no association is kept open. After
    ``give_up_after`` seconds without an answer the probing thread raises OperatorActionRequired.
    """

    def __init__(
        self,
        archive: Archive,
        shutdown: Shutdown,
        status_board: StatusBoard,
        throttle: ArchiveThrottle,
        give_up_after: float | None = None,
    ) -> None:
        self._archive = archive
        self._give_up_after = give_up_after
        self._shutdown = shutdown
        self._status_board = status_board
        self._throttle = throttle
        self._closed = threading.Event()
        self._closed.set()
        self._probe_lock = threading.Lock()
        self._state = throttle.archive_state
        self._failures_before = 0
        #: The end of this job's own pause after an operation that fails although the archive answers others.
        self._paused_until = 0.0

    def call(self, operation: Callable[[], T], *, is_query: bool = False) -> T:
        """Run an operation once the circuit breaker is closed, and again after each trip.

        A query that the archive answers with a failure runs again, after a pause, unless the archive reports
        that it does not support such a query. Raises QueryFailed for the
        last such answer; ConnectionLost for an operation that loses its association several times while the
        archive answers in between; Stopped; OperatorActionRequired for a permanent rejection, or for an
        operation that fails for ``give_up_after`` seconds although the archive answers the probes.
        """
        failed_answers = connection_losses = trips = 0
        failing_since: float | None = None
        while True:
            self.wait_until_closed()
            started_at = self._throttle.clock.monotonic()
            try:
                return operation()
            except QueryFailed as failure:
                failed_answers += 1
                if not is_query or failed_answers >= _MAX_QUERY_ATTEMPTS or _is_final(failure):
                    raise
                self._shutdown.wait_unless_stopping(backoff(failed_answers, random.random(), initial=2.0))
                connection_losses = 0
            except OperatorActionRequired:
                raise
            except ArchiveError as error:
                if isinstance(error, Rejected) and error.permanent:
                    raise OperatorActionRequired(str(error)) from error
                if isinstance(error, Rejected):
                    self._throttle.on_rejected(started_at)
                connection_losses += isinstance(error, ConnectionLost)
                if connection_losses >= MAX_FRUITLESS_ROUNDS:
                    raise
                failing_since = failing_since or time.monotonic()
                self._check_give_up(failing_since, error)
                trips += 1
                self.trip(error, trips)

    def trip(self, error: ArchiveError, trips: int = 1) -> None:
        """Open the circuit breaker: no request passes before the archive answers again.

        ``trips`` counts those of one operation: the archive may answer every probe and not the operation.
        """
        was_closed = self._closed.is_set()
        pause = _probe_pause(trips - 1) if was_closed else 0.0
        # The pause of an operation that fails again and again is this job's alone.
        self._state.problem = redact(error)
        self._state.mark_unavailable(min(pause, 1.0), _requested_pause(error))
        if was_closed:
            self._failures_before = trips - 1
            self._paused_until = self._state.now + pause
            self._closed.clear()
            self._status_board.report(f"the archive is not available: {error}")

    def close(self) -> None:
        """Note that the archive has answered: no job needs to wait for it."""
        if not self._state.is_available:
            self._state.mark_available()
        self._closed.set()

    def wait_until_closed(self) -> None:
        """Wait until the window is open and the archive answers; raise Stopped or OperatorActionRequired."""
        if not self._throttle.is_open:
            self._archive.release_idle()
            self._throttle.wait_until_open()
        if not self._state.is_available and self._closed.is_set():
            self._failures_before, self._paused_until = 0, 0.0
            self._closed.clear()
            self._status_board.report("the archive is not available to another job of this computer")
        while not self._closed.is_set():
            if self._probe_lock.acquire(timeout=_POLL_INTERVAL):
                try:
                    self._half_open_probe()
                finally:
                    self._probe_lock.release()
            self._shutdown.raise_if_requested()

    def _half_open_probe(self) -> None:
        """Probe when it is this job's turn, until this or another job has had an answer."""
        since, state, failures = time.monotonic(), self._state, self._failures_before
        with self._status_board.report_waiting("the archive to answer", needs_operator=True):
            while not self._closed.is_set():
                self._shutdown.raise_if_requested()
                state.refresh()
                own_pause = self._paused_until - state.now
                if own_pause <= 0 and state.is_available:
                    self._report_answer(since)
                    return
                if (wait := max(own_pause, state.seconds_to_probe)) > 0:
                    if state.failures > failures:
                        failures = state.failures
                        self._check_give_up(since, Unreachable("no job of this computer has had an answer"))
                    self._shutdown.wait_unless_stopping(min(wait, _POLL_INTERVAL))
                    continue
                self._throttle.wait_until_open()
                if state.claim_probe():
                    failures = max(failures, state.failures) + 1
                    if self._probe(since, failures):
                        self._report_answer(since)

    def _probe(self, since: float, failures: int) -> bool:
        """Probe the archive; return True if it answers. ``failures`` counts the probes, this one included."""
        # A probe takes an association of its own.
        self._archive.release_idle()
        try:
            self._archive.probe()
        except ArchiveError as error:
            if isinstance(error, Rejected) and error.permanent:
                raise OperatorActionRequired(str(error)) from error
            self._state.problem = redact(error)
            self._state.on_probe_failed(failures, _probe_pause(failures), _requested_pause(error))
            self._check_give_up(since, error)
            return False
        self._state.mark_available()
        return True

    def _report_answer(self, since: float) -> None:
        self._closed.set()
        self._status_board.report(f"the archive answers again after {time.monotonic() - since:.0f} s")

    def _check_give_up(self, since: float, error: ArchiveError) -> None:
        """Raise OperatorActionRequired if requests have failed for too long."""
        if self._give_up_after is not None and time.monotonic() - since >= self._give_up_after:
            raise OperatorActionRequired(
                f"it has not answered for {format_duration(self._give_up_after)} (give-up-after): {error}"
            ) from error


def _probe_pause(failures: int) -> float:
    """Return the seconds before the next probe."""
    return backoff(failures, random.random(), initial=1.0, maximum=60.0)


def _requested_pause(error: ArchiveError) -> float:
    """Return the seconds for which a busy archive wants no request; 0 if it requested none."""
    return error.retry_after if isinstance(error, Rejected) else 0.0
