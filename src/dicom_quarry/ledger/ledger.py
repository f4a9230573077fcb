"""Studies that had ended well are taken up again, for what happened to their files or in their archive."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, exists, insert, select, update

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger import statements as put
from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.instances import InstanceRow, add_instance, replace_instances, stored_totals
from dicom_quarry.ledger.schema import (
    job,
    request_tasks,
    requests,
    tasks,
)
from dicom_quarry.ledger.statements import RETRIED, CompiledStatement
from dicom_quarry.model import Request, RequestState, Selection, Study, Task, TaskState


def concluded_tasks(ledger: Ledger, study_uid: str) -> list[int]:
    """The tasks of a study that have ended, and whose data did not go elsewhere."""
    mine = tasks.c.study_uid == study_uid, tasks.c.state == TaskState.CONCLUDED, tasks.c.released_at.is_(None)
    query = select(tasks.c.id).where(*mine)
    return ledger.database.read(lambda c: list(c.scalars(query)))


def reopen_with_folders(ledger: Ledger, task_id: int, paths: Collection[str]) -> None:
    """Let a task wait again whose instances are in these folders: what is there need not be sent."""

    def work(connection: Connection) -> None:
        put.ADD_FOLDER.run_many(connection, [{"task_id": task_id, "path": path} for path in paths])
        reopen_tasks(connection, [task_id])

    ledger.database.write(work)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One question put to the archive for a task; times are POSIX seconds."""

    started: float
    ended: float
    level: str
    requested: int
    newly_stored: int
    verdict: str
    status: int | None
    comment: str
    transport: str = "move"


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task ended with; ``proved_at`` is a POSIX time, None unless it is complete."""

    code: str
    details: Mapping[str, object]
    expected: int | None
    stored: int
    size: int
    folder: str
    proved_at: float | None
    instances: Sequence[InstanceRow]


class Ledger:
    """The record of one job. For any thread; a change is durable when its call, or its future, is done."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)

    def close(self) -> None:
        """Commit what is waiting and close the file."""
        self.database.close()

    # -- the job itself

    def metadata(self) -> dict[str, str]:
        """What was noted about the job, by name."""
        return {row.name: row.value for row in self.database.fetch_all(put.METADATA)}

    def set_metadata(self, **values: str) -> None:
        """Remember facts about the job, replacing earlier ones of the same name."""
        self.database.write(lambda c: write_metadata(c, values))

    # -- requests

    def waiting_requests(self, limit: int) -> list[Request]:
        """The next rows to resolve, in their order; of rows with the same keys the first alone."""
        return [_request(row) for row in self.database.fetch_all(put.WAITING_REQUESTS, limit=limit)]

    def resolve_request(
        self, request: Request, archive: str, wanted: Sequence[tuple[Study, Selection]], note: str = ""
    ) -> Future[int]:
        """The request, and every row with the same keys, waits for these parts of studies of this archive.

        ``note`` tells of values that were rewritten. The future is the number of these rows; nothing may lean
        on the answer before it is done.
        """
        values = [_task_values(archive, study, _selection_text(chosen)) for study, chosen in wanted]

        def work(connection: Connection) -> int:
            ids = [_get_or_add_task(connection, one) for one in values]
            rows = _update_rows_with_keys(
                connection, put.RESOLVE_WITH_KEYS, request, state=RequestState.RESOLVED, note=note
            )
            links = [{"row": row, "task_id": task_id} for row in rows for task_id in ids]
            put.LINK_TASK.run_many(connection, links)
            return len(rows)

        return self.database.submit(work)

    def conclude_request(self, request: Request, code: str, **details: object) -> Future[int]:
        """The request, and every row with the same keys, ends without a study to fetch; as ``resolve``."""
        ended = {"state": RequestState.CONCLUDED, "code": code, "details": json.dumps(details)}
        return self.database.submit(
            lambda c: len(_update_rows_with_keys(c, put.CONCLUDE_WITH_KEYS, request, **ended))
        )

    # -- tasks

    def waiting_tasks(self, now: float, limit: int) -> list[Task]:
        """Tasks that can be worked on now: those whose time has come, then those that were never put off."""
        return [_task(row) for row in self.database.fetch_all(put.WAITING_TASKS, now=now, limit=limit)]

    def next_due(self) -> float | None:
        """When the earliest postponed task may be tried again (POSIX time), None if none is waiting."""
        rows = self.database.fetch_all(put.NEXT_DUE)
        return rows[0].not_before or 0.0 if rows else None

    def all_complete(self) -> bool:
        """Whether nothing more is expected of any task."""
        return not self.database.fetch_all(put.UNPROVED_TASK)

    def postpone_task(self, task_id: int, not_before: float) -> None:
        """Leave a task alone until a POSIX time."""
        self.database.write(
            lambda c: put.POSTPONE_TASK.run(c, task_id=task_id, not_before=not_before) and None
        )

    def record_round(self, task_id: int, attempts: Sequence[Attempt]) -> Future[None]:
        """Remember the questions that were put to the archive in one round, and how they ended."""
        return self.database.submit(lambda c: _add_round(c, task_id, attempts))

    def add_folders(self, task_id: int, paths: Collection[str]) -> Future[None]:
        """Remember where instances of an unfinished task are, durably before the first is acknowledged."""
        rows = [{"task_id": task_id, "path": path} for path in paths]
        return self.database.submit(lambda c: put.ADD_FOLDER.run_many(c, rows))

    def folders_of(self, task_id: int) -> list[str]:
        """Folders that may hold instances of an unfinished task."""
        return [row.path for row in self.database.fetch_all(put.FOLDERS, task_id=task_id)]

    def conclude_task(self, task_id: int, result: TaskResult) -> Future[None]:
        """A task has ended: its outcome and its instances, in one transaction.

        Nothing may be told of it before the future is done.
        """

        def work(connection: Connection) -> None:
            replace_instances(connection, task_id, result.instances)
            known = {
                name: getattr(result, name)
                for name in ("code", "expected", "stored", "size", "folder", "proved_at")
            }
            details = json.dumps(dict(result.details))
            if put.CONCLUDE_TASK.run(connection, task_id=task_id, details=details, **known).rowcount != 1:
                raise LedgerError(f"task {task_id} has ended already")
            if result.proved_at is not None:
                put.DELETE_FOLDERS.run(connection, task_id=task_id)

        return self.database.submit(work)

    def add_late_instance(self, task_id: int, row: InstanceRow, folder: str) -> None:
        """Account for an instance that came when its task was not being worked on.

        If it was given up it is taken up again, since the archive is sending after all. If it was complete
        its list was not: that is for a person to see, who may have it tried again.
        """

        def work(connection: Connection) -> None:
            mine = tasks.c.id == task_id
            task = connection.execute(select(tasks.c.state, tasks.c.proved_at).where(mine)).one()
            put.ADD_FOLDER.run(connection, task_id=task_id, path=folder)
            if task.state != TaskState.CONCLUDED or not add_instance(connection, task_id, row):
                return
            stored, size, unlisted = stored_totals(connection, task_id)
            connection.execute(update(tasks).where(mine).values(stored=stored, size=size))
            if task.proved_at is None:
                reopen_tasks(connection, [task_id])
            else:
                extra = {"code": "unlisted_arrived", "details": json.dumps({"extra": unlisted})}
                connection.execute(update(tasks).where(mine).values(proved_at=None, **extra))

        self.database.write(work)

    def fruitless_rounds(self, task_id: int) -> dict[str, int]:
        """How many rounds of questions in a row, by road, have brought no instance of the task."""
        return {
            row.transport: row.rounds
            for row in self.database.fetch_all(put.FRUITLESS_ROUNDS, task_id=task_id)
        }

    def retry(self, codes: Collection[str]) -> int:
        """Work again on what ended with one of these codes; returns how many studies and rows that concerns.

        Not on rows that cannot be used: they have no keys, which would ask the archive for everything. Nor on
        studies that were released.
        """
        codes = set(codes) - {"row_unusable"}

        def work(connection: Connection) -> int:
            ended = select(tasks.c.id).where(
                tasks.c.state == TaskState.CONCLUDED,
                tasks.c.code.in_(codes),
                tasks.c.released_at.is_(None),
                exists().where(request_tasks.c.task_id == tasks.c.id),
            )
            ids = list(connection.scalars(ended))
            reopen_tasks(connection, ids)
            reopened = update(requests).where(
                requests.c.state == RequestState.CONCLUDED, requests.c.code.in_(codes)
            )
            rows = connection.execute(
                reopened.values(state=RequestState.WAITING, code=None, details=None)
            ).rowcount
            return len(ids) + rows

        return self.database.write(work)

    def task_of(self, study_uid: str) -> Task | None:
        """The task that a study belongs to, None if nobody asked for it, or its data went elsewhere."""
        rows = self.database.fetch_all(put.TASK_OF_STUDY, study_uid=study_uid)
        return _task(rows[0]) if rows else None

    def first_row(self, task_id: int) -> int:
        """The number of the first row that asked for a task."""
        return self.database.fetch_all(put.FIRST_ROW, task_id=task_id)[0].row or 0

    def cells(self, row: int) -> tuple[str, ...]:
        """The user's own columns of a row."""
        rows = self.database.fetch_all(put.CELLS, row=row)
        return tuple(json.loads(rows[0].cells)) if rows else ()


