"""Refusals of our own receiver, so that a study that lacks instances is not blamed on the archive."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass

from dicom_quarry.errors import InstanceRefused

#: Refusals that are remembered; each is of an instance or of an association.
_MAX_REMEMBERED = 20_000

#: C-STORE statuses after which another try may succeed: no space (PS3.4 B.2.3), and a failure of the disk.
_TEMPORARY = frozenset({0xA700, 0x0110})


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason of a refusal, for the user.

    ``is_lasting``: another try cannot succeed before a person has acted. ``is_of_sender``: an association was
    refused or aborted, not an instance.
    """

    reason: str
    is_lasting: bool
    is_of_sender: bool = False


class RefusalLog:
    """The latest refusals of a job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[tuple[float, str, Refusal]] = deque(maxlen=_MAX_REMEMBERED)

    def add_instance(self, sop_uid: str, error: Exception) -> None:
        """Add an instance that was refused, or could not be stored; its UID may be empty if unknown."""
        if isinstance(error, InstanceRefused):
            self._add(sop_uid, Refusal(str(error), error.status not in _TEMPORARY))
        else:
            # The text of the exception may contain the name of a patient's file.
            self._add(sop_uid, Refusal(f"it could not be stored ({type(error).__name__})", is_lasting=False))

    def add_sender(self, reason: str, *, is_lasting: bool) -> None:
        """Add an association that was refused or aborted."""
        self._add("", Refusal(reason, is_lasting, is_of_sender=True))

    def find(self, sop_uids: Collection[str], since: float) -> Refusal | None:
        """Return the most frequent refusal of these instances since a time (monotonic clock), None if none.

        Without UIDs every instance counts. A refused sender counts only if no instance was refused: it need
        not have been the archive.
        """
        with self._lock:
            entries = [entry for entry in reversed(self._entries) if entry[0] >= since]
        counts = Counter(
            refusal
            for _, uid, refusal in entries
            if not refusal.is_of_sender and (not sop_uids or not uid or uid in sop_uids)
        )
        if counts:
            return counts.most_common(1)[0][0]
        return next((refusal for *_, refusal in entries if refusal.is_of_sender), None)

    def reasons_of(self, sop_uids: Collection[str]) -> dict[str, list[str]]:
        """Return, for each reason, the instances among these that were last refused for it."""
        with self._lock:
            last = {uid: refusal.reason for _, uid, refusal in self._entries if uid in sop_uids}
        found: dict[str, list[str]] = {}
        for uid, reason in sorted(last.items()):
            found.setdefault(reason, []).append(uid)
        return found

    def _add(self, sop_uid: str, refusal: Refusal) -> None:
        with self._lock:
            self._entries.append((time.monotonic(), sop_uid, refusal))
