"""The status of a job, read by another process: from its ledger, its lock and its progress file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dicom_quarry.jobs.folder import JobFolder, lock_owner
from dicom_quarry.ledger.reader import Counts, LedgerReader


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job at one moment. ``process`` runs it, None if none does; ``progress`` is its progress file."""

    folder: JobFolder
    started_at: datetime
    counts: Counts
    process: int | None
    progress: Mapping[str, Any]

    @property
    def is_queued(self) -> bool:
        """True while the job waits for a port that another job has."""
        return bool(self.progress.get("queued"))

    @property
    def waiting_for(self) -> str:
        """The reason of a wait, or empty."""
        return str(self.progress.get("waiting_for") or "")

    @property
    def state(self) -> str:
        """The state in a word or two: running, waiting, queued, finished, not finished."""
        if self.process is None:
            return "finished" if self.counts.is_finished else "not finished"
        if self.is_queued:
            return "queued"
        return "waiting" if self.waiting_for else "running"


def read_job_status(folder: JobFolder) -> JobStatus:
    """Read the status of a job; raise LedgerError if its record cannot be read."""
    reader = LedgerReader(folder.ledger)
    try:
        counts, metadata = reader.counts(), reader.metadata()
    finally:
        reader.close()
    process = lock_owner(folder)
    progress = _read_progress(folder, process) if process else {}
    return JobStatus(folder, datetime.fromisoformat(metadata["created"]), counts, process, progress)


def _read_progress(folder: JobFolder, process: int) -> dict[str, Any]:
    """Return the progress that this process wrote; empty before it wrote any."""
    try:
        progress: dict[str, Any] = json.loads(folder.progress.read_text())
    except (OSError, ValueError):
        return {}
    return progress if progress.get("process") == process else {}
