"""What a verification found is fetched again, and archives list again what they have listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dicom_quarry.api.result import report_access
from dicom_quarry.extraction.runner import JobResult, Runner
from dicom_quarry.ledger.views import ChangeView
from dicom_quarry.reporting.csv_reports import write_changes
from dicom_quarry.verification.archive_diff import NEW, ArchiveDiff
from dicom_quarry.verification.quarantine import read_study_uids
from dicom_quarry.verification.verifier import DAMAGE_CODES


def refetch(out: Path, runner: Runner, *, damaged: bool, changed: bool) -> JobResult:
    """Have sent again what verify found: damaged files, or studies that have grown in the archive.

    Raises InputError where verify has left no list of these.
    """
    study_uids: list[str] = []
    if damaged:
        study_uids += read_study_uids(out / "damaged.csv", DAMAGE_CODES, f"quarry verify {out}")
    if changed:
        study_uids += read_study_uids(
            out / "changes.csv", frozenset({NEW}), f"quarry verify {out} --against-archive"
        )
    return runner.refetch(list(dict.fromkeys(study_uids)))


def compare_with_archive(out: Path, runner: Runner, *, restart: bool) -> ArchiveDiff:
    """List every complete study again; changes.csv has what is otherwise now, if anything is."""
    path = out / "changes.csv"

    def write(changes: Iterator[ChangeView]) -> None:
        if not write_changes(path, changes, permissions=report_access(out)):
            path.unlink(missing_ok=True)

    return runner.compare_with_archive(write, restart=restart)
