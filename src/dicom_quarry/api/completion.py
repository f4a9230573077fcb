"""Studies whose files leave the job: released ones, and those that no row requests any more."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TypeVar

from dicom_quarry.api.verification import recheck_lost_files
from dicom_quarry.completion.prune import PrunedStudy, prune_studies
from dicom_quarry.completion.release import ReleaseResult, release_studies
from dicom_quarry.jobs.open_place import open_existing
from dicom_quarry.jobs.place import JobPlace

T = TypeVar("T")


def release(
    out: str | Path,
    study_uids: Collection[str] = (),
    *,
    delete: bool = False,
    trust_owner: bool = False,
) -> Iterator[ReleaseResult]:
    """Release complete studies; see :func:`dicom_quarry.completion.release.release_studies`."""
    folder = open_existing(Path(out), check_owner=True, trust_owner=trust_owner)
    return _then_recheck(folder, release_studies(folder, study_uids, delete=delete))


def prune(out: str | Path, *, delete: bool = False, trust_owner: bool = False) -> Iterator[PrunedStudy]:
    """Move away what no row requests any more; see :func:`dicom_quarry.completion.prune.prune_studies`."""
    folder = open_existing(Path(out), check_owner=True, trust_owner=trust_owner)
    return _then_recheck(folder, prune_studies(folder, delete=delete))


def _then_recheck(folder: JobPlace, results: Iterator[T]) -> Iterator[T]:
    """Yield the results; then correct the record of lost files, some of which may have left the job."""
    yield from results
    recheck_lost_files(folder)
