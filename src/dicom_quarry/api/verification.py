"""The files of a job once they are here: compared with the record, and released."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from dicom_quarry.api.result import access_of
from dicom_quarry.completion.release import Release
from dicom_quarry.completion.release import release as _release
from dicom_quarry.jobs.folder import existing
from dicom_quarry.reporting.csv_reports import write_damaged
from dicom_quarry.verification.verifier import Checked, Verification, Verified
from dicom_quarry.verification.verifier import verify as _verify


def verify(out: str | Path, *, quick: bool = False, threads: int | None = None) -> Iterator[Checked]:
    """Compare every recorded file with what is on disk; see :func:`dicom_quarry.verification.verifier.verify`."""
    return _verify(existing(Path(out)), quick=quick, threads=threads)


def release(out: str | Path, study_uids: Collection[str] = (), *, delete: bool = False) -> Iterator[Release]:
    """Release complete studies; see :func:`dicom_quarry.completion.release.release`."""
    return _release(existing(Path(out)), study_uids, delete=delete)


def damaged_file(verification: Verification, verified: Verified, *, whole: bool) -> Path | None:
    """Leave what a look at the files has found in damaged.csv; its path, None where nothing was found.

    A list of an earlier look goes when a ``whole`` one finds nothing: others would not know.
    """
    path = verification.folder.out / "damaged.csv"
    if not os.access(path.parent, os.W_OK):
        path = verification.kept_in / "damaged.csv"
    if verified.damaged or verified.strays:
        write_damaged(path, verification.damaged(), access=access_of(verification.folder.out))
        return path
    if whole:
        path.unlink(missing_ok=True)
    return None
