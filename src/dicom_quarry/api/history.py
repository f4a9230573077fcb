"""All that is known of a job's rows and studies."""

from __future__ import annotations

from pathlib import Path

from dicom_quarry.extraction.identity_check import MISMATCH_DIR
from dicom_quarry.jobs.folder import open_existing
from dicom_quarry.ledger.history import HistoryReader


def open_history(out: Path) -> HistoryReader:
    """What is known of a job's rows and studies, one at a time; raises InputError if there is no job."""
    return HistoryReader(open_existing(out).ledger, MISMATCH_DIR)