def _get_or_add_task(connection: Connection, values: Mapping[str, object]) -> int:
    """The number of the task with these values; should no row have asked for it any more it waits again."""
    added = put.ADD_TASK.run(connection, **values)
    if added.rowcount == 1 and added.lastrowid is not None:
        return added.lastrowid
    names = ("archive", "study_uid", "selection")
    task_id: int = put.TASK_ID.run(connection, **{name: values[name] for name in names}).fetchone()[0]
    put.REACTIVATE_TASK.run(connection, task_id=task_id)
    return task_id


def _update_rows_with_keys(
    connection: Connection, statement: CompiledStatement, request: Request, **values: object
) -> list[int]:
    """Settle a request and every row with the same keys; these rows. LedgerError if it is settled already."""
    keys = request.key_hash()
    rows: list[int] = [row for (row,) in put.WAITING_WITH_KEYS.run(connection, keys=keys)]
    if request.row not in rows:
        raise LedgerError(f"row {request.row} is not waiting any more")
    statement.run(connection, keys=keys, **values)
    return rows


def write_metadata(connection: Connection, values: Mapping[str, str]) -> None:
    """Remember facts about the job as a part of a larger transaction."""
    connection.execute(delete(job).where(job.c.name.in_(values)))
    connection.execute(insert(job), [{"name": name, "value": value} for name, value in values.items()])


