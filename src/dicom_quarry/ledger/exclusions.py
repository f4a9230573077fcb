"""Studies on the exclusion list: finds those that are stored already, and marks them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.instances import replace_instances
from dicom_quarry.ledger.records import study_of
from dicom_quarry.ledger.schema import tasks
from dicom_quarry.model import OutcomeStatus, Study, TaskState
from dicom_quarry.outcomes import codes_of

_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A concluded task with ``stored`` instances; the files of a ``released`` one are elsewhere."""

    task_id: int
    study: Study
    code: str
    stored: int
    released: bool


def stored_tasks(database: Database) -> Iterator[StoredTask]:
    """Yield every concluded task that has stored instances."""
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
    """Mark a task whose study is excluded now; the record of its instances, and their proof, stay."""
    details = json.dumps({"keys": keys, "stored": task.stored})
    marked = update(tasks).where(tasks.c.id == task.task_id)
    database.write(lambda c: c.execute(marked.values(code="excluded_but_stored", details=details)) and None)


def delete_instance_records(database: Database, task: StoredTask) -> None:
    """Delete the records of an excluded task's instances, whose files are gone."""

    def work(connection: Connection) -> None:
        replace_instances(connection, task.task_id, [], {})
        emptied = update(tasks).where(tasks.c.id == task.task_id)
        connection.execute(emptied.values(stored=0, size=0, folder="", proved_at=None, code="study_excluded"))

    database.write(work)


def excluded_studies(database: Database) -> set[str]:
    """Return the Study Instance UIDs of tasks that are concluded as excluded."""
    ended = select(tasks.c.study_uid).where(tasks.c.state == TaskState.CONCLUDED)
    query = ended.where(tasks.c.code.in_(codes_of({OutcomeStatus.EXCLUDED})))
    return database.read(lambda c: set(c.scalars(query)))
