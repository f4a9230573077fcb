"""Which complete studies a command of the user's still has to be run for; each verb one transaction.

A hand-over is noted as done after its command has ended: a crash in between runs it again.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
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

from dicom_quarry.ledger.compiled_statements import Prepared
from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.ledger import study_of
from dicom_quarry.ledger.schema import DONE, FAILED, TO_DO, handovers, tasks
from dicom_quarry.ledger.statements import ROWS_OF_TASK
from dicom_quarry.model import Study, Word
from dicom_quarry.outcomes import codes_of

#: Complete, and still here; a proof alone may be that of a study that must not be taken any more.
_AT_HAND = and_(
    tasks.c.proved_at.is_not(None),
    tasks.c.code.in_([literal(code) for code in sorted(codes_of({Word.COMPLETE}))]),
    tasks.c.released_at.is_(None),
)

_DUE = Prepared(
    select(handovers.c.task_id, handovers.c.proof, handovers.c.tries, *tasks.c)
    .join(tasks, tasks.c.id == handovers.c.task_id)
    .where(
        handovers.c.state == TO_DO,
        _AT_HAND,
        handovers.c.not_before.is_(None) | (handovers.c.not_before <= bindparam("now")),
    )
    .order_by(handovers.c.not_before.nulls_first(), handovers.c.task_id)
    .limit(bindparam("limit"))
)

_still_here = exists().where(tasks.c.id == handovers.c.task_id, _AT_HAND)
_WAITING = Prepared(
    select(func.count().label("number")).select_from(handovers).where(handovers.c.state == TO_DO, _still_here)
)

#: Still of this proof, and not released by the command itself.
_this = update(handovers).where(
    handovers.c.task_id == bindparam("this"),
    handovers.c.proof == bindparam("of"),
    handovers.c.state == TO_DO,
)
_END = Prepared(_this.values(state=DONE), "ended", "said")
_FAIL = Prepared(_this, "state", "tries", "not_before", "ended", "said")
_RELEASE = Prepared(update(tasks).where(tasks.c.id == bindparam("this"), _AT_HAND), "released_at")


def _entering(which: ColumnElement[bool]) -> tuple[Prepared, Prepared]:
    """Let complete studies wait for their command, unless that was run for the same proof."""
    same = exists().where(handovers.c.task_id == tasks.c.id, handovers.c.proof == tasks.c.proved_at)
    fresh = and_(which, ~same)
    earlier = delete(handovers).where(handovers.c.task_id.in_(select(tasks.c.id).where(fresh)))
    values = select(tasks.c.id, tasks.c.proved_at, literal(TO_DO), literal(0), literal("")).where(fresh)
    names = ["task_id", "proof", "state", "tries", "said"]
    return Prepared(earlier), Prepared(insert(handovers).from_select(names, values))


_ENTER_ALL = _entering(_AT_HAND)
_ENTER_ONE = _entering(and_(tasks.c.id == bindparam("this"), _AT_HAND))


@dataclass(frozen=True, slots=True)
class HandOver:
    """A complete study that waits for its command; ``tries`` have failed so far.

    ``folder`` is relative to the output folder, ``rows`` asked for the study.
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

    @property
    def row(self) -> int:
        """The first row that asked for the study; 0 if a newer table has none."""
        return self.rows[0] if self.rows else 0


class HandOvers:
    """The hand-overs of a job."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, *, wanted: bool) -> int:
        """At the start of a run: everything complete that is not handed over waits for it, what failed too.

        Returns how many that are. Not ``wanted``: nothing waits any more.
        """

        def work(connection: Connection) -> None:
            if not wanted:
                connection.execute(delete(handovers).where(handovers.c.state != DONE))
                return
            connection.execute(delete(handovers).where(handovers.c.state != DONE, ~_still_here))
            for statement in _ENTER_ALL:
                statement.run(connection)
            again = update(handovers).where(handovers.c.state == FAILED)
            connection.execute(again.values(state=TO_DO, tries=0, not_before=None))

        self._database.write(work)
        return self.waiting()

    def offer(self, task_id: int) -> Future[None]:
        """A study has become complete."""

        def work(connection: Connection) -> None:
            for statement in _ENTER_ONE:
                statement.run(connection, this=task_id)

        return self._database.submit(work)

    def due(self, now: float, but: Collection[int]) -> HandOver | None:
        """The next one whose time has come, other than these tasks."""
        found = self._database.ask(_DUE, now=now, limit=len(but) + 1)
        row = next((one for one in found if one.task_id not in but), None)
        if row is None:
            return None
        rows = self._database.ask(ROWS_OF_TASK, task_id=row.task_id)
        return _hand_over(row, tuple(each.row for each in rows))

    def waiting(self) -> int:
        """How many wait, for now or for later."""
        number: int = self._database.ask(_WAITING)[0].number
        return number

    def done(self, one: HandOver, now: float, *, released: bool) -> None:
        """The command has ended well; ``released``: and it has taken the files away."""

        def work(connection: Connection) -> None:
            _END.run(connection, this=one.task_id, of=one.proof, ended=now, said="")
            if released:
                _RELEASE.run(connection, this=one.task_id, released_at=now)

        self._database.write(work)

    def failed(self, one: HandOver, said: str, now: float, again: float | None) -> None:
        """The command has failed, and is tried again at a POSIX time; or, with None, in this run no more."""
        state = FAILED if again is None else TO_DO
        values = {"state": state, "tries": one.tries + 1, "not_before": again, "ended": now, "said": said}
        self._database.write(lambda c: _FAIL.run(c, this=one.task_id, of=one.proof, **values) and None)


def _hand_over(row: Any, rows: tuple[int, ...]) -> HandOver:
    return HandOver(
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
