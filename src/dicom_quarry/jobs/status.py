"""Where a job stands, seen from another process: its ledger, who holds it, and what it said last."""

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
    """A job at one moment. ``process`` runs it, None if nobody does; ``live`` is what that said last."""

    folder: JobFolder
    started_at: datetime
    counts: Counts
    process: int | None
    progress: Mapping[str, Any]

    @property
    def is_queued(self) -> bool:
        """Whether it waits for another job to leave its port."""
        return bool(self.progress.get("queued"))

    @property
    def waiting_for(self) -> str:
        """What it waits for, empty if it does not."""
        return str(self.progress.get("waiting_for") or "")

    @property
    def state(self) -> str:
        """In a word or two: running, waiting, queued, finished, not finished."""
        if self.process is None:
            return "finished" if self.counts.is_finished else "not finished"
        if self.is_queued:
            return "queued"
        return "waiting" if self.waiting_for else "running"


def read_job_status(folder: JobFolder) -> JobStatus:
    """Look at a job; raises LedgerError if its record cannot be read."""
    reader = LedgerReader(folder.ledger)
    try:
        counts, metadata = reader.counts(), reader.metadata()
    finally:
        reader.close()
    process = lock_owner(folder)
    progress = _read_progress(folder, process) if process else {}
    return JobStatus(folder, datetime.fromisoformat(metadata["created"]), counts, process, progress)


def _read_progress(folder: JobFolder, process: int) -> dict[str, Any]:
    """What the running job said last; nothing in its first moments, whatever an earlier run has left."""
    try:
        progress: dict[str, Any] = json.loads(folder.progress.read_text())
    except (OSError, ValueError):
        return {}
    return progress if progress.get("process") == process else {}
