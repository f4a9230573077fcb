"""Where a job stands, seen from another process: its ledger, who holds it, and what it said last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dicom_quarry.jobs.folder import JobFolder, holder
from dicom_quarry.ledger.reader import Counts, Reader


@dataclass(frozen=True, slots=True)
class Standing:
    """A job at one moment. ``process`` runs it, None if nobody does; ``live`` is what that said last."""

    folder: JobFolder
    began: datetime
    counts: Counts
    process: int | None
    live: Mapping[str, Any]

    @property
    def queued(self) -> bool:
        """Whether it waits for another job to leave its port."""
        return bool(self.live.get("queued"))

    @property
    def waiting_for(self) -> str:
        """What it waits for, empty if it does not."""
        return str(self.live.get("waiting") or "")

    @property
    def state(self) -> str:
        """In a word or two: running, waiting, queued, finished, not finished."""
        if self.process is None:
            return "finished" if self.counts.finished else "not finished"
        if self.queued:
            return "queued"
        return "waiting" if self.waiting_for else "running"


def standing(folder: JobFolder) -> Standing:
    """Look at a job; raises LedgerError if its record cannot be read."""
    reader = Reader(folder.ledger)
    try:
        counts, facts = reader.counts(), reader.facts()
    finally:
        reader.close()
    process = holder(folder)
    live = _live(folder, process) if process else {}
    return Standing(folder, datetime.fromisoformat(facts["created"]), counts, process, live)


def _live(folder: JobFolder, process: int) -> dict[str, Any]:
    """What the running job said last; nothing in its first moments, whatever an earlier run has left."""
    try:
        live: dict[str, Any] = json.loads(folder.progress.read_text())
    except (OSError, ValueError):
        return {}
    return live if live.get("process") == process else {}
