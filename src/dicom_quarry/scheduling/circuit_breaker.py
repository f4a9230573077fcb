"""The circuit breaker of an archive: while it does not answer, all threads wait and one of them probes it.

Closed: requests pass. Open, after ``trip``: every thread waits. Half-open: one thread sends a C-ECHO (or its
HTTP counterpart) at growing intervals, and closes the circuit breaker when the archive answers.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dicom_quarry.archive.base import Archive, Verdict
from dicom_quarry.archive.dimse.status import interpret_failure
from dicom_quarry.errors import ArchiveError, ConnectionLost, OperatorActionRequired, QueryFailed, Rejected
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.backoff import MAX_FRUITLESS_ROUNDS, backoff
from dicom_quarry.system.durations import format_duration
from dicom_quarry.system.shutdown import Shutdown

T = TypeVar("T")

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
        self._retry_not_before = 0.0
        self._failures_before = 0

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
        self._record_rejection(error)
        if self._closed.is_set():
            self._failures_before = trips - 1
            self._closed.clear()
            self._status_board.report(f"the archive is not available: {error}")

    def wait_until_closed(self) -> None:
        """Wait until the window is open and the archive answers; raise Stopped or OperatorActionRequired."""
        if not self._throttle.is_open:
            self._archive.release_idle()
            self._throttle.wait_until_open()
        while not self._closed.is_set():
            if self._probe_lock.acquire(timeout=0.5):
                try:
                    self._half_open_probe()
                finally:
                    self._probe_lock.release()
            self._shutdown.raise_if_requested()

    def _record_rejection(self, error: ArchiveError) -> None:
        """Keep the earliest time of the next request, if a busy archive gave one."""
        if isinstance(error, Rejected):
            self._retry_not_before = max(self._retry_not_before, time.monotonic() + error.retry_after)

    def _half_open_probe(self) -> None:
        failures = self._failures_before
        since = time.monotonic()
        with self._status_board.report_waiting("the archive to answer", needs_operator=True):
            while not self._closed.is_set():
                pause = backoff(failures, random.random(), initial=1.0, maximum=60.0)
                self._shutdown.wait_unless_stopping(max(pause, self._retry_not_before - time.monotonic()))
                self._throttle.wait_until_open()
                # A probe takes an association of its own.
                self._archive.release_idle()
                try:
                    self._archive.probe()
                except ArchiveError as error:
                    if isinstance(error, Rejected) and error.permanent:
                        raise OperatorActionRequired(str(error)) from error
                    failures += 1
                    self._record_rejection(error)
                    self._check_give_up(since, error)
                    continue
                self._closed.set()
                self._status_board.report(f"the archive answers again after {time.monotonic() - since:.0f} s")

    def _check_give_up(self, since: float, error: ArchiveError) -> None:
        """Raise OperatorActionRequired if requests have failed for too long."""
        if self._give_up_after is not None and time.monotonic() - since >= self._give_up_after:
            raise OperatorActionRequired(
                f"it has not answered for {format_duration(self._give_up_after)} (give-up-after): {error}"
            ) from error
