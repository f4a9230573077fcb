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
    Row,
    Update,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)

from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.ledger import study_of
from dicom_quarry.ledger.schema import DONE, FAILED, TO_DO, handovers, request_tasks, tasks
from dicom_quarry.model import Study, Word
from dicom_quarry.outcomes import codes_of

#: Complete, and still here; a proof alone may be that of a study that must not be taken any more.
_AT_HAND = and_(
    tasks.c.proved_at.is_not(None),
    tasks.c.code.in_(codes_of({Word.COMPLETE})),
    tasks.c.released_at.is_(None),
)


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
            at_hand = exists().where(tasks.c.id == handovers.c.task_id, _AT_HAND)
            connection.execute(delete(handovers).where(handovers.c.state != DONE, ~at_hand))
            _enter(connection, _AT_HAND)
            again = update(handovers).where(handovers.c.state == FAILED)
            connection.execute(again.values(state=TO_DO, tries=0, not_before=None))

        self._database.write(work)
        return self.waiting()

    def offer(self, task_id: int) -> Future[None]:
        """A study has become complete."""
        mine = and_(tasks.c.id == task_id, _AT_HAND)
        return self._database.submit(lambda connection: _enter(connection, mine))

    def due(self, now: float, but: Collection[int]) -> HandOver | None:
        """The next one whose time has come, other than these tasks."""
        ready = handovers.c.not_before.is_(None) | (handovers.c.not_before <= now)
        query = (
            select(handovers.c.task_id, handovers.c.proof, handovers.c.tries, *tasks.c)
            .join(tasks, tasks.c.id == handovers.c.task_id)
            .where(handovers.c.state == TO_DO, _AT_HAND, ready, handovers.c.task_id.not_in(but))
            .order_by(handovers.c.not_before.nulls_first(), handovers.c.task_id)
            .limit(1)
        )

        def work(connection: Connection) -> HandOver | None:
            row = connection.execute(query).first()
            return _hand_over(connection, row) if row is not None else None

        return self._database.read(work)

    def waiting(self) -> int:
        """How many wait, for now or for later."""
        mine = exists().where(tasks.c.id == handovers.c.task_id, _AT_HAND)
        query = select(func.count()).select_from(handovers).where(handovers.c.state == TO_DO, mine)
        return self._database.read(lambda c: c.scalar(query)) or 0

    def done(self, one: HandOver, now: float, *, released: bool) -> None:
        """The command has ended well; ``released``: and it has taken the files away."""

        def work(connection: Connection) -> None:
            connection.execute(_this(one).values(state=DONE, ended=now, said=""))
            if released:
                here = and_(tasks.c.id == one.task_id, _AT_HAND)
                connection.execute(update(tasks).where(here).values(released_at=now))

        self._database.write(work)

    def failed(self, one: HandOver, said: str, now: float, again: float | None) -> None:
        """The command has failed, and is tried again at a POSIX time; or, with None, in this run no more."""
        state = FAILED if again is None else TO_DO
        values = {"state": state, "tries": one.tries + 1, "not_before": again, "ended": now, "said": said}
        self._database.write(lambda c: c.execute(_this(one).values(values)) and None)


def _this(one: HandOver) -> Update:
    """Still of this proof, and not released by the command itself."""
    mine = and_(
        handovers.c.task_id == one.task_id, handovers.c.proof == one.proof, handovers.c.state == TO_DO
    )
    return update(handovers).where(mine)


def _enter(connection: Connection, which: ColumnElement[bool]) -> None:
    """Let complete studies wait for their command, unless that was run for the same proof."""
    same = exists().where(handovers.c.task_id == tasks.c.id, handovers.c.proof == tasks.c.proved_at)
    fresh = and_(which, ~same)
    earlier = delete(handovers).where(handovers.c.task_id.in_(select(tasks.c.id).where(fresh)))
    connection.execute(earlier)
    values = select(tasks.c.id, tasks.c.proved_at, literal(TO_DO), literal(0), literal("")).where(fresh)
    names = ["task_id", "proof", "state", "tries", "said"]
    connection.execute(insert(handovers).from_select(names, values))


def _hand_over(connection: Connection, row: Row[Any]) -> HandOver:
    wanted = select(request_tasks.c.row).where(request_tasks.c.task_id == row.task_id)
    return HandOver(
        task_id=row.task_id,
        proof=row.proof,
        tries=row.tries,
        study=study_of(row),
        archive=row.archive,
        rows=tuple(connection.scalars(wanted.order_by(request_tasks.c.row))),
        code=row.code,
        folder=row.folder,
        instances=row.stored,
        size=row.size,
    )
