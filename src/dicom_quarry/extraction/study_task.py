"""One task: ask, wait, settle, compare, ask for what is missing, and prove."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import PurePosixPath

from dicom_quarry.archive.base import Ask, Verdict
from dicom_quarry.errors import ArchiveError, Lost, QueryFailed, Rejected, told
from dicom_quarry.extraction.identity_check import APART
from dicom_quarry.extraction.inbound import Delivery
from dicom_quarry.extraction.job_context import Tools
from dicom_quarry.extraction.logged_queries import Questions
from dicom_quarry.extraction.retrieval_round import Asked, Asking
from dicom_quarry.extraction.retry_policy import (
    End,
    Known,
    Later,
    ListAgain,
    Round,
    Send,
    excluded,
    next_step,
)
from dicom_quarry.extraction.state_machine import TaskEvent, TaskState, advance_task
from dicom_quarry.extraction.task_result import task_end
from dicom_quarry.jobs.progress import Moving
from dicom_quarry.ledger.ledger import TaskEnd
from dicom_quarry.ledger.query_log import Postponement, note_postponement
from dicom_quarry.model import Level, Listing, Receipt, Road, Task, Word
from dicom_quarry.outcomes import CATALOGUE
from dicom_quarry.system.shutdown import Stopped

_log = logging.getLogger(__name__)


class TaskWork:
    """The work on one task, from its listing to its end."""

    def __init__(self, task: Task, tools: Tools) -> None:
        self.task = task
        self.row = tools.ledger.first_row(task.task_id)
        self._tools = tools
        self._source = tools.sources[task.archive]
        self._state = TaskState.WAITING
        self._listing = Listing((), ())
        self._listings = 0
        self._rounds: list[Round] = []
        self._strikes = {Road(road): count for road, count in tools.ledger.strikes(task.task_id).items()}
        self._sent = 0
        self._noted: set[PurePosixPath] = set()
        self._noting: Future[None] = Future()
        self._ending: tuple[str, TaskEnd, Future[None]] | None = None

    def list_instances(self) -> None:
        """Ask what the archive holds; may run ahead of the moves. Raises ArchiveError and Stopped."""
        self._go(TaskEvent.TAKEN if self._state is TaskState.WAITING else TaskEvent.LIST_DOUBTED)
        listing = Questions(self._tools.ledger, task_id=self.task.task_id).ask(
            self._source,
            lambda: self._source.archive.list_instances(self.task),
            lambda listing: (len(listing.instances) if listing.by_image else listing.count or 0, listing.why),
            purpose="listing",
            level=Level.IMAGE,
        )
        known = {ref.sop_uid for ref in self._listing.instances}
        if any(ref.sop_uid not in known for ref in listing.instances):
            # A list that has grown is asked for from the start; what was fruitless before does not count.
            self._rounds.clear()
        self._take(listing)
        self._note_folders()

    def run(self) -> None:
        """Work until the task has ended, is postponed, or the job stops (Stopped).

        The end is on its way to the ledger then: ``finish`` waits for it, so that the next task need not.
        """
        with self._tools.board.moving(self.task.task_id, self.row, self._size()) as moving:
            self._noting.result()
            delivery = self._tools.deliveries.open(self.task, self._adopted(), self._noted)
            try:
                while self._state is TaskState.DECIDING:
                    self._step(delivery, moving)
            finally:
                self._tools.deliveries.close(delivery)

    def _note_folders(self) -> None:
        """Enter where the listed instances will be now: not while their sender waits for an answer."""
        derive, study = self._tools.derive, self.task.study
        self._noted = {derive(study, ref).parent for ref in self._listing.instances}
        paths = [str(folder) for folder in self._noted]
        self._noting = self._tools.ledger.add_folders(self.task.task_id, paths)

    def fail(self, error: ArchiveError) -> None:
        """The archive would not list the task: it ends with that, and with what is here of it."""
        self._end_unasked(lambda _: End("query_failed", {"status": str(error)}))
        self._tools.board.say(f"row {self.row}: {told(error)}")

    def exclude(self, keys: str) -> None:
        """The study must not be taken: it ends with that, nothing asked, and with what is here of it."""
        self._go(TaskEvent.TAKEN)
        self._end_unasked(lambda stored: excluded(keys, stored))

    def _end_unasked(self, end: Callable[[int], End]) -> None:
        delivery = self._tools.deliveries.open(self.task, self._adopted())
        try:
            delivery.seal()
            self._conclude(end(len(delivery.receipts)), delivery)
        finally:
            self._tools.deliveries.close(delivery)
        self.finish()

    def _step(self, delivery: Delivery, moving: Moving) -> None:
        seen = delivery.taken
        step = next_step(self._known(delivery), chance=random.random())
        if isinstance(step, End):
            # What arrives while this is decided is decided about, too.
            if delivery.seal(seen):
                self._conclude(step, delivery)
            return
        if self._tools.stop.urgent:
            raise Stopped
        match step:
            case Send():
                self._send(step.asks, delivery, moving)
            case ListAgain():
                self._list_again()
            case Later():
                self._postpone(step.seconds, f"{step.why}, again in {step.seconds:.0f} s")

    def _list_again(self) -> None:
        """A list that the archive will not give again is not to be trusted as it stands."""
        try:
            self.list_instances()
        except (QueryFailed, Lost) as error:
            self._take(replace(self._listing, complete=False, why=str(error)))

    def _take(self, listing: Listing) -> None:
        self._listing = listing
        self._listings += 1
        self._go(TaskEvent.LISTED)

    def _known(self, delivery: Delivery) -> Known:
        return Known(
            task=self.task,
            listing=self._listing,
            stored=delivery.receipts,
            rounds=self._rounds,
            listings=self._listings,
            strikes=self._strikes,
            sent=self._sent,
            conflicts=delivery.conflicts,
            differs=delivery.differs,
            excluded=delivery.excluded,
            nearline_patience=self._source.profile.nearline_patience,
            roads=self._source.roads.open,
        )

    def _size(self) -> int:
        return len(self._listing.instances) or self._listing.count or 0

    def _adopted(self) -> list[Receipt]:
        """What an earlier run left on disk of this task."""
        found: list[Receipt] = []
        for folder in self._tools.ledger.folders_of(self.task.task_id):
            for receipt in self._tools.disk.adopt(PurePosixPath(folder)):
                if receipt.ref.study_uid == self.task.study.study_uid:
                    found.append(self._in_place(receipt))
        if found:
            _log.info("row %d: %d instances are here from an earlier run", self.row, len(found))
        return found

    def _in_place(self, receipt: Receipt) -> Receipt:
        """What was kept apart for its identity comes to the others once a person has accepted it."""
        tools = self._tools
        apart = receipt.path.parts[0] == APART
        if not apart or tools.deliveries.differs(self.task, receipt):
            return receipt
        usual = str(receipt.path.parent.relative_to(APART))
        tools.ledger.add_folders(self.task.task_id, [usual]).result()
        return tools.disk.bring_in(receipt, APART)

    # -- asking

    def _send(self, asks: Sequence[Ask], delivery: Delivery, moving: Moving) -> None:
        """One round: put the questions, and wait until nothing more is on its way."""
        asking = Asking(self._tools, self._source, delivery, moving)
        self._go(TaskEvent.ASKED)
        asking.ask(asks, self._listing, again=bool(self._rounds))
        self._go(TaskEvent.ANSWERED)
        asked = asking.settle(asks[0], self._listing)
        self._go(TaskEvent.SETTLED)
        if asked.gained:
            self._listings = 1
        if asked.attempts:
            self._tools.ledger.record_round(self.task.task_id, asked.attempts)
        if asked.cut:
            self._postpone(0.0, "stopped, since the window has closed; it goes on when it opens")
            return
        self._learn(asked, excluded=bool(delivery.excluded))

    def _learn(self, asked: Asked, *, excluded: bool) -> None:
        self._rounds.append(asked.round)
        last = asked.answers[-1]
        if asked.level is Level.STUDY:
            # What came twice was sent twice, and makes no longer list.
            self._sent = max(self._sent, (last.completed or 0) - asked.repeated)
        if last.verdict is Verdict.LOST:
            self._tools.stop.check()
            self._source.gate.close(Lost(last.comment or "a retrieval was lost half-way"))
        if last.retry_after is not None:
            self._source.gate.close(Rejected(last.comment, permanent=False, retry_after=last.retry_after))
        if not self._tools.stop.urgent and not excluded:
            self._source.roads.judge(self.task.task_id, asked.road, last, asked.gained)

    def _postpone(self, seconds: float, why: str) -> None:
        self._go(TaskEvent.POSTPONED)
        now, ledger = time.time(), self._tools.ledger
        note_postponement(ledger.database, self.task.task_id, Postponement(now, now + seconds, why))
        ledger.postpone(self.task.task_id, now + seconds)
        self._tools.board.say(f"row {self.row}: {why}")

    # -- ending

    def _conclude(self, end: End, delivery: Delivery) -> None:
        self._go(TaskEvent.CLOSED)
        self._tools.disk.sync_directories(receipt.path for receipt in delivery.receipts.values())
        entry = CATALOGUE[end.code]
        # Of what must not be taken nothing is missing.
        listing = self._listing if self._listings and entry.word is not Word.EXCLUDED else None
        proof = task_end(end, delivery, listing, self._tools.derive, now=time.time())
        self._tools.audit.write(
            "study",
            self.task.study,
            archive=self._source.profile.spoken,
            road=" ".join(dict.fromkeys(one.road for one in self._rounds if one.gained)),
            row=self.row,
            outcome=entry.word,
            code=end.code,
            instances=proof.stored,
            bytes=proof.size,
        )
        self._ending = end.code, proof, self._tools.ledger.conclude(self.task.task_id, proof)

    def finish(self) -> None:
        """Tell how the task ended, once that is durable; nothing if it has not. Raises LedgerError."""
        if self._ending is None:
            return
        code, proof, concluded = self._ending
        concluded.result()
        self._go(TaskEvent.PROVED)
        entry = CATALOGUE[code]
        counts = f"{proof.stored} of {proof.expected} instances"
        _log.info("row %d: %s (%s), %s", self.row, entry.word, code, counts)
        if entry.word is Word.COMPLETE:
            self._tools.completed(self.task.task_id)
        else:
            self._tools.board.say(f"row {self.row}: {entry.title}")

    def _go(self, event: TaskEvent) -> None:
        self._state = advance_task(self._state, event)
