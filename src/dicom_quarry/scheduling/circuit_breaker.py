"""An archive's health: while it does not answer everybody waits, and one thread alone probes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dicom_quarry.archive.base import Archive
from dicom_quarry.errors import ArchiveError, ConnectionLost, OperatorActionRequired, QueryFailed, Rejected
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.backoff import MAX_FRUITLESS_ROUNDS, backoff
from dicom_quarry.system.shutdown import Shutdown

T = TypeVar("T")

#: Failed answers to one query, with a pause between them, before they are believed.
_MAX_QUERY_ATTEMPTS = 3


class CircuitBreaker:
    """Every question to the archive passes here; it closes when the archive is out of reach.

    Outside the window nothing passes either, not even a probe, and no association is kept. An archive that
    does not answer for ``give_up_after`` seconds is Unusable.
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

    def call(self, operation: Callable[[], T]) -> T:
        """Ask when the archive answers, and again after it was out of reach.

        A question that loses its association several times, though the archive answers in between, raises
        Lost. Raises QueryFailed, Stopped, and Unusable for a permanent rejection.
        """
        connection_losses = 0
        while True:
            self.wait_until_closed()
            started_at = self._throttle.clock.monotonic()
            try:
                return operation()
            except (QueryFailed, OperatorActionRequired):
                raise
            except ArchiveError as error:
                if isinstance(error, Rejected) and error.permanent:
                    raise OperatorActionRequired(str(error)) from error
                if isinstance(error, Rejected):
                    self._throttle.on_rejected(started_at)
                connection_losses += isinstance(error, ConnectionLost)
                if connection_losses >= MAX_FRUITLESS_ROUNDS:
                    raise
                self.trip(error)

    def run_query(self, operation: Callable[[], T]) -> T:
        """Like ``call``; a failure as an answer is asked for again, with pauses, before it is believed."""
        tries = 1
        while True:
            try:
                return self.call(operation)
            except QueryFailed:
                if tries == _MAX_QUERY_ATTEMPTS:
                    raise
                self._shutdown.wait_unless_stopping(backoff(tries, random.random(), initial=2.0))
                tries += 1

    def trip(self, error: ArchiveError) -> None:
        """The archive was out of reach: nobody passes before it answers again."""
        self._record_retry_after(error)
        if self._closed.is_set():
            self._closed.clear()
            self._status_board.report(f"the archive is out of reach: {error}")

    def wait_until_closed(self) -> None:
        """Return when the archive may be asked and answers. Raises Stopped, and Unusable."""
        if not self._throttle.is_open:
            self._archive.release_thread()
            self._throttle.wait_until_open()
        while not self._closed.is_set():
            if self._probe_lock.acquire(timeout=0.5):
                try:
                    self._half_open_probe()
                finally:
                    self._probe_lock.release()
            self._shutdown.raise_if_requested()

    def _record_retry_after(self, error: ArchiveError) -> None:
        """A busy archive may have said when it wants to be asked again."""
        if isinstance(error, Rejected):
            self._retry_not_before = max(self._retry_not_before, time.monotonic() + error.retry_after)

    def _half_open_probe(self) -> None:
        failures = 0
        since = time.monotonic()
        with self._status_board.report_waiting("the archive to answer", needs_operator=True):
            while not self._closed.is_set():
                pause = backoff(failures, random.random(), initial=1.0, maximum=60.0)
                self._shutdown.wait_unless_stopping(max(pause, self._retry_not_before - time.monotonic()))
                self._throttle.wait_until_open()
                try:
                    self._archive.probe()
                except ArchiveError as error:
                    if isinstance(error, Rejected) and error.permanent:
                        raise OperatorActionRequired(str(error)) from error
                    failures += 1
                    self._record_retry_after(error)
                    if self._give_up_after is not None and time.monotonic() - since >= self._give_up_after:
                        raise OperatorActionRequired(
                            f"it has not answered for so long that we give up: {error}"
                        ) from error
                    continue
                self._closed.set()
                self._status_board.report(f"the archive answers again after {time.monotonic() - since:.0f} s")
