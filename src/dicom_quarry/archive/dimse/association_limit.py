"""The number of associations that an archive accepts at once, learnt from those that it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from dicom_quarry.errors import ArchiveError, Rejected, Unreachable

#: Seconds between two checks of a thread that waits for another association to end.
_POLL_INTERVAL = 0.1
#: Seconds after which one association more than the limit is tried.
_RAISE_AFTER = 600.0
#: Seconds in which an archive may still count an association that has ended, the pause before the next
#: request then, and the largest number of such requests.
_CLOSING_TIME = 1.0
_CLOSING_PAUSE = 0.1
_MAX_CLOSING_TRIES = 4


class OpenAssociation(Protocol):
    """An association that was opened."""

    @property
    def is_alive(self) -> bool:
        """False once the association has ended."""


A = TypeVar("A", bound=OpenAssociation)


class AssociationLimit:
    """The limit of an archive on our associations; its adapters and their threads share it.

    No limit is known at first. A request that the archive turns down while other associations are open shows
    one. From then on a new association waits until another one has ended, and idle ones are released for it.
    ``wait`` pauses a waiting thread for some seconds, and may raise; ``report`` gets messages for the user.
    """

    def __init__(
        self,
        wait: Callable[[float], object] = time.sleep,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._wait = wait
        self._report = report
        self._idle_releasers: list[Callable[[], bool]] = []
        self._lock = threading.Lock()
        self._open: list[OpenAssociation] = []
        self._opening = self._waiting = 0
        self._limit: int | None = None
        self._learnt_at = 0.0
        self._ended_at = float("-inf")
        self._has_accepted = False

    @property
    def is_contended(self) -> bool:
        """True while a thread waits for an association to end: do not keep an idle one."""
        return self._waiting > 0

    def add_idle_releaser(self, release_idle: Callable[[], bool]) -> None:
        """Add a function that releases idle associations, and returns True if there was one."""
        self._idle_releasers.append(release_idle)

    def open(self, associate: Callable[[], A]) -> A:
        """Open an association as soon as the limit allows it. Raises what ``associate`` and ``wait`` raise.

        ``associate`` is called again if it fails for a reason that another open association may be.
        """
        tries = 0
        while True:
            self._reserve()
            tries += 1
            try:
                association = associate()
            except ArchiveError as error:
                if not self._can_retry(error, tries):
                    raise self._classify(error) from error
            except BaseException:
                self._end_opening()
                raise
            else:
                self._end_opening(association)
                return association

    def _reserve(self) -> None:
        """Wait until the limit allows one association more, and count it."""
        if self._try_reserve():
            return
        with self._lock:
            self._waiting += 1
        try:
            while True:
                self.release_idle()
                if self._try_reserve():
                    return
                self._wait(_POLL_INTERVAL)
        finally:
            with self._lock:
                self._waiting -= 1

    def _try_reserve(self) -> bool:
        with self._lock:
            in_use = self._count_open()
            if self._limit is not None and time.monotonic() - self._learnt_at >= _RAISE_AFTER:
                self._limit += 1
                self._learnt_at = time.monotonic()
            if self._limit is not None and in_use >= self._limit:
                return False
            self._opening += 1
            return True

    def _count_open(self) -> int:
        alive = [one for one in self._open if one.is_alive]
        if len(alive) < len(self._open):
            self._ended_at = time.monotonic()
        self._open = alive
        return len(alive) + self._opening

    def _end_opening(self, association: OpenAssociation | None = None) -> int:
        """Count no longer an association that is being opened; return the number of the others."""
        with self._lock:
            self._opening -= 1
            others = self._count_open()
            if association is not None:
                self._open.append(association)
                self._has_accepted = True
            return others

    def _can_retry(self, error: ArchiveError, tries: int) -> bool:
        """Learn from an association that was turned down; return True if another try may succeed."""
        others = self._end_opening()
        if not _may_be_limit(error):
            return False
        released = self.release_idle()
        is_closing = time.monotonic() - self._ended_at < _CLOSING_TIME
        if others and (released or not is_closing or tries >= _MAX_CLOSING_TRIES):
            self._learn(others)
            return True
        if is_closing and tries < _MAX_CLOSING_TRIES:
            # The archive may not have noticed the end of the association before this one.
            self._wait(_CLOSING_PAUSE * tries)
            return True
        return False

    def _learn(self, limit: int) -> None:
        with self._lock:
            is_new = self._limit is None or limit < self._limit
            self._limit = min(limit, self._limit or limit)
            self._learnt_at = time.monotonic()
        if is_new:
            number = "one association" if limit == 1 else f"{limit} associations"
            self._report(f"the archive accepts no more than {number} at once: Quarry keeps to that")

    def release_idle(self) -> bool:
        """Release the associations that no thread uses now; return False if there was none."""
        released = [release() for release in self._idle_releasers]
        if any(released):
            self._ended_at = time.monotonic()
        return any(released)

    def _classify(self, error: ArchiveError) -> ArchiveError:
        """Return the error; a rejection without a reason, after an association, counts as temporary."""
        if isinstance(error, Rejected) and error.permanent and not error.is_explained and self._has_accepted:
            return Rejected(str(error), permanent=False)
        return error


def _may_be_limit(error: ArchiveError) -> bool:
    """Return True if too many associations may be the reason for an error.

    Not every archive rejects one too many as PS3.8 9.3.4 has it: some give no reason, close the connection,
    or leave the request without an answer until another association ends.
    """
    if isinstance(error, Rejected):
        return not error.permanent or not error.is_explained
    return isinstance(error, Unreachable) and error.is_connected