def _add_round(connection: Connection, task_id: int, attempts: Sequence[Attempt]) -> None:
    latest = put.LAST_ROUND.run(connection, task_id=task_id).fetchone()[0]
    fixed = {"task_id": task_id, "round": latest + 1}
    put.ADD_ATTEMPT.run_many(
        connection, [fixed | {name: getattr(one, name) for name in Attempt.__slots__} for one in attempts]
    )


def reopen_tasks(connection: Connection, task_ids: Iterable[int]) -> None:
    """Let tasks that have ended wait again, with all patience: nothing is known of their end any more."""
    now = time.time()
    for task_id in task_ids:
        _add_round(connection, task_id, [Attempt(now, now, "", 0, 0, RETRIED, None, "")])
        reopened = update(tasks).where(tasks.c.id == task_id)
        connection.execute(
            reopened.values(state=TaskState.WAITING, not_before=None, code=None, details=None, proved_at=None)
        )


def _request(row: Any) -> Request:
    keys = tuple((keyword, value) for keyword, value in json.loads(row.keys))
    others = tuple(
        tuple((keyword, value) for keyword, value in one) for one in json.loads(row.alternatives or "[]")
    )
    cells = tuple(json.loads(row.cells))
    return Request(row.row, row.line, keys, cells, alternatives=others, note=row.note)


def _task(row: Any) -> Task:
    selection = Selection(frozenset(row.selection.split())) if row.selection else Selection()
    return Task(row.id, row.archive, study_of(row), selection)


def study_of(row: Any) -> Study:
    """The study that a row of the tasks table describes."""
    return Study(
        study_uid=row.study_uid,
        patient_id=row.patient_id,
        accession=row.accession,
        study_date=row.study_date,
        modalities=row.modalities,
        description=row.description,
        series_count=row.series_count,
        instance_count=row.instance_count,
        availability=row.availability,
        extra_attributes=tuple(json.loads(row.extra_attributes).items()) if row.extra_attributes else (),
    )


def _selection_text(selection: Selection) -> str:
    return " ".join(sorted(selection.series))


def _task_values(archive: str, study: Study, selection: str) -> dict[str, object]:
    values = {name: getattr(study, name) for name in Study.__slots__}
    extra_attributes = json.dumps(dict(study.extra_attributes)) if study.extra_attributes else None
    return {
        **values,
        "extra_attributes": extra_attributes,
        "archive": archive,
        "selection": selection,
        "state": TaskState.WAITING,
    }
