"""The stored files of a job compared with its record, or those of a folder with its manifest."""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from dicom_quarry.api.result import report_access
from dicom_quarry.errors import InputError
from dicom_quarry.jobs.local_place import LocalPlace
from dicom_quarry.jobs.open_place import find_folder, open_existing
from dicom_quarry.jobs.opened_job import open_job
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.file_state import FileDamage, read_damage, record_damage
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.plurals import format_part
from dicom_quarry.reporting.csv_reports import write_damaged
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.reporting.progress_text import format_left
from dicom_quarry.system.permissions import PRIVATE
from dicom_quarry.verification.manifest import MANIFEST_NAME
from dicom_quarry.verification.proof_check import ProofCheck
from dicom_quarry.verification.proof_check import check_proof as _check_proof
from dicom_quarry.verification.quick_check import check_sizes
from dicom_quarry.verification.verifier import (
    SIZE_CODES,
    VerificationRun,
    VerifyOptions,
    VerifyProgress,
    VerifySummary,
)


def open_verification(out: Path, options: VerifyOptions) -> VerificationRun:
    """Prepare a verification that can be interrupted and continued.

    Without a readable record of the job the folder's manifest is used. Raises InputError if there is neither.
    """
    folder, manifest = choose_record(out, options.manifest)
    return VerificationRun(folder, replace(options, manifest=manifest))


def choose_record(out: Path, manifest: Path | None) -> tuple[JobPlace, Path | None]:
    """Return the folders to verify, and the manifest to use instead of the job's record."""
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
    place.require_folder()
    return place, None


def format_files_progress(progress: VerifyProgress) -> str:
    """Format the files compared so far, the rate and the time left."""
    done = min(100, 100 * progress.done.size // max(progress.total.size, 1))
    text = (
        f"{format_part(progress.done.files, progress.total.files, 'file')} ({done} %), "
        f"{progress.files_per_second:,.0f} files/s, {format_size(round(progress.bytes_per_second))}/s"
    )
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
    verification: VerificationRun, verified: VerifySummary, *, is_full: bool
) -> Path | None:
    """Write damaged.csv with the findings of a verification; returns its path, None if nothing was found.

    A full verification that finds nothing deletes the list of an earlier one; a partial one cannot know.
    """
    path = verification.folder.out / "damaged.csv"
    if not os.access(path.parent, os.W_OK):
        path = verification.writable_folder / "damaged.csv"
    if verified.damaged or verified.unrecorded:
        permissions = report_access(verification.folder) if verification.manifest is None else PRIVATE
        write_damaged(path, verification.damaged_views(), permissions=permissions)
        return path
    if is_full:
        path.unlink(missing_ok=True)
    return None


def read_job_damage(folder: JobPlace) -> FileDamage | None:
    """Read the damage in a job's record."""
    with closing(LedgerReader(folder.ledger)) as reader:
        return read_damage(reader.metadata())


def record_verification(
    verification: VerificationRun, verified: VerifySummary, *, is_full: bool, is_quick: bool
) -> None:
    """Record in the job what a verification found, unless it compared with a manifest, or a read-only copy.

    A comparison of sizes, or of a sample, finds no damage that is not there any more only where the damage
    was one of sizes.
    """
    folder = verification.folder
    if verification.manifest is not None or verification.writable_folder != folder.state:
        return
    before = read_job_damage(folder)
    if verified.damaged:
        command = "quarry verify --quick" if is_quick else "quarry verify"
        by_size = is_quick or {one.code for one in verification.damaged_views()} <= SIZE_CODES
        damage = FileDamage(verified.damaged, command, time.time(), by_size=by_size)
        record_damage(folder.ledger, before, damage)
    elif is_full or (is_quick and before is not None and before.by_size and not verification.sample):
        record_damage(folder.ledger, before, None)


def recheck_lost_files(folder: JobPlace) -> None:
    """Compare the sizes of files again, if the record of the job has files that were lost."""
    damage = read_job_damage(folder)
    if damage is not None and damage.by_size:
        lost = len(check_sizes(folder).lost)
        record_damage(folder.ledger, damage, replace(damage, files=lost) if lost else None)
