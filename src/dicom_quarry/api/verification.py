"""The stored files of a job compared with its record."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dicom_quarry.api.boundary import clear_errors
from dicom_quarry.api.options import StrPath, make_path
from dicom_quarry.api.result import report_access
from dicom_quarry.jobs.folder import open_existing
from dicom_quarry.reporting.csv_reports import write_damaged
from dicom_quarry.verification.verifier import FileResult, Verification, VerifyOptions, VerifySummary
from dicom_quarry.verification.verifier import verify as _verify


@clear_errors
def verify(folder: StrPath, *, quick: bool = False, threads: int | None = None) -> Iterator[FileResult]:
    """Compare every recorded file with the disk; see :func:`dicom_quarry.verification.verifier.verify`."""
    return _verify(open_existing(make_path(folder, "folder")), quick=quick, threads=threads)


def open_verification(out: Path, options: VerifyOptions) -> Verification:
    """Prepare a verification that can be interrupted and continued; raises InputError if there is no job."""
    return Verification(open_existing(out), options)


def write_damaged_list(verification: Verification, verified: VerifySummary, *, is_full: bool) -> Path | None:
    """Write damaged.csv with the findings of a verification; returns its path, None if nothing was found.

    A full verification that finds nothing deletes the list of an earlier one; a partial one cannot know.
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
