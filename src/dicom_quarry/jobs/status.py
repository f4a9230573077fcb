"""The status of a job, read by another process: from its ledger, its lock and its progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dicom_quarry.jobs.place import Holder, JobPlace
from dicom_quarry.ledger.file_state import FileDamage, read_damage
from dicom_quarry.ledger.reader import Counts, LedgerReader
from dicom_quarry.model import Study
from dicom_quarry.system.text_safety import escape_text

if TYPE_CHECKING:
    from dicom_quarry.jobs.cluster.file_check import FileCheckState

#: Limits on a progress, which another user may have written: characters of a reason, numbers.
_MAX_REASON = 500
_MAX_NUMBER = 1e15

_STUDY_KEYS = ("row", "stored", "listed", "task_id")


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job at one moment. ``holder`` is the process that runs it, None if none does.

    ``active_studies`` are the studies of the progress, by their rows. ``damage`` are files that were found
    damaged or missing, ``file_check`` is the workers' comparison. ``was_killed``: its last process ended
    without stopping, such as by kill -9 or a restart of the computer.
    """

    folder: JobPlace
    started_at: datetime
    counts: Counts
    holder: Holder | None
    progress: Mapping[str, Any]
    active_studies: Mapping[int, Study] = field(default_factory=dict)
    damage: FileDamage | None = None
    file_check: FileCheckState | None = None
    was_killed: bool = False

    @property
    def process(self) -> int | None:
        """The ID of the process that runs the job, None if none does."""
        return self.holder.process if self.holder else None

    @property
    def is_queued(self) -> bool:
        """True while the job waits for a port that another job has."""
        return bool(self.progress.get("queued"))

    @property
    def waiting_for(self) -> str:
        """The reason of a wait, or empty."""
        return str(self.progress.get("waiting_for") or "")

    @property
    def is_stopping(self) -> bool:
        """True while the job finishes the studies being transferred, and then ends."""
        return bool(self.progress.get("stopping"))

    @property
    def can_be_resumed(self) -> bool:
        """True if the job is not finished, and no process runs it."""
        return self.process is None and not self.counts.is_finished

    @property
    def state(self) -> str:
        """The state in a word or two: running, waiting, queued, finished, not finished."""
        if self.process is None:
            return "finished" if self.counts.is_finished else "not finished"
        if self.is_queued:
            return "queued"
        return "waiting" if self.waiting_for else "running"


def read_status(folder: JobPlace, reader: LedgerReader) -> JobStatus:
    """Read the status of a job from its record, its lock and its progress file; raise LedgerError."""
    counts, metadata = reader.counts(), reader.metadata()
    holder = folder.holder()
    progress = _read_progress(folder, holder) if holder else {}
    active = {
        one["row"]: view.study
        for one in progress.get("active_studies", [])
        for view in reader.studies(only=int(one.get("task_id") or 0))
    }
    began, damage = datetime.fromisoformat(metadata["created"]), read_damage(metadata)
    was_killed = holder is None and not counts.is_finished and folder.was_left()
    check = folder.read_file_check()
    return JobStatus(folder, began, counts, holder, progress, active, damage, check, was_killed)


def _read_progress(folder: JobPlace, holder: Holder) -> dict[str, Any]:
    """Return the progress that this process wrote; empty before it wrote any."""
    progress = folder.read_progress()
    if not isinstance(progress, dict) or progress.get("process") != holder.process:
        return {}
    return _clean_progress(progress)


def _clean_progress(progress: dict[str, Any]) -> dict[str, Any]:
    """Return the values that have the type of Quarry's; another user may have written others."""
    studies = progress.get("active_studies")
    rows = [one for one in studies if isinstance(one, dict)] if isinstance(studies, list) else []
    clean: dict[str, Any] = {
        "queued": progress.get("queued") is True,
        "stopping": progress.get("stopping") is True,
        "waiting_for": escape_text(str(progress.get("waiting_for") or ""), limit=_MAX_REASON),
        "active_studies": [
            {key: one[key] for key in _STUDY_KEYS}
            for one in rows
            if all(_is_number(one.get(key)) for key in _STUDY_KEYS)
        ],
    }
    for name in ("bytes_done", "bytes_expected"):
        if _is_number(progress.get(name)):
            clean[name] = progress[name]
    for name in ("bytes_per_second", "seconds_left"):
        if not _is_number(progress.get(name)):
            break  # without a rate the time is not shown either
        clean[name] = progress[name]
    return clean


def _is_number(value: object) -> bool:
    """Return True for a number that can be shown, and is no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MAX_NUMBER
