"""One task: ask, wait, settle, compare, ask for what is missing, and prove."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Protocol

from dicom_quarry.archive.port import Answered, Archive, Ask, Patience, Verdict
from dicom_quarry.errors import ArchiveError, Lost, QueryFailed
from dicom_quarry.extraction.deliveries import Deliveries, Delivery
from dicom_quarry.extraction.gate import Gate
from dicom_quarry.extraction.guest import Guest, Visit
from dicom_quarry.extraction.identity import APART
from dicom_quarry.extraction.policy import End, Known, Later, ListAgain, Round, Send, next_step
from dicom_quarry.extraction.progress import Board, Moving
from dicom_quarry.extraction.room import Room
from dicom_quarry.extraction.states import TaskEvent, TaskState, advance_task
from dicom_quarry.extraction.stop import Stop, Stopped
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import Attempt, Ledger, TaskEnd
from dicom_quarry.ledger.reading import Derive
from dicom_quarry.model import Level, Listing, Receipt, Sink, Task
from dicom_quarry.outcomes import CATALOGUE

_log = logging.getLogger(__name__)


class Disk(Protocol):
    """What the job needs of the store beside its Sink."""

    def adopt(self, directory: PurePosixPath) -> Iterator[Receipt]:
        """Instances that lie whole in a folder."""

    def bring_in(self, receipt: Receipt, apart: str) -> Receipt:
        """Move an instance out of the folder where it was kept apart."""

    def sync_directories(self, paths: Iterable[PurePosixPath]) -> None:
        """Make the names of these files durable, up to the root."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What the work on a task is done with; times are in seconds."""

    archive: Archive
    gate: Gate
    guest: Guest
    sink: Sink
    disk: Disk
    derive: Derive
    deliveries: Deliveries
    ledger: Ledger
    board: Board
    stop: Stop
    room: Room
    silence: float
    settle: float


