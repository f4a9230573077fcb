"""The work that a worker leaves to the others for a while, and why."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from dicom_quarry.errors import ArchiveError, LedgerError, redact
from dicom_quarry.jobs.internal_errors import is_internal
from dicom_quarry.system.error_trace import describe_place

_log = logging.getLogger(__name__)

#: Seconds for which an archive, or a job, that this worker cannot use is left to the others; and a job whose
#: record cannot be read, as when the database is away.
_LEAVE_SECONDS = 60.0
_RECORD_SECONDS = 2.0


@dataclass(slots=True)
class LeftWork:
    """The jobs and archives that are left to the other workers: until when, and why."""

    _until: dict[object, float] = field(default_factory=dict)
    _reasons: dict[object, str] = field(default_factory=dict)
    #: What a person has to solve, by archive, each with its key and the time.
    _refusals: dict[str, tuple[object, str, float]] = field(default_factory=dict)

    def add(
        self, key: object, error: Exception, name: str = "", *, archive: str = "", at: float = 0.0
    ) -> None:
        """Leave something for a while; ``name`` is its name for a user, if that is another.

        ``archive`` cannot be used before a person has acted, which was found out ``at`` this time.
        """
        reason = _describe(error)
        if archive:
            self._refusals[archive] = key, reason, at
        _log.warning("%s: %s", key, reason)
        seconds = _RECORD_SECONDS if isinstance(error, LedgerError) else _LEAVE_SECONDS
        self._until[key], self._reasons[key] = time.monotonic() + seconds, f"{name or key}: {reason}"

    def has(self, key: object) -> bool:
        """Return True while something is left."""
        if time.monotonic() < self._until.get(key, 0.0):
            return True
        self._reasons.pop(key, None)
        return False

    def refusal_of(self, archive: str) -> tuple[str, float]:
        """Return what a person has to solve before an archive can be used, and since when."""
        key, reason, at = self._refusals.get(archive, (None, "", 0.0))
        return (reason, at) if self.has(key) else ("", 0.0)

    def describe(self) -> list[str]:
        """Return what is left now, with the reasons."""
        return [reason for key, reason in list(self._reasons.items()) if self.has(key)]


def _describe(error: Exception) -> str:
    """Return why something is left to others, for a list that everybody reads: without identifiers."""
    if is_internal(error):
        return (
            f"internal error ({describe_place(error)}), a defect of Quarry: its trace is in this worker's log"
        )
    if isinstance(error, OSError):
        # Without its path, which may have a patient's identifier.
        return f"a file or folder of it cannot be used: {error.strerror or type(error).__name__}"
    return redact(error) if isinstance(error, ArchiveError) else str(error)
