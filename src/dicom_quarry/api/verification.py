"""The files of a job once they are here: compared with the record, and released."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from dicom_quarry.api.result import report_access
from dicom_quarry.completion.release import ReleaseResult
from dicom_quarry.completion.release import release_studies as _release
from dicom_quarry.jobs.folder import open_existing
from dicom_quarry.reporting.csv_reports import write_damaged
from dicom_quarry.verification.verifier import FileResult, Verification, VerifySummary
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