class TaskWork:
    """The work on one task, from its listing to its end."""

    def __init__(self, task: Task, tools: Tools) -> None:
        self.task = task
        self.row = tools.ledger.first_row(task.task_id)
        self._tools = tools
        self._state = TaskState.WAITING
        self._listing = Listing((), ())
        self._listings = 0
        self._rounds: list[Round] = []
        self._strikes = tools.ledger.strikes(task.task_id)
        self._sent = 0
        self._cut = False  # the window closed over the last retrieval

    def list_instances(self) -> None:
        """Ask what the archive holds; may run ahead of the moves. Raises ArchiveError and Stopped."""
        self._go(TaskEvent.TAKEN if self._state is TaskState.WAITING else TaskEvent.LIST_DOUBTED)
        listing = self._tools.gate.query(lambda: self._tools.archive.list_instances(self.task))
        known = {ref.sop_uid for ref in self._listing.instances}
        if any(ref.sop_uid not in known for ref in listing.instances):
            # A list that has grown is asked for from the start; what was fruitless before does not count.
            self._rounds.clear()
        self._take(listing)

    def run(self) -> None:
        """Work until the task has ended, is postponed, or the job stops (Stopped)."""
        with self._tools.board.moving(self.task.task_id, self.row, self._size()) as moving:
            delivery = self._tools.deliveries.open(self.task, self._adopted())
            try:
                while self._state is TaskState.DECIDING:
                    self._step(delivery, moving)
            finally:
                self._tools.deliveries.close(delivery)

    def fail(self, error: ArchiveError) -> None:
        """The archive would not list the task: it ends with that, and with what is here of it."""
        delivery = self._tools.deliveries.open(self.task, self._adopted())
        try:
            delivery.seal()
            self._conclude(End("query_failed", {"status": str(error)}), delivery)
        finally:
            self._tools.deliveries.close(delivery)
        self._tools.board.say(f"row {self.row}: {error}")

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
                self._go(TaskEvent.POSTPONED)
                self._tools.ledger.postpone(self.task.task_id, time.time() + step.seconds)
                self._tools.board.say(f"row {self.row}: the archive is busy, again in {step.seconds:.0f} s")

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
        )

    def _size(self) -> int:
        return len(self._listing.instances) or self._listing.count or 0

    def _adopted(self) -> list[Receipt]:
        """What an earlier run left on disk of this task."""
        found: dict[str, Receipt] = {}
        for folder in self._tools.ledger.folders_of(self.task.task_id):
            for receipt in self._tools.disk.adopt(PurePosixPath(folder)):
                if receipt.ref.study_uid == self.task.study.study_uid:
                    found.setdefault(receipt.ref.sop_uid, self._in_place(receipt))
        if found:
            _log.info("row %d: %d instances are here from an earlier run", self.row, len(found))
        return list(found.values())

    def _in_place(self, receipt: Receipt) -> Receipt:
        """What was kept apart for its identity comes to the others once a person has accepted it."""
        tools = self._tools
        apart = receipt.path.parts[0] == APART
        if not apart or tools.deliveries.differs(self.task, receipt):
            return receipt
        tools.ledger.add_folder(self.task.task_id, str(receipt.path.parent.relative_to(APART)))
        return tools.disk.bring_in(receipt, APART)

    # -- asking

    def _send(self, asks: Sequence[Ask], delivery: Delivery, moving: Moving) -> None:
        """One round: put the questions, and wait until nothing more is on its way."""
        self._go(TaskEvent.ASKED)
        before = len(delivery.receipts)
        answers: list[Answered] = []
        attempts: list[Attempt] = []
        for ask in asks:
            self._tools.room.wait()
            again = bool(self._rounds or answers)
            answered, attempt = self._ask(ask, delivery, moving, again=again)
            answers.append(answered)
            attempts.append(attempt)
            if _ends_round(answered, attempt.gained):
                break
        self._go(TaskEvent.ANSWERED)
        self._settle(delivery, answers, moving)
        self._go(TaskEvent.SETTLED)
        gained = len(delivery.receipts) - before
        if gained:
            self._listings = 1
        self._record(attempts, gained)
        if self._cut:
            self._postpone()
            return
        self._rounds.append(_round(asks[0].level, answers, gained))
        if asks[0].level is Level.STUDY:
            self._sent = max(self._sent, answers[0].completed or 0)
        if answers[-1].verdict is Verdict.LOST:
            self._tools.stop.check()
            self._tools.gate.close(Lost(answers[-1].comment or "a retrieval was lost half-way"))

    def _ask(self, ask: Ask, delivery: Delivery, moving: Moving, *, again: bool) -> tuple[Answered, Attempt]:
        tools = self._tools
        started, before = time.time(), len(delivery.receipts)

        def retrieve() -> Answered:
            nonlocal started
            with tools.guest.before_study(again=again) as visit:
                started = time.time()
                watch = _Watch(delivery, moving, tools.silence, tools.stop, visit)
                answered = visit.answered(tools.archive.retrieve(ask, tools.sink, watch))
                self._cut = watch.cut and answered.verdict in (Verdict.CANCELLED, Verdict.LOST)
                return answered

        answered = tools.gate.call(retrieve)
        return answered, Attempt(
            started=started,
            ended=time.time(),
            level=ask.level,
            asked=len(ask.sop_uids) or self._size(),
            gained=len(delivery.receipts) - before,
            verdict=answered.verdict,
            status=answered.status,
            comment=answered.comment,
        )

    def _record(self, attempts: Sequence[Attempt], gained: int) -> None:
        """Remember a round; what came after its last answer is counted to that."""
        if self._tools.stop.urgent or self._cut:
            # What was cancelled on this side is not held against the archive.
            attempts = [one for one in attempts if one.verdict not in (Verdict.CANCELLED, Verdict.LOST)]
        if attempts:
            late = gained - sum(one.gained for one in attempts)
            last = replace(attempts[-1], gained=attempts[-1].gained + late)
            self._tools.ledger.record_round(self.task.task_id, [*attempts[:-1], last])

    def _postpone(self) -> None:
        """The window has closed over a retrieval: the task goes on, from a new list, when it opens."""
        self._cut = False
        self._go(TaskEvent.POSTPONED)
        self._tools.ledger.postpone(self.task.task_id, time.time())
        self._tools.board.say(
            f"row {self.row}: stopped, since the window has closed; it goes on when it opens"
        )

    def _settle(self, delivery: Delivery, answers: Sequence[Answered], moving: Moving) -> None:
        """Stores may arrive after the final response: wait while they do, and a while longer.

        Not when everything listed is here, nor when the archive itself says that the rest failed.
        """
        listed = {ref.sop_uid for ref in self._listing.instances}
        failed = sum(answer.failed or 0 for answer in answers)
        done = time.monotonic()
        while not self._tools.stop.urgent:
            moving.stored = len(delivery.receipts)
            lacking = len(listed) - sum(1 for uid in listed if uid in delivery.receipts)
            if (listed and not lacking) or (failed and lacking <= failed):
                return
            quiet_for = time.monotonic() - max(done, delivery.last_arrival)
            if quiet_for >= self._tools.settle:
                return
            delivery.wait(min(0.5, self._tools.settle - quiet_for))

    # -- ending

    def _conclude(self, end: End, delivery: Delivery) -> None:
        self._go(TaskEvent.CLOSED)
        receipts = delivery.receipts
        self._tools.disk.sync_directories(receipt.path for receipt in receipts.values())
        complete = end.code == "all_listed_stored"
        expected = len(self._listing.instances) if self._listing.by_image else self._listing.count
        if not self._listings:
            expected = None
        ended = TaskEnd(
            code=end.code,
            details=end.details,
            expected=expected,
            stored=len(receipts),
            size=sum(receipt.size for receipt in receipts.values()),
            folder=_folder(self.task.study.study_uid, delivery.folders),
            proved_at=time.time() if complete else None,
            instances=self._rows(delivery),
        )
        self._tools.ledger.conclude(self.task.task_id, ended)
        self._go(TaskEvent.PROVED)
        word = CATALOGUE[end.code].word
        _log.info("row %d: %s (%s), %d of %s instances", self.row, word, end.code, len(receipts), expected)
        if not complete:
            self._tools.board.say(f"row {self.row}: {CATALOGUE[end.code].title}")

    def _rows(self, delivery: Delivery) -> list[InstanceRow]:
        listed = {ref.sop_uid: ref for ref in self._listing.instances}
        rows = [
            InstanceRow(
                receipt.ref,
                listed=uid in listed,
                transfer_syntax=receipt.transfer_syntax,
                size=receipt.size,
                digest=receipt.digest,
                path=self._told_path(receipt),
            )
            for uid, receipt in delivery.receipts.items()
        ]
        rows += [InstanceRow(ref, True) for uid, ref in listed.items() if uid not in delivery.receipts]
        return rows

    def _told_path(self, receipt: Receipt) -> str | None:
        derived = self._tools.derive(self.task.study, receipt.ref)
        return None if derived == receipt.path else str(receipt.path)

    def _go(self, event: TaskEvent) -> None:
        self._state = advance_task(self._state, event)


