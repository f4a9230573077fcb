"""The work on one study: list its instances, retrieve until nothing is missing, and record the outcome."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import PurePosixPath

from dicom_quarry.archive.base import RetrieveRequest, Verdict
from dicom_quarry.errors import (
    ArchiveError,
    ConnectionLost,
    OperatorActionRequired,
    QueryFailed,
    Rejected,
    redact,
)
from dicom_quarry.extraction.archive_client import QueryLog
from dicom_quarry.extraction.earlier_receipts import load_receipts
from dicom_quarry.extraction.inbound import InboundStudy
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.retrieval_round import RetrievalRound, RoundResult
from dicom_quarry.extraction.retry_policy import (
    Finish,
    Postpone,
    Relist,
    Retrieve,
    finish_excluded,
    next_step,
)
from dicom_quarry.extraction.state_machine import TaskEvent, advance_task
from dicom_quarry.extraction.study_commit import NotDurable, StudyCommit
from dicom_quarry.extraction.task_snapshot import Round, TaskSnapshot
from dicom_quarry.extraction.unsynced_files import synced_paths
from dicom_quarry.extraction.worker import Worker
from dicom_quarry.jobs.internal_errors import is_internal
from dicom_quarry.jobs.progress import ActiveStudy
from dicom_quarry.ledger.ledger import TaskResult
from dicom_quarry.ledger.merged_answers import note_merging
from dicom_quarry.ledger.query_log import Postponement, log_postponement
from dicom_quarry.model import Level, Listing, OutcomeStatus, Task, TaskState, Transport
from dicom_quarry.outcomes import CATALOGUE, INTERNAL_ERROR
from dicom_quarry.plurals import format_count
from dicom_quarry.system.backoff import backoff
from dicom_quarry.system.error_trace import describe_place
from dicom_quarry.system.shutdown import Stopped

_log = logging.getLogger(__name__)


class DoubtfulAnswer(Exception):
    """The archive may have left out studies when it found this one."""


class StudyTask:
    """The work on one task, from its listing to its outcome."""

    def __init__(self, task: Task, context: JobContext, worker: Worker) -> None:
        self.task = task
        history = context.ledger.task_history(task.task_id)
        self.row = history.first_row
        self._context = context
        self._worker = worker
        self._client = worker.clients[task.archive]
        self._study_commit = StudyCommit(task, self.row, context, self._client.profile.description)
        self._state = TaskState.WAITING
        self._listing = Listing((), ())
        self._listing_count = 0
        self._rounds: list[Round] = []
        self._failures = {Transport(name): count for name, count in history.fruitless_rounds.items()}
        self._sent_count = 0
        self._recorded_folders: set[PurePosixPath] = set()
        self._folders_recorded: Future[None] = Future()
        self._began = time.time()
        #: The end of the task on its way to disk and ledger, and the study that it is of.
        self._ending: tuple[InboundStudy, Future[tuple[Finish, TaskResult]]] | None = None

    @property
    def is_concluded(self) -> bool:
        """True once the outcome is durable."""
        return self._state is TaskState.CONCLUDED

    def list_instances(self) -> None:
        """List the instances of the task; may run ahead of retrievals.

        Raises ArchiveError and Stopped; DoubtfulAnswer if its rows are queried again before.
        """
        is_first = self._state is TaskState.WAITING
        self._transition(TaskEvent.STARTED if is_first else TaskEvent.RELIST_REQUESTED)
        log = QueryLog(self._context.ledger, task_id=self.task.task_id)
        listing = self._client.list_instances(self.task, log=log)
        if is_first and listing.is_doubtful:
            self._require_row()
        known = {ref.sop_uid for ref in self._listing.instances}
        if any(ref.sop_uid not in known for ref in listing.instances):
            # A list that has grown is requested from the start: earlier fruitless rounds no longer count.
            self._rounds.clear()
        self._set_listing(listing)
        self._record_folders()

    def _require_row(self) -> None:
        """Raise DoubtfulAnswer unless the rows of the study were queried without counts."""
        ledger, task = self._context.ledger, self.task
        if note_merging(ledger.database, task.archive):
            _log.info("row %d: the archive merges answers with counts; all rows are queried again", self.row)
        # A row that found it with counts has lost it.
        if not ledger.first_row(task.task_id):
            raise DoubtfulAnswer

    def run(self) -> None:
        """Work until the task has ended, is postponed, or the job stops (Stopped).

        Its files and its result are then being made durable; ``finish`` waits for that. The next task can
        start meanwhile.
        """
        with self._context.queries.status_board.track_study(
            self.task, self.row, self._expected_count()
        ) as active_study:
            self._folders_recorded.result()
            inbound = self._open_inbound()
            try:
                while self._state is TaskState.DECIDING:
                    inbound.listed_uids = frozenset(ref.sop_uid for ref in self._listing.instances)
                    self._run_step(inbound, active_study)
            finally:
                if self._ending is None:
                    self._close_inbound(inbound)

    def _open_inbound(self) -> InboundStudy:
        """Expect the instances of the task, in addition to those of an earlier run.

        Another task with the same study has its turn before. Raises Stopped.
        """
        uid, shutdown = self.task.study.study_uid, self._context.queries.shutdown
        self._worker.turns.take(uid, self, shutdown.raise_if_cancelled)
        try:
            return self._make_inbound()
        except BaseException:
            self._worker.turns.end(uid, self)
            raise

    def _close_inbound(self, inbound: InboundStudy) -> None:
        self._context.inbound.close(inbound)
        self._worker.turns.end(self.task.study.study_uid, self)

    def _make_inbound(self) -> InboundStudy:
        receipts = load_receipts(self._context, self.task, self.row, self._listing)
        synced = synced_paths(self._context, self.task.study) if receipts else ()
        return self._context.inbound.open(self.task, receipts, self._recorded_folders, synced)

    def _record_folders(self) -> None:
        """Record the folders of the listed instances now, not while a sender waits for its response."""
        path_of, study = self._context.path_of, self.task.study
        self._recorded_folders = {path_of(study, ref).parent for ref in self._listing.instances}
        paths = [str(folder) for folder in self._recorded_folders]
        self._folders_recorded = self._context.ledger.add_folders(self.task.task_id, paths)

    def fail(self, error: ArchiveError) -> None:
        """End the task because the archive did not list it; stored instances are kept."""
        self._finish_without_retrieval(lambda _: Finish("query_failed", {"status": str(error)}))
        self._context.queries.status_board.report(f"row {self.row}: {redact(error)}")

    def end_with_internal_error(self, error: BaseException) -> None:
        """End the task for an error that was not foreseen; stored instances are kept. Raises LedgerError."""
        if self._ending is not None and self._ending[1].exception() is None:
            return  # its outcome was already recorded
        self._ending, self._state = None, TaskState.LISTING
        finish = Finish(INTERNAL_ERROR, {"place": describe_place(error)})
        try:
            self._finish_without_retrieval(lambda _: finish)
        except Exception as second:
            if not is_internal(second):
                raise
            # The defect is in what has arrived: leave that out.
            result = TaskResult(finish.code, finish.details, None, 0, 0, "", None, ())
            self._ending = None
            self._context.ledger.conclude_task(self.task.task_id, result, self.task.claim).result()

    def exclude(self, keys: str) -> None:
        """End the task without a query: its study is on an exclusion list, by these keys."""
        self._transition(TaskEvent.STARTED)
        self._finish_without_retrieval(lambda stored: finish_excluded(keys, stored))

    def _finish_without_retrieval(self, make_finish: Callable[[int], Finish]) -> None:
        inbound = self._open_inbound()
        inbound.freeze()
        self._conclude(make_finish(len(inbound.receipts)), inbound)
        try:
            self.finish()
        except NotDurable:
            self._conclude(make_finish(len(inbound.receipts)), inbound)
            self.finish()

    def _run_step(self, inbound: InboundStudy, active_study: ActiveStudy) -> None:
        seen = inbound.received
        step = next_step(self._snapshot(inbound), jitter=random.random())
        if isinstance(step, Finish):
            # An instance that arrives in between needs a new decision.
            if inbound.freeze(seen):
                self._conclude(step, inbound)
            return
        if self._context.queries.shutdown.cancel_requested:
            raise Stopped
        match step:
            case Retrieve():
                self._retrieve(step.requests, inbound, active_study)
            case Relist():
                self._relist()
            case Postpone():
                self._postpone(step.seconds, f"{step.why}; next try in {step.seconds:.0f} s")

    def _relist(self) -> None:
        """List the instances again; a list that the archive does not return again counts as incomplete."""
        try:
            self.list_instances()
        except (QueryFailed, ConnectionLost) as error:
            self._set_listing(replace(self._listing, complete=False, incomplete_reason=str(error)))

    def _set_listing(self, listing: Listing) -> None:
        self._listing = listing
        self._listing_count += 1
        self._transition(TaskEvent.LIST_RECEIVED)

    def _snapshot(self, inbound: InboundStudy) -> TaskSnapshot:
        return TaskSnapshot(
            task=self.task,
            listing=self._listing,
            stored=inbound.receipts,
            rounds=self._rounds,
            listing_count=self._listing_count,
            failures=self._failures,
            sent_count=self._sent_count,
            conflicts=inbound.conflicts,
            mismatch=inbound.mismatch,
            exclusion=inbound.exclusion,
            names_other_study=inbound.names_other_study
            and not self._context.queries.settings.accept_mismatch,
            nearline_timeout=self._client.profile.nearline_patience,
            transports=self._client.transport_selector.require_available(),
            proven=self._client.transport_selector.proven,
        )

    def _expected_count(self) -> int:
        return len(self._listing.instances) or self._listing.count or 0

    # -- retrieving

    def _retrieve(
        self, requests: Sequence[RetrieveRequest], inbound: InboundStudy, active_study: ActiveStudy
    ) -> None:
        """Run one retrieval round, and record its result."""
        retrieval_round = RetrievalRound(self._context, self._client, inbound, active_study)
        self._transition(TaskEvent.RETRIEVAL_REQUESTED)
        retrieval_round.retrieve(requests, self._listing, is_repeat=bool(self._rounds))
        self._transition(TaskEvent.RETRIEVAL_COMPLETED)
        result = retrieval_round.wait_for_late_stores(requests[0], self._listing)
        self._transition(TaskEvent.LATE_STORES_SETTLED)
        if result.newly_stored:
            self._listing_count = 1
        # A round that follows a fruitless one counts as one try with it.
        continues = bool(self._rounds) and not self._rounds[-1].newly_stored
        try:
            if not result.interrupted_by:
                self._take_into_account(result, inbound)
        except OperatorActionRequired:
            continues = True  # no try of the study, which is not to blame
            raise
        finally:
            if result.attempts:
                self._context.ledger.record_round(
                    self.task.task_id, result.attempts, self.task.claim, continues=continues
                )
        if result.interrupted_by:
            self._postpone(0.0, f"stopped because {result.interrupted_by}")

    def _take_into_account(self, result: RoundResult, inbound: InboundStudy) -> None:
        """Add a round to those before; raise OperatorActionRequired if the archive sends nothing any more."""
        self._rounds.append(result.round)
        last = result.results[-1]
        if result.level is Level.STUDY:
            # A repeated instance does not make the study larger.
            self._sent_count = max(self._sent_count, (last.completed or 0) - result.repeated)
        refusal = result.refusal
        if last.verdict is Verdict.LOST and refusal is None:
            self._context.queries.shutdown.raise_if_requested()
            self._client.circuit_breaker.trip(
                ConnectionLost(last.comment or "the connection was lost during a retrieval")
            )
        if last.retry_after is not None:
            self._client.circuit_breaker.trip(
                Rejected(last.comment, permanent=False, retry_after=last.retry_after)
            )
        if not self._context.queries.shutdown.cancel_requested and not inbound.exclusion:
            step = next_step(self._snapshot(inbound), jitter=0.5)
            self._client.transport_selector.record_result(
                self.task.task_id,
                result.transport,
                last,
                result.newly_stored,
                narrows=isinstance(step, Retrieve) and step.requests[0].transport is result.transport,
                refusal=(refusal.reason if refusal.is_of_sender else "") if refusal else None,
            )

    def _postpone(self, seconds: float, why: str) -> None:
        self._transition(TaskEvent.POSTPONED)
        now, ledger = time.time(), self._context.ledger
        log_postponement(ledger.database, self.task.task_id, Postponement(now, now + seconds, why))
        ledger.postpone_task(self.task.task_id, now + seconds, self.task.claim)
        self._context.queries.status_board.report(f"row {self.row}: {why}")

    # -- ending

    def _conclude(self, finish: Finish, inbound: InboundStudy) -> None:
        """Begin to make a frozen study and its outcome durable; ``finish`` reports the result."""
        self._transition(TaskEvent.OUTCOME_DECIDED)
        self._ending = inbound, self._worker.ending.submit(self._commit, finish, inbound)

    def _commit(self, finish: Finish, inbound: InboundStudy) -> tuple[Finish, TaskResult]:
        """Make the files durable, then the outcome, with or after the line of the audit log.

        Instances that arrive meanwhile are recorded behind the outcome. Raises NotDurable and LedgerError.
        """
        try:
            listing = self._listing if self._listing_count else None
            finish, result, concluded = self._study_commit.write(finish, inbound, listing, self._rounds)
        finally:
            self._close_inbound(inbound)
        concluded.result()
        if CATALOGUE[finish.code].status is OutcomeStatus.COMPLETE:
            # Not by the thread that retrieves: it may wait for the space that an on-complete command makes.
            self._context.on_task_complete(self.task.task_id)
        return finish, result

    def finish(self) -> None:
        """Report the outcome once it is durable; do nothing if the task has not ended. Raises LedgerError.

        If the files could not be made durable, the task waits for another try, or ends without them.
        """
        if self._ending is None:
            return
        inbound, ending = self._ending
        try:
            finish, result = ending.result()
        except NotDurable as error:
            self._ending = None
            self._after_failed_sync(error, inbound)
            return
        self._ending = None
        self._transition(TaskEvent.OUTCOME_COMMITTED)
        definition = CATALOGUE[finish.code]
        counts = f"{result.stored:,} of {format_count(result.expected or 0, 'instance')}"
        _log.info("row %d: %s (%s), %s", self.row, definition.status, finish.code, counts)
        if definition.status is not OutcomeStatus.COMPLETE:
            self._context.queries.status_board.report(f"row {self.row}: {definition.title}")

    def _after_failed_sync(self, error: NotDurable, inbound: InboundStudy) -> None:
        """Go on without the files that the disk did not take: a try that brought nothing."""
        self._transition(TaskEvent.SYNC_FAILED)
        self._context.ledger.forget_stored(self.task.task_id, self._began, str(error), self.task.claim)
        if not self._listing_count:
            raise error
        self._rounds = [replace(one, newly_stored=0) for one in self._rounds]
        self._rounds += [replace(last, refusal=error.refusal) for last in self._rounds[-1:]]
        step = next_step(self._snapshot(inbound), jitter=random.random())
        if isinstance(step, Finish):
            self._conclude(step, inbound)
            self.finish()
        else:
            seconds = step.seconds if isinstance(step, Postpone) else backoff(1, random.random())
            self._postpone(seconds, f"the study could not be stored: {error}; next try in {seconds:.0f} s")

    def _transition(self, event: TaskEvent) -> None:
        self._state = advance_task(self._state, event)
