"""The instances of a task that an earlier run stored."""

from __future__ import annotations

import logging
from pathlib import PurePosixPath

from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.jobs.folder import MISMATCH_DIR
from dicom_quarry.model import Listing, Receipt, Task
from dicom_quarry.plurals import format_count

_log = logging.getLogger(__name__)


def load_receipts(context: JobContext, task: Task, row: int, listing: Listing) -> list[Receipt]:
    """Return the receipts of the instances that an earlier run stored for a task of a row."""
    found: list[Receipt] = []
    listed_uids = {ref.sop_uid for ref in listing.instances}
    for folder in context.ledger.folders_of(task.task_id):
        for receipt in context.instance_files.read_receipts(PurePosixPath(folder)):
            if receipt.ref.sop_uid in listed_uids or receipt.ref.study_uid == task.study.study_uid:
                found.append(_move_if_accepted(context, task, receipt))
    if found:
        _log.info("row %d: %s stored in an earlier run", row, format_count(len(found), "instance"))
    return found


def _move_if_accepted(context: JobContext, task: Task, receipt: Receipt) -> Receipt:
    """Move an instance out of the folder for mismatches once its identity is accepted."""
    in_mismatch_dir = receipt.path.parts[0] == MISMATCH_DIR
    is_of_other_study = receipt.ref.study_uid != task.study.study_uid
    if not in_mismatch_dir or is_of_other_study or context.inbound.find_mismatch(task, receipt):
        return receipt
    usual = str(receipt.path.parent.relative_to(MISMATCH_DIR))
    context.ledger.add_folders(task.task_id, [usual]).result()
    return context.instance_files.relocate(receipt, MISMATCH_DIR)
