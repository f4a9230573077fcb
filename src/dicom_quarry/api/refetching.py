"""What a verification found is fetched again, and archives list again what they have listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dicom_quarry.api.result import access_of
from dicom_quarry.extraction.runner import JobEnd, Runner
from dicom_quarry.ledger.views import ChangeView
from dicom_quarry.reporting.csv_reports import write_changes
from dicom_quarry.verification.archive_diff import NEW, Again
from dicom_quarry.verification.quarantine import studies_in
from dicom_quarry.verification.verifier import DAMAGED


def fetched_again(out: Path, runner: Runner, *, damaged: bool, changed: bool) -> JobEnd:
    """Have sent again what verify found: damaged files, or studies that have grown in the archive.

    Raises InputError where verify has left no list of these.
    """
    study_uids: list[str] = []
    if damaged:
        study_uids += studies_in(out / "damaged.csv", DAMAGED, f"quarry verify {out}")
    if changed:
        study_uids += studies_in(
            out / "changes.csv", frozenset({NEW}), f"quarry verify {out} --against-archive"
        )
    return runner.fetch_again(list(dict.fromkeys(study_uids)))


def compared(out: Path, runner: Runner, *, restart: bool) -> Again:
    """List every complete study again; changes.csv has what is otherwise now, if anything is."""
    path = out / "changes.csv"

    def write(changes: Iterator[ChangeView]) -> None:
        if not write_changes(path, changes, access=access_of(out)):
            path.unlink(missing_ok=True)

    return runner.compare(write, restart=restart)
