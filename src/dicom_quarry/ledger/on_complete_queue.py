"""The queue of complete studies for the user's on-complete command; each operation is one transaction.

An item is marked as done after its command has ended. After a crash in between, the command runs again.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)

from dicom_quarry.ledger.claim_statements import claim_all
from dicom_quarry.ledger.claims import Claims
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.records import study_of
from dicom_quarry.ledger.schema import (
    claims,
    on_complete_items,
    tasks,
)
from dicom_quarry.ledger.statements import ROWS_OF_TASK
from dicom_quarry.model import OnCompleteState, OutcomeStatus, Study
from dicom_quarry.outcomes import codes_of

#: The kind of the claims on studies for which a command runs.
_CLAIM = "command"

#: Complete and not released. A proof alone does not suffice: the study may be excluded since.
_IS_ELIGIBLE = and_(
    tasks.c.proved_at.is_not(None),
    tasks.c.code.in_([literal(code) for code in sorted(codes_of({OutcomeStatus.COMPLETE}))]),
    tasks.c.released_at.is_(None),
)

_due = and_(
    on_complete_items.c.state == OnCompleteState.WAITING,
    _IS_ELIGIBLE,
    on_complete_items.c.not_before.is_(None) | (on_complete_items.c.not_before <= bindparam("now")),
)
_in_order = on_complete_items.c.not_before.nulls_first(), on_complete_items.c.task_id
_items = select(
    on_complete_items.c.task_id, on_complete_items.c.proof, on_complete_items.c.tries, *tasks.c
).join(tasks, tasks.c.id == on_complete_items.c.task_id)
_NEXT_DUE = CompiledStatement(_items.where(_due).order_by(*_in_order).limit(bindparam("limit")))
_ITEM = CompiledStatement(_items.where(on_complete_items.c.task_id == bindparam("this")))

_is_claimed = exists().where(claims.c.kind == _CLAIM, claims.c.item == on_complete_items.c.task_id)
_CLAIM_NEXT = claim_all(
    _CLAIM,
    select(on_complete_items.c.task_id)
    .join(tasks, tasks.c.id == on_complete_items.c.task_id)
    .where(_due, ~_is_claimed)
    .order_by(*_in_order)
    .limit(1)
    .with_for_update(skip_locked=True, of=on_complete_items),
    "task_id",
)

_still_eligible = exists().where(tasks.c.id == on_complete_items.c.task_id, _IS_ELIGIBLE)
_WAITING_COUNT = CompiledStatement(
    select(func.count().label("number"))
    .select_from(on_complete_items)
    .where(on_complete_items.c.state == OnCompleteState.WAITING, _still_eligible)
)

#: The item still waits, for the same proof.
_update_item = update(on_complete_items).where(
    on_complete_items.c.task_id == bindparam("this"),
    on_complete_items.c.proof == bindparam("of"),
    on_complete_items.c.state == OnCompleteState.WAITING,
)
_MARK_DONE = CompiledStatement(_update_item.values(state=OnCompleteState.DONE), "ended", "error")
_MARK_FAILED = CompiledStatement(_update_item, "state", "tries", "not_before", "ended", "error")
_MARK_RELEASED = CompiledStatement(
    update(tasks).where(tasks.c.id == bindparam("this"), _IS_ELIGIBLE), "released_at"
)


def _enqueue_statements(which: ColumnElement[bool]) -> tuple[CompiledStatement, CompiledStatement]:
    """Make the statements that queue complete studies, except those with an item for the same proof."""
    same = exists().where(
        on_complete_items.c.task_id == tasks.c.id, on_complete_items.c.proof == tasks.c.proved_at
    )
    fresh = and_(which, ~same)
    earlier = delete(on_complete_items).where(
        on_complete_items.c.task_id.in_(select(tasks.c.id).where(fresh))
    )
    values = select(
        tasks.c.id, tasks.c.proved_at, literal(OnCompleteState.WAITING, Text), literal(0), literal("")
    ).where(fresh)
    names = ["task_id", "proof", "state", "tries", "error"]
    return CompiledStatement(earlier), CompiledStatement(insert(on_complete_items).from_select(names, values))


_ENQUEUE_ALL = _enqueue_statements(_IS_ELIGIBLE)
_ENQUEUE_ONE = _enqueue_statements(and_(tasks.c.id == bindparam("this"), _IS_ELIGIBLE))


@dataclass(frozen=True, slots=True)
class OnCompleteItem:
    """A complete study that waits for the command; ``tries`` have failed so far.

    ``claim`` is the number of this worker's claim, 0 without one.
    ``folder`` is relative to the output folder; ``rows`` request the study.
    """

    task_id: int
    proof: float
    tries: int
    study: Study
    archive: str
    rows: tuple[int, ...]
    code: str
    folder: str
    instances: int
    size: int
    claim: int = 0

    @property
    def first_row(self) -> int:
        """The first row that requests the study; 0 if no row of a newer table does."""
        return self.rows[0] if self.rows else 0


class OnCompleteQueue:
    """The on-complete queue of a job; workers that share it take items with their ``claims``."""

    def __init__(self, database: Database, claims: Claims | None = None) -> None:
        self._database = database
        self._claims = claims

    def start_run(self, *, enabled: bool) -> int:
        """Queue every complete study whose command has not ended well, at the start of a run.

        Returns the number of items that wait. If the command is not ``enabled``, the queue is emptied.
        """

        def work(connection: Connection) -> None:
            if not enabled:
                connection.execute(
                    delete(on_complete_items).where(on_complete_items.c.state != OnCompleteState.DONE)
                )
                return
            connection.execute(
                delete(on_complete_items).where(
                    on_complete_items.c.state != OnCompleteState.DONE, ~_still_eligible
                )
            )
            for statement in _ENQUEUE_ALL:
                statement.run(connection)
            failed = update(on_complete_items).where(on_complete_items.c.state == OnCompleteState.FAILED)
            connection.execute(failed.values(state=OnCompleteState.WAITING, tries=0, not_before=None))

        self._database.write(work)
        return self.count_waiting()

    def enqueue(self, task_id: int) -> Future[None]:
        """Queue a study that has become complete."""

        def work(connection: Connection) -> None:
            for statement in _ENQUEUE_ONE:
                statement.run(connection, this=task_id)

        return self._database.submit(work)

    def next_due(self, now: float, excluding: Collection[int]) -> OnCompleteItem | None:
        """Return the next item that is due, None if there is none; ``excluding`` are tasks in work."""
        found = self._database.fetch_all(_NEXT_DUE, now=now, limit=len(excluding) + 1)
        row = next((one for one in found if one.task_id not in excluding), None)
        return None if row is None else self._read(row)

    def claim_next(self, now: float) -> OnCompleteItem | None:
        """Claim the next item that is due, None if there is none."""
        assert self._claims is not None
        item, number = self._claims.take_item(_CLAIM, _CLAIM_NEXT, now=now)
        if item is None:
            return None
        return replace(self._read(self._database.fetch_all(_ITEM, this=item)[0]), claim=number)

    def give_back(self, item: OnCompleteItem) -> None:
        """Remove the claim on an item, if this worker still has it."""
        assert self._claims is not None
        self._claims.give_back_items(_CLAIM, [item.task_id])

    def _read(self, row: Any) -> OnCompleteItem:
        rows = self._database.fetch_all(ROWS_OF_TASK, task_id=row.task_id)
        return _read_item(row, tuple(each.row for each in rows))

    def _end_claim(self, connection: Connection, item: OnCompleteItem) -> None:
        if self._claims is not None:
            self._claims.end(connection, _CLAIM, item.task_id, item.claim)

    def count_waiting(self) -> int:
        """Count the items that wait, due or not."""
        number: int = self._database.fetch_all(_WAITING_COUNT)[0].number
        return number

    def mark_done(self, item: OnCompleteItem, now: float, *, released: bool) -> None:
        """Mark an item as done; ``released`` means that the command has moved the files away.

        Raises ClaimLost if it is another worker's, as ``mark_failed`` does.
        """

        def work(connection: Connection) -> None:
            self._end_claim(connection, item)
            _MARK_DONE.run(connection, this=item.task_id, of=item.proof, ended=now, error="")
            if released:
                _MARK_RELEASED.run(connection, this=item.task_id, released_at=now)

        self._database.write(work)

    def mark_failed(self, item: OnCompleteItem, error: str, now: float, retry_at: float | None) -> None:
        """Record a failure; the next try is at the POSIX time ``retry_at``, with None in the next run."""
        state = OnCompleteState.FAILED if retry_at is None else OnCompleteState.WAITING
        values = {
            "state": state,
            "tries": item.tries + 1,
            "not_before": retry_at,
            "ended": now,
            "error": error,
        }

        def work(connection: Connection) -> None:
            self._end_claim(connection, item)
            _MARK_FAILED.run(connection, this=item.task_id, of=item.proof, **values)

        self._database.write(work)


def _read_item(row: Any, rows: tuple[int, ...]) -> OnCompleteItem:
    return OnCompleteItem(
        task_id=row.task_id,
        proof=row.proof,
        tries=row.tries,
        study=study_of(row),
        archive=row.archive,
        rows=rows,
        code=row.code,
        folder=row.folder,
        instances=row.stored,
        size=row.size,
    )
