"""Stored studies that no row requests any more, after the table was replaced: counted, listed, forgotten.

A released study is none of them: its data is elsewhere, and its record stays.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, delete, exists, func, select, update

from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.records import study_of
from dicom_quarry.ledger.schema import (
    folders,
    instances,
    on_complete_items,
    request_tasks,
    requests,
    series,
    tasks,
)
from dicom_quarry.model import RequestState, Study, TaskState

_REQUESTED = exists().where(request_tasks.c.task_id == tasks.c.id)
_ORPHANED = (tasks.c.stored > 0, tasks.c.released_at.is_(None), ~_REQUESTED)


@dataclass(frozen=True, slots=True)
class StudyTotals:
    """A number of studies, with their stored files and bytes."""

    studies: int
    files: int
    size: int


@dataclass(frozen=True, slots=True)
class OrphanedStudy:
    """A study with stored files that no row requests; a study may have several tasks, also requested ones."""

    study: Study
    task_ids: tuple[int, ...]
    requested_task_ids: tuple[int, ...]


class Orphans:
    """Reads and forgets the stored studies that no row requests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count_waiting_rows(self) -> int:
        """Count the rows that have not been searched for yet: they may request any study."""
        waiting = select(func.count()).select_from(requests).where(requests.c.state == RequestState.WAITING)
        return self._database.read(lambda c: c.scalar(waiting) or 0)

    def count(self) -> StudyTotals:
        """Count the studies that no row requests."""
        totals = select(
            func.count(tasks.c.study_uid.distinct()), func.sum(tasks.c.stored), func.sum(tasks.c.size)
        )
        # A study that a row requests in part is one that a row requests.
        requested = select(tasks.c.study_uid).where(_REQUESTED)
        query = totals.where(*_ORPHANED, tasks.c.study_uid.not_in(requested))
        studies, files, size = self._database.read(lambda c: c.execute(query).one())
        return StudyTotals(studies, files or 0, size or 0)

    def list(self) -> list[OrphanedStudy]:
        """Return the studies that no row requests, in the order of their first tasks."""
        rows = self._database.read(
            lambda c: c.execute(select(tasks).where(*_ORPHANED).order_by(tasks.c.id)).all()
        )
        by_uid: dict[str, list[int]] = {}
        studies = {}
        for row in rows:
            by_uid.setdefault(row.study_uid, []).append(row.id)
            studies[row.study_uid] = study_of(row)
        return [
            OrphanedStudy(studies[uid], tuple(ids), self._requested_tasks(uid)) for uid, ids in by_uid.items()
        ]

    def _requested_tasks(self, study_uid: str) -> tuple[int, ...]:
        query = select(tasks.c.id).where(tasks.c.study_uid == study_uid, _REQUESTED)
        return tuple(self._database.read(lambda c: c.scalars(query).all()))

    def forget(self, task_ids: Collection[int]) -> None:
        """Forget the files of these tasks; if a row requests one again, it is fetched again.

        A task that waits is in work, and stays as it is.
        """

        def work(connection: Connection) -> None:
            ended = select(tasks.c.id).where(tasks.c.id.in_(task_ids), tasks.c.state != TaskState.WAITING)
            forgotten = connection.scalars(ended).all()
            for table in (instances, series, folders, on_complete_items):
                connection.execute(delete(table).where(table.c.task_id.in_(forgotten)))
            emptied = dict.fromkeys(("not_before", "code", "details", "expected", "proved_at"))
            connection.execute(
                update(tasks)
                .where(tasks.c.id.in_(forgotten))
                .values(state=TaskState.UNWANTED, stored=0, size=0, folder="", **emptied)
            )

        self._database.write(work)
