"""All that is known of a job's rows and studies."""

from __future__ import annotations

from pathlib import Path

from dicom_quarry.extraction.identity_check import APART
from dicom_quarry.jobs.folder import existing
from dicom_quarry.ledger.history import HistoryReader


def history(out: Path) -> HistoryReader:
    """What is known of a job's rows and studies, one at a time; raises InputError if there is no job."""
    return HistoryReader(existing(out).ledger, APART)
