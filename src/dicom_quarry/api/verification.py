"""The files of a job once they are here: compared with the record, and released."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from dicom_quarry.api.result import report_access
from dicom_quarry.completion.release import ReleaseResult
from dicom_quarry.completion.release import release_studies as _release
from dicom_quarry.extraction.runner import JobResult, Runner
from dicom_quarry.jobs.folder import open_existing
from dicom_quarry.ledger.views import ChangeView
from dicom_quarry.reporting.csv_reports import write_changes, write_damaged
from dicom_quarry.verification.archive_diff import NEW, ArchiveDiff
from dicom_quarry.verification.quarantine import read_study_uids
from dicom_quarry.verification.verifier import DAMAGE_CODES, FileResult, Verification, VerifySummary
from dicom_quarry.verification.verifier import verify as _verify


def verify(out: str | Path, *, quick: bool = False, threads: int | None = None) -> Iterator[FileResult]:
    """Compare every recorded file with what is on disk; see :func:`dicom_quarry.verification.verifier.verify`."""
    return _verify(open_existing(Path(out)), quick=quick, threads=threads)


def release(
    out: str | Path, study_uids: Collection[str] = (), *, delete: bool = False
) -> Iterator[ReleaseResult]:
    """Release complete studies; see :func:`dicom_quarry.completion.release.release`."""
    return _release(open_existing(Path(out)), study_uids, delete=delete)


def write_damaged_list(verification: Verification, verified: VerifySummary, *, is_full: bool) -> Path | None:
    """Leave what a look at the files has found in damaged.csv; its path, None where nothing was found.

    A list of an earlier look goes when a ``whole`` one finds nothing: others would not know.
    """
    path = verification.folder.out / "damaged.csv"
    if not os.access(path.parent, os.W_OK):
        path = verification.writable_folder / "damaged.csv"
    if verified.damaged or verified.unrecorded:
        write_damaged(path, verification.damaged_views(), permissions=report_access(verification.folder.out))
        return path
    if is_full:
        path.unlink(missing_ok=True)
    return None


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
