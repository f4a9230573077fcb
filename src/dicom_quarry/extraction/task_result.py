"""What a task ended with, as the ledger keeps it: the instances that are here, and those that are missing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import PurePosixPath

from dicom_quarry.extraction.inbound import Delivery
from dicom_quarry.extraction.retry_policy import End
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import TaskEnd
from dicom_quarry.ledger.reader import Derive
from dicom_quarry.model import Listing, Receipt, Task, Word
from dicom_quarry.outcomes import CATALOGUE


def task_end(end: End, delivery: Delivery, listing: Listing | None, derive: Derive, now: float) -> TaskEnd:
    """Draw up the end of a task; ``listing`` is None where the archive never gave one."""
    expected = None
    if listing is not None:
        expected = len(listing.instances) if listing.by_image else listing.count
    receipts = delivery.receipts.values()
    return TaskEnd(
        code=end.code,
        details=end.details,
        expected=expected,
        stored=len(receipts),
        size=sum(receipt.size for receipt in receipts),
        folder=_folder(delivery.task.study.study_uid, delivery.folders),
        proved_at=now if CATALOGUE[end.code].word is Word.COMPLETE else None,
        instances=_rows(delivery, listing, derive),
    )


def _rows(delivery: Delivery, listing: Listing | None, derive: Derive) -> list[InstanceRow]:
    listed = {ref.sop_uid: ref for ref in listing.instances} if listing else {}
    rows = [
        InstanceRow(
            receipt.ref,
            listed=uid in listed,
            transfer_syntax=receipt.transfer_syntax,
            size=receipt.size,
            digest=receipt.digest,
            path=_told_path(delivery.task, receipt, derive),
        )
        for uid, receipt in delivery.receipts.items()
    ]
    rows += [InstanceRow(ref, True) for uid, ref in listed.items() if uid not in delivery.receipts]
    return rows


def _told_path(task: Task, receipt: Receipt, derive: Derive) -> str | None:
    """A path is written down only where the template does not give it."""
    return None if derive(task.study, receipt.ref) == receipt.path else str(receipt.path)


def _folder(study_uid: str, folders: Iterable[PurePosixPath]) -> str:
    """The folder of a study: the one named after it, else the nearest that has all of its instances."""
    if not folders:
        return ""
    common = PurePosixPath(os.path.commonpath([str(folder) for folder in folders]))
    return str(next((one for one in (common, *common.parents) if one.name == study_uid), common))
