"""The damage that the last comparison of a job's files has found, in the record of the job."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import closing

from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.file_state import FileDamage, read_damage, record_damage
from dicom_quarry.ledger.reader import LedgerReader

#: The codes of damage to a recorded file.
DAMAGE_CODES = frozenset({"missing", "size", "content", "unreadable"})
#: Those that a comparison of sizes finds, and so finds mended.
SIZE_CODES = frozenset({"missing", "size"})


def read_job_damage(folder: JobPlace) -> FileDamage | None:
    """Read the damage in a job's record."""
    with closing(LedgerReader(folder.ledger)) as reader:
        return read_damage(reader.metadata())


def record_result(
    folder: JobPlace, damaged: int, codes: Collection[str], *, is_quick: bool, is_sample: bool
) -> None:
    """Record what a comparison found: a number of damaged files, and the codes of all findings.

    A comparison of sizes, or of a sample, finds no damage that is not there any more only where the damage
    was one of sizes. Nor does it replace a larger number, of damage that it cannot find.
    """
    before = read_job_damage(folder)
    if before is not None and damaged <= before.files and (is_sample or (is_quick and not before.by_size)):
        return
    if damaged:
        command = "quarry verify --quick" if is_quick else "quarry verify"
        by_size = is_quick or set(codes) <= SIZE_CODES
        record_damage(folder.ledger, before, FileDamage(damaged, command, time.time(), by_size=by_size))
    elif not is_sample and (not is_quick or (before is not None and before.by_size)):
        record_damage(folder.ledger, before, None)
