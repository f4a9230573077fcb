"""The stored files of a job compared with its record, or those of a folder with its manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dicom_quarry.api.result import report_access
from dicom_quarry.errors import InputError
from dicom_quarry.jobs.local_place import LocalPlace
from dicom_quarry.jobs.open_place import find_folder, open_existing
from dicom_quarry.jobs.opened_job import open_job
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.file_state import record_damage
from dicom_quarry.plurals import format_part
from dicom_quarry.reporting.csv_reports import write_damaged
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.reporting.progress_text import format_left
from dicom_quarry.system.permissions import PRIVATE
from dicom_quarry.verification.damage_record import read_job_damage, record_result
from dicom_quarry.verification.manifest import MANIFEST_NAME
from dicom_quarry.verification.proof_check import ProofCheck
from dicom_quarry.verification.proof_check import check_proof as _check_proof
from dicom_quarry.verification.quick_check import check_sizes
from dicom_quarry.verification.results import (
    OpenVerification,
    VerifyOptions,
    VerifyProgress,
    VerifySummary,
)
from dicom_quarry.verification.verifier import VerificationRun


def open_verification(out: Path, options: VerifyOptions) -> OpenVerification:
    """Prepare a verification that can be interrupted and continued; workers of a database do it, if they can.

    Without a readable record of the job the folder's manifest is used. Raises InputError if there is neither.
    """
    folder, manifest = _find_record(out, options.manifest)
    if manifest is None and options.threads is None:
        check = folder.open_file_check(restart=options.restart)
        if check is not None:
            # Imported here: a job in a folder has no workers.
            from dicom_quarry.verification.by_workers import WorkersVerification

            return WorkersVerification(folder, check, options)
    if manifest is None:
        folder.require_folder()
    return VerificationRun(folder, replace(options, manifest=manifest))


def choose_record(out: Path, manifest: Path | None) -> tuple[JobPlace, Path | None]:
    """Return the folders to verify here, and the manifest to use instead of the job's record."""
    folder, found = _find_record(out, manifest)
    if found is None:
        folder.require_folder()
    return folder, found


def _find_record(out: Path, manifest: Path | None) -> tuple[JobPlace, Path | None]:
    if manifest is not None:
        folder = find_folder(out)
        return LocalPlace(folder, folder / ".quarry"), manifest
    try:
        place = open_existing(out)
    except InputError:
        # Handed over without the record, or the record is another user's.
        if not (out / MANIFEST_NAME).is_file():
            raise
        return LocalPlace(out, out / ".quarry"), out / MANIFEST_NAME
    return place, None


def format_files_progress(progress: VerifyProgress) -> str:
    """Format the files compared so far, the rate and the time left."""
    done = min(100, 100 * progress.done.size // max(progress.total.size, 1))
    text = (
        f"{format_part(progress.done.files, progress.total.files, 'file')} ({done} %), "
        f"{progress.files_per_second:,.0f} files/s, {format_size(round(progress.bytes_per_second))}/s"
    )
    if progress.waiting_for:
        return f"{text}; waiting for {progress.waiting_for}"
    return text if progress.seconds_left is None else f"{text}, {format_left(progress.seconds_left)}"


def check_proof(out: Path, *, manifest: Path | None = None, public_key: Path | None = None) -> ProofCheck:
    """Check proof.json against the manifest, and the job's record or else the reports; reads no images.

    Raises InputError if there is no proof, or the public key is none.
    """
    try:
        job = open_job(out)
    except InputError:  # delivered without the record, or the record is another user's
        return _check_proof(out, None, manifest or out / MANIFEST_NAME, public_key=public_key)
    with job:
        job.folder.require_folder()
        return _check_proof(job.out, job, manifest or job.out / MANIFEST_NAME, public_key=public_key)


def write_damaged_list(
    verification: OpenVerification, verified: VerifySummary, *, is_full: bool
) -> Path | None:
    """Write damaged.csv with the findings of a verification; returns its path, None if nothing was found.

    A full verification that finds nothing deletes the list of an earlier one; a partial one cannot know.
    """
    path = verification.list_folder / "damaged.csv"
    if verified.damaged or verified.unrecorded:
        permissions = report_access(verification.folder) if verification.manifest is None else PRIVATE
        write_damaged(path, verification.damaged_views(), permissions=permissions)
        return path
    if is_full:
        path.unlink(missing_ok=True)
    return None


def record_verification(verification: OpenVerification, verified: VerifySummary, *, is_quick: bool) -> None:
    """Record in the job what a verification found, unless it was of a manifest, or of a read-only copy."""
    if not verification.may_record:
        return
    codes = {one.code for one in verification.damaged_views()} if verified.damaged else set()
    is_sample = verification.sample is not None
    record_result(verification.folder, verified.damaged, codes, is_quick=is_quick, is_sample=is_sample)


def recheck_lost_files(folder: JobPlace) -> None:
    """Compare the sizes of files again, if the record of the job has files that were lost."""
    damage = read_job_damage(folder)
    if damage is not None and damage.by_size:
        lost = len(check_sizes(folder).lost)
        record_damage(folder.ledger, damage, replace(damage, files=lost) if lost else None)
