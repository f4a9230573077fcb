"""What became of studies that must not be taken: found again, and marked where they are stored already."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.instances import replace_instances
from dicom_quarry.ledger.ledger import study_of
from dicom_quarry.ledger.schema import tasks
from dicom_quarry.model import OutcomeStatus, Study, TaskState
from dicom_quarry.outcomes import codes_of

_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task that has ended with ``stored`` instances on the disk; or, ``released``, elsewhere."""

    task_id: int
    study: Study
    code: str
    stored: int
    released: bool


def stored_tasks(database: Database) -> Iterator[StoredTask]:
    """Every task that has ended and has instances here."""
    last = 0
    while page := _page(database, last):
        yield from page
        last = page[-1].task_id


def _page(database: Database, last: int) -> list[StoredTask]:
    stored = select(tasks).where(tasks.c.state == TaskState.CONCLUDED, tasks.c.stored > 0, tasks.c.id > last)
    query = stored.order_by(tasks.c.id).limit(_PAGE)
    return database.read(
        lambda c: [
            StoredTask(row.id, study_of(row), row.code, row.stored, row.released_at is not None)
            for row in c.execute(query)
        ]
    )


def mark_stored_excluded(database: Database, task: StoredTask, keys: str) -> None:
    """Mark a task whose study is excluded now; what is known of its instances, and their proof, stays."""
    details = json.dumps({"keys": keys, "stored": task.stored})
    marked = update(tasks).where(tasks.c.id == task.task_id)
    database.write(lambda c: c.execute(marked.values(code="excluded_but_stored", details=details)) and None)


def delete_instance_records(database: Database, task: StoredTask) -> None:
    """The instances of an excluded task are not here any more."""

    def work(connection: Connection) -> None:
        replace_instances(connection, task.task_id, [])
        emptied = update(tasks).where(tasks.c.id == task.task_id)
        connection.execute(emptied.values(stored=0, size=0, folder="", proved_at=None, code="study_excluded"))

    database.write(work)


def excluded_studies(database: Database) -> set[str]:
    """The Study Instance UIDs of tasks that have ended as excluded."""
    ended = select(tasks.c.study_uid).where(tasks.c.state == TaskState.CONCLUDED)
    query = ended.where(tasks.c.code.in_(codes_of({OutcomeStatus.EXCLUDED})))
    return database.read(lambda c: set(c.scalars(query)))