class _Watch:
    """Looks on while a retrieval runs: responses and arriving instances are signs of life."""

    def __init__(self, delivery: Delivery, moving: Moving, silence: float, stop: Stop, visit: Visit) -> None:
        self._delivery = delivery
        self._moving = moving
        self._silence = silence
        self._stop = stop
        self._visit = visit
        self.cut = False
        self._last = time.monotonic()

    def sign_of_life(self, _completed: int | None, _remaining: int | None) -> None:
        self._last = time.monotonic()
        self._moving.stored = len(self._delivery.receipts)

    def patience(self) -> Patience:
        self._moving.stored = len(self._delivery.receipts)
        if self._stop.urgent:
            return Patience.CANCEL
        if self.cut or self._visit.over:
            self.cut = True
            return Patience.CANCEL
        quiet_for = time.monotonic() - max(self._last, self._delivery.last_arrival)
        return Patience.ABORT if quiet_for > self._silence else Patience.WAIT


def _ends_round(answered: Answered, gained: int) -> bool:
    """True if it is no use, or no kindness, to put the other questions of the round."""
    if answered.verdict is Verdict.RETRY:
        return not gained
    return answered.verdict in (Verdict.LOST, Verdict.CONFIGURATION, Verdict.CANCELLED)


#: Of the answers in a round the first of these that occurs speaks for it.
_WORST_FIRST = (
    Verdict.CONFIGURATION,
    Verdict.LOST,
    Verdict.RETRY,
    Verdict.CANCELLED,
    Verdict.UNSUPPORTED,
    Verdict.WARNING,
    Verdict.SUCCESS,
)


def _round(level: Level, answers: Sequence[Answered], gained: int) -> Round:
    """The worst answer speaks for the round."""
    worst = min(answers, key=lambda one: _WORST_FIRST.index(one.verdict))
    return Round(level, worst.verdict, gained, worst.status, worst.comment)


def _folder(study_uid: str, folders: Iterable[PurePosixPath]) -> str:
    """The folder of a study: the one named after it, else the nearest that has all of its instances."""
    if not folders:
        return ""
    common = PurePosixPath(os.path.commonpath([str(folder) for folder in folders]))
    return str(next((one for one in (common, *common.parents) if one.name == study_uid), common))
