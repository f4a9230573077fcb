"""Released studies: their data was moved elsewhere. Their record stays, and they are never fetched again."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, case, func, select, update

from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.schema import on_complete_items, tasks
from dicom_quarry.model import OnCompleteState, OutcomeStatus, TaskState
from dicom_quarry.outcomes import codes_of

_COMPLETE = tasks.c.code.in_(codes_of({OutcomeStatus.COMPLETE}))

#: Studies in one page.
_PAGE = 500


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """The state of a study. ``removing`` means that it is released and its files are being removed."""

    study_uid: str
    patient_id: str
    complete: bool
    released: bool
    removing: bool


class Releases:
    """Reads and marks releases, also while another process runs the job.

    The job may reopen a study at any moment, so a release is checked and marked in one transaction.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def read_state(self, study_uid: str) -> ReleaseState | None:
        """Return the state of a study; None if no row requests it."""
        query = _state_query().where(tasks.c.study_uid == study_uid)
        row = self._database.read(lambda c: c.execute(query).first())
        return None if row is None else _release_state(row)

    def releasable_studies(self) -> Iterator[ReleaseState]:
        """Yield every complete study that is not released, or whose files are still being removed."""
        last = ""
        while True:
            page = _state_query().where(tasks.c.study_uid > last).order_by(tasks.c.study_uid).limit(_PAGE)
            rows = self._database.read(lambda c, page=page: c.execute(page).all())  # type: ignore[misc]
            if not rows:
                return
            last = rows[-1].study_uid
            for row in rows:
                one = _release_state(row)
                if one.complete and (one.removing or not one.released):
                    yield one

    def mark_released(self, study_uid: str, *, removing: bool) -> bool:
        """Mark a study as released; return False, and change nothing, if it is not complete any more.

        ``removing`` means that its files are removed next. Its on-complete command does not run any more.
        """
        now = time.time()

        def work(connection: Connection) -> bool:
            row = connection.execute(_state_query().where(tasks.c.study_uid == study_uid)).first()
            if row is None or not _release_state(row).complete:
                return False
            mine = and_(tasks.c.study_uid == study_uid, tasks.c.state != TaskState.UNWANTED)
            connection.execute(
                update(tasks)
                .where(mine)
                .values(released_at=func.coalesce(tasks.c.released_at, now), removing=int(removing))
            )
            ids = select(tasks.c.id).where(mine)
            unfinished = update(on_complete_items).where(
                on_complete_items.c.task_id.in_(ids), on_complete_items.c.state != OnCompleteState.DONE
            )
            connection.execute(unfinished.values(state=OnCompleteState.DONE, ended=now, error=""))
            return True

        return self._database.write(work)

    def mark_removed(self, study_uids: Collection[str]) -> None:
        """Record that the files of these released studies are removed."""
        cleared = update(tasks).where(tasks.c.study_uid.in_(study_uids)).values(removing=0)
        self._database.write(lambda c: c.execute(cleared) and None)


def _state_query() -> Select[Any]:
    """Make the query for the state of a study: complete if each of its tasks is, but for unwanted ones."""
    return (
        select(
            tasks.c.study_uid,
            func.min(tasks.c.patient_id).label("patient_id"),
            func.sum(case((and_(tasks.c.proved_at.is_not(None), _COMPLETE), 0), else_=1)).label("lacking"),
            func.sum(case((tasks.c.released_at.is_(None), 1), else_=0)).label("kept"),
            func.sum(tasks.c.removing).label("removing"),
        )
        .where(tasks.c.state != TaskState.UNWANTED)
        .group_by(tasks.c.study_uid)
    )


def _release_state(row: Any) -> ReleaseState:
    return ReleaseState(row.study_uid, row.patient_id, not row.lacking, not row.kept, bool(row.removing))
