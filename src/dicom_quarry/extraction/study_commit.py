"""The end of a task on its way to disk, audit log and ledger."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from dicom_quarry.errors import InstanceRefused
from dicom_quarry.extraction.inbound import InboundStudy
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.refusals import Refusal
from dicom_quarry.extraction.retry_policy import Finish
from dicom_quarry.extraction.task_result import build_task_result
from dicom_quarry.extraction.task_snapshot import Round
from dicom_quarry.ledger.database import Work
from dicom_quarry.ledger.ledger import REFUSED, TaskResult
from dicom_quarry.model import Listing, OutcomeStatus, Task
from dicom_quarry.outcomes import CATALOGUE


class NotDurable(Exception):
    """The disk did not take the files of a study; ``refusal`` is the reason for missing.csv."""

    def __init__(self, why: str, refusal: Refusal | None) -> None:
        super().__init__(why)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class StudyCommit:
    """Makes the end of a task durable; ``row`` and ``archive`` (its description) are for the audit log."""

    task: Task
    row: int
    context: JobContext
    archive: str

    def write(
        self, finish: Finish, inbound: InboundStudy, listing: Listing | None, rounds: Sequence[Round]
    ) -> tuple[Finish, TaskResult, Future[None]]:
        """Make the files durable; the future is that of the outcome, with the line of the audit log.

        ``listing`` is None if the archive never returned one. Raises NotDurable and LedgerError.
        """
        self._sync(inbound)
        if CATALOGUE[finish.code].status is OutcomeStatus.EXCLUDED:
            listing = None  # an excluded study has no missing instances
        finish = self._with_refusals(finish, inbound, listing)
        result = build_task_result(finish, inbound, listing, self.context.path_of, now=time.time())
        audit = self._write_audit(result, rounds)
        concluded = self.context.ledger.conclude_task(self.task.task_id, result, self.task.claim, audit)
        return finish, result, concluded

    def _sync(self, inbound: InboundStudy) -> None:
        """Make the files of a frozen study durable; discard them all if that fails."""
        files, sink = self.context.instance_files, self.context.sink
        try:
            files.sync(inbound.unsynced)
        except InstanceRefused as error:
            lost, discarded = inbound.drop_unsynced()
            files.discard(discarded)
            sink.on_sync_failed(lost, error)
            raise NotDurable(str(error), sink.refusals.find(lost, 0.0)) from error
        inbound.unsynced.clear()

    def _with_refusals(self, finish: Finish, inbound: InboundStudy, listing: Listing | None) -> Finish:
        """Add the reasons why our own receiver refused missing instances, for missing.csv and explain."""
        missing = {ref.sop_uid for ref in listing.instances} - inbound.receipts.keys() if listing else set()
        refused = self.context.sink.refusals.reasons_of(missing) if missing else {}
        return replace(finish, details={**finish.details, REFUSED: refused}) if refused else finish

    def _write_audit(self, result: TaskResult, rounds: Sequence[Round]) -> Work[object]:
        return self.context.audit_log.write_with(
            "study",
            self.task.study,
            archive=self.archive,
            transport=" ".join(dict.fromkeys(one.transport for one in rounds if one.newly_stored)),
            row=self.row,
            outcome=CATALOGUE[result.code].status,
            code=result.code,
            instances=result.stored,
            bytes=result.size,
        )
