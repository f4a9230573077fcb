"""An archive's health: while it does not answer everybody waits, and one thread alone probes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dicom_quarry.archive.base import Archive
from dicom_quarry.errors import ArchiveError, Lost, QueryFailed, Rejected, Unusable
from dicom_quarry.extraction.retry_policy import PATIENCE, backoff
from dicom_quarry.jobs.progress import Board
from dicom_quarry.scheduling.throttle import Guest
from dicom_quarry.system.shutdown import Stop

T = TypeVar("T")

#: Failed answers to one query, with a pause between them, before they are believed.
_QUERY_TRIES = 3


class Gate:
    """Every question to the archive passes here; it closes when the archive is out of reach.

    Outside the window nothing passes either, not even a probe, and no association is kept. An archive that
    does not answer for ``give_up_after`` seconds is Unusable.
    """

    def __init__(
        self, archive: Archive, stop: Stop, board: Board, guest: Guest, give_up_after: float | None = None
    ) -> None:
        self._archive = archive
        self._give_up_after = give_up_after
        self._stop = stop
        self._board = board
        self._guest = guest
        self._up = threading.Event()
        self._up.set()
        self._probing = threading.Lock()
        self._quiet_until = 0.0

    def call(self, question: Callable[[], T]) -> T:
        """Ask when the archive answers, and again after it was out of reach.

        A question that loses its association several times, though the archive answers in between, raises
        Lost. Raises QueryFailed, Stopped, and Unusable for a permanent rejection.
        """
        lost = 0
        while True:
            self.wait()
            began = self._guest.clock.tick()
            try:
                return question()
            except (QueryFailed, Unusable):
                raise
            except ArchiveError as error:
                if isinstance(error, Rejected) and error.permanent:
                    raise Unusable(str(error)) from error
                if isinstance(error, Rejected):
                    self._guest.refused(began)
                lost += isinstance(error, Lost)
                if lost >= PATIENCE:
                    raise
                self.close(error)

    def query(self, question: Callable[[], T]) -> T:
        """Like ``call``; a failure as an answer is asked for again, with pauses, before it is believed."""
        tries = 1
        while True:
            try:
                return self.call(question)
            except QueryFailed:
                if tries == _QUERY_TRIES:
                    raise
                self._stop.wait(backoff(tries, random.random(), first=2.0))
                tries += 1

    def close(self, error: ArchiveError) -> None:
        """The archive was out of reach: nobody passes before it answers again."""
        self._leave_alone(error)
        if self._up.is_set():
            self._up.clear()
            self._board.say(f"the archive is out of reach: {error}")

    def wait(self) -> None:
        """Return when the archive may be asked and answers. Raises Stopped, and Unusable."""
        if not self._guest.is_open:
            self._archive.hang_up()
            self._guest.wait_until_open()
        while not self._up.is_set():
            if self._probing.acquire(timeout=0.5):
                try:
                    self._probe()
                finally:
                    self._probing.release()
            self._stop.check()

    def _leave_alone(self, error: ArchiveError) -> None:
        """A busy archive may have said when it wants to be asked again."""
        if isinstance(error, Rejected):
            self._quiet_until = max(self._quiet_until, time.monotonic() + error.retry_after)

    def _probe(self) -> None:
        failures = 0
        since = time.monotonic()
        with self._board.waiting("the archive to answer", person=True):
            while not self._up.is_set():
                pause = backoff(failures, random.random(), first=1.0, ceiling=60.0)
                self._stop.wait(max(pause, self._quiet_until - time.monotonic()))
                self._guest.wait_until_open()
                try:
                    self._archive.probe()
                except ArchiveError as error:
                    if isinstance(error, Rejected) and error.permanent:
                        raise Unusable(str(error)) from error
                    failures += 1
                    self._leave_alone(error)
                    if self._give_up_after is not None and time.monotonic() - since >= self._give_up_after:
                        raise Unusable(f"it has not answered for so long that we give up: {error}") from error
                    continue
                self._up.set()
                self._board.say(f"the archive answers again after {time.monotonic() - since:.0f} s")
