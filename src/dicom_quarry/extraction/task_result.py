"""The result of a task for the ledger: its outcome, and its instances, stored and missing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import PurePosixPath

from dicom_quarry.extraction.inbound import InboundStudy
from dicom_quarry.extraction.retry_policy import Finish
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import TaskResult
from dicom_quarry.ledger.reader import PathFunction
from dicom_quarry.model import Listing, OutcomeStatus, Receipt, Task
from dicom_quarry.outcomes import CATALOGUE


def build_task_result(
    finish: Finish, inbound: InboundStudy, listing: Listing | None, path_of: PathFunction, now: float
) -> TaskResult:
    """Build the result of a task; ``listing`` is None if the archive never returned one."""
    expected = None
    if listing is not None:
        expected = len(listing.instances) if listing.lists_instances else listing.count
    receipts = inbound.receipts.values()
    return TaskResult(
        code=finish.code,
        details=finish.details,
        expected=expected,
        stored=len(receipts),
        size=sum(receipt.size for receipt in receipts),
        folder=_study_folder(inbound.task.study.study_uid, inbound.folders),
        proved_at=now if CATALOGUE[finish.code].status is OutcomeStatus.COMPLETE else None,
        instances=_instance_rows(inbound, listing, path_of),
    )


def _instance_rows(
    inbound: InboundStudy, listing: Listing | None, path_of: PathFunction
) -> list[InstanceRow]:
    listed = {ref.sop_uid: ref for ref in listing.instances} if listing else {}
    rows = [
        InstanceRow(
            receipt.ref,
            listed=uid in listed,
            transfer_syntax=receipt.transfer_syntax,
            size=receipt.size,
            digest=receipt.digest,
            path=_path_unless_derivable(inbound.task, receipt, path_of),
        )
        for uid, receipt in inbound.receipts.items()
    ]
    rows += [InstanceRow(ref, True) for uid, ref in listed.items() if uid not in inbound.receipts]
    return rows


def _path_unless_derivable(task: Task, receipt: Receipt, path_of: PathFunction) -> str | None:
    """Return the path of an instance; None, which the ledger stores, if the template gives the same."""
    return None if path_of(task.study, receipt.ref) == receipt.path else str(receipt.path)


def _study_folder(study_uid: str, folders: Iterable[PurePosixPath]) -> str:
    """Return the folder named after the study, else the lowest one that contains all of its instances."""
    if not folders:
        return ""
    common = PurePosixPath(os.path.commonpath([str(folder) for folder in folders]))
    return str(next((one for one in (common, *common.parents) if one.name == study_uid), common))
