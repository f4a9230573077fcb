"""The few verbs that change what is known of a job: each one transaction, each compare-and-set."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.database import Database, insert_new
from dicom_quarry.ledger.instances import InstanceRow, add_instance, replace_instances, stock
from dicom_quarry.ledger.schema import (
    CONCLUDED,
    RESOLVED,
    UNWANTED,
    WAITING,
    attempts,
    folders,
    job,
    request_tasks,
    requests,
    tasks,
)
from dicom_quarry.model import Request, Selection, Study, Task

#: Stands among the attempts where a task that had ended was taken up again: patience begins anew.
RETRIED = "retried"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One question put to the archive for a task; times are POSIX seconds."""

    started: float
    ended: float
    level: str
    asked: int
    gained: int
    verdict: str
    status: int | None
    comment: str
    road: str = "move"


@dataclass(frozen=True, slots=True)
class TaskEnd:
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

    def facts(self) -> dict[str, str]:
        """What was noted about the job, by name."""
        return self.database.read(lambda c: {row.name: row.value for row in c.execute(select(job))})

    def note(self, **facts: str) -> None:
        """Remember facts about the job, replacing earlier ones of the same name."""
        self.database.write(lambda c: note_facts(c, facts))

    # -- requests

    def waiting_requests(self, limit: int) -> list[Request]:
        """The next rows to resolve, in their order; of rows with the same keys the first alone."""
        query = (
            select(requests)
            .where(requests.c.state == WAITING, requests.c.same_as.is_(None))
            .order_by(requests.c.row)
            .limit(limit)
        )
        return self.database.read(lambda c: [_request(row) for row in c.execute(query)])

    def resolve(
        self, request: Request, archive: str, wanted: Sequence[tuple[Study, Selection]], note: str = ""
    ) -> Future[int]:
        """The request, and every row with the same keys, waits for these parts of studies of this archive.

        ``note`` tells of values that were rewritten. The future is the number of these rows; nothing may lean
        on the answer before it is done.
        """
        values = [_task_values(archive, study, _selection_text(chosen)) for study, chosen in wanted]
        mine = [(one["study_uid"], one["selection"]) for one in values]

        def work(connection: Connection) -> int:
            insert_new(connection, tasks, values)
            named = tuple_(tasks.c.study_uid, tasks.c.selection).in_(mine)
            known = select(tasks.c.id, tasks.c.state).where(tasks.c.archive == archive, named)
            states = {one.id: one.state for one in connection.execute(known)}
            if UNWANTED in states.values():
                again = update(tasks).where(tasks.c.id.in_(states), tasks.c.state == UNWANTED)
                connection.execute(again.values(state=WAITING))
            rows = self._settle_rows(connection, request, state=RESOLVED, note=note)
            insert_new(
                connection, request_tasks, [{"row": row, "task_id": id_} for row in rows for id_ in states]
            )
            return len(rows)

        return self.database.submit(work)

    def conclude_request(self, request: Request, code: str, **details: object) -> Future[int]:
        """The request, and every row with the same keys, ends without a study to fetch; as ``resolve``."""
        ended = {"state": CONCLUDED, "code": code, "details": json.dumps(details)}
        return self.database.submit(lambda c: len(self._settle_rows(c, request, **ended)))

    def _settle_rows(self, connection: Connection, request: Request, **values: object) -> list[int]:
        mine = and_(requests.c.identity == request.identity(), requests.c.state == WAITING)
        rows = list(connection.scalars(select(requests.c.row).where(mine)))
        if request.row not in rows:
            raise LedgerError(f"row {request.row} is not waiting any more")
        connection.execute(update(requests).where(mine).values(**values))
        return rows

    # -- tasks

    def waiting_tasks(self, now: float, limit: int) -> list[Task]:
        """Tasks that can be worked on now: those whose time has come, then those that were never put off."""
        # Two questions, each a range of the index: as one they would sort all that waits.
        due = _wanted(select(tasks)).where(tasks.c.not_before <= now)
        fresh = _wanted(select(tasks)).where(tasks.c.not_before.is_(None)).order_by(tasks.c.id)

        def work(connection: Connection) -> list[Row[Any]]:
            found = list(connection.execute(due.order_by(tasks.c.not_before, tasks.c.id).limit(limit)))
            return [*found, *connection.execute(fresh.limit(limit - len(found)))]

        return [_task(row) for row in self.database.read(work)]

    def next_due(self) -> float | None:
        """When the earliest postponed task may be tried again (POSIX time), None if none is waiting."""
        first = tasks.c.not_before.nulls_first()
        query = _wanted(select(tasks.c.not_before)).order_by(first, tasks.c.id).limit(1)
        row = self.database.read(lambda c: c.execute(query).first())
        return None if row is None else row.not_before or 0.0

    def all_complete(self) -> bool:
        """Whether nothing more is expected of any task."""
        query = select(tasks.c.id).where(tasks.c.proved_at.is_(None)).limit(1)
        return self.database.read(lambda c: c.scalar(query)) is None

    def postpone(self, task_id: int, not_before: float) -> None:
        """Leave a task alone until a POSIX time."""
        later = update(tasks).where(tasks.c.id == task_id).values(not_before=not_before)
        self.database.write(lambda c: c.execute(later) and None)

    def record_round(self, task_id: int, asked: Sequence[Attempt]) -> Future[None]:
        """Remember the questions that were put to the archive in one round, and how they ended."""
        return self.database.submit(lambda c: _add_round(c, task_id, asked))

    def add_folders(self, task_id: int, paths: Collection[str]) -> Future[None]:
        """Remember where instances of an unfinished task are, durably before the first is acknowledged."""
        rows = [{"task_id": task_id, "path": path} for path in paths]
        return self.database.submit(lambda c: insert_new(c, folders, rows))

    def folders_of(self, task_id: int) -> list[str]:
        """Folders that may hold instances of an unfinished task."""
        query = select(folders.c.path).where(folders.c.task_id == task_id)
        return self.database.read(lambda c: list(c.scalars(query)))

    def conclude(self, task_id: int, end: TaskEnd) -> Future[None]:
        """A task has ended: its outcome and its instances, in one transaction.

        Nothing may be told of it before the future is done.
        """

        def work(connection: Connection) -> None:
            replace_instances(connection, task_id, end.instances)
            changed = connection.execute(
                update(tasks)
                .where(tasks.c.id == task_id, tasks.c.state == WAITING)
                .values(
                    state=CONCLUDED,
                    not_before=None,
                    code=end.code,
                    details=json.dumps(dict(end.details)),
                    expected=end.expected,
                    stored=end.stored,
                    size=end.size,
                    folder=end.folder,
                    proved_at=end.proved_at,
                )
            ).rowcount
            if changed != 1:
                raise LedgerError(f"task {task_id} has ended already")
            if end.proved_at is not None:
                connection.execute(delete(folders).where(folders.c.task_id == task_id))

        return self.database.submit(work)

    def add_late(self, task_id: int, row: InstanceRow, folder: str) -> None:
        """Account for an instance that came when its task was not being worked on.

        If it was given up it is taken up again, since the archive is sending after all. If it was complete
        its list was not: that is for a person to see, who may have it tried again.
        """

        def work(connection: Connection) -> None:
            mine = tasks.c.id == task_id
            task = connection.execute(select(tasks.c.state, tasks.c.proved_at).where(mine)).one()
            insert_new(connection, folders, [{"task_id": task_id, "path": folder}])
            if task.state != CONCLUDED or not add_instance(connection, task_id, row):
                return
            stored, size, unlisted = stock(connection, task_id)
            connection.execute(update(tasks).where(mine).values(stored=stored, size=size))
            if task.proved_at is None:
                take_up(connection, [task_id])
            else:
                extra = {"code": "unlisted_arrived", "details": json.dumps({"extra": unlisted})}
                connection.execute(update(tasks).where(mine).values(proved_at=None, **extra))

        self.database.write(work)

    def strikes(self, task_id: int) -> dict[str, int]:
        """How many rounds of questions in a row, by road, have brought no instance of the task."""
        mine = attempts.c.task_id == task_id
        fruitful = or_(attempts.c.gained > 0, attempts.c.verdict == RETRIED)
        latest_gain = select(func.coalesce(func.max(attempts.c.round), 0)).where(mine, fruitful)
        fruitless = and_(mine, attempts.c.round > latest_gain.scalar_subquery())
        rounds = func.count(attempts.c.round.distinct()).label("rounds")
        query = select(attempts.c.road, rounds).where(fruitless).group_by(attempts.c.road)
        return self.database.read(lambda c: {row.road: row.rounds for row in c.execute(query)})

    def retry(self, codes: Collection[str]) -> int:
        """Work again on what ended with one of these codes; returns how many studies and rows that concerns.

        Not on rows that cannot be used: they have no keys, which would ask the archive for everything. Nor on
        studies that were released.
        """
        codes = set(codes) - {"row_unusable"}

        def work(connection: Connection) -> int:
            ended = select(tasks.c.id).where(
                tasks.c.state == CONCLUDED,
                tasks.c.code.in_(codes),
                tasks.c.released_at.is_(None),
                exists().where(request_tasks.c.task_id == tasks.c.id),
            )
            ids = list(connection.scalars(ended))
            take_up(connection, ids)
            again = update(requests).where(requests.c.state == CONCLUDED, requests.c.code.in_(codes))
            rows = connection.execute(again.values(state=WAITING, code=None, details=None)).rowcount
            return len(ids) + rows

        return self.database.write(work)

    def task_of(self, study_uid: str) -> Task | None:
        """The task that a study belongs to, None if nobody asked for it, or its data went elsewhere."""
        query = select(tasks).where(tasks.c.study_uid == study_uid, tasks.c.released_at.is_(None)).limit(1)
        row = self.database.read(lambda c: c.execute(query).first())
        return None if row is None else _task(row)

    def first_row(self, task_id: int) -> int:
        """The number of the first row that asked for a task."""
        query = select(func.min(request_tasks.c.row)).where(request_tasks.c.task_id == task_id)
        return self.database.read(lambda c: c.scalar(query)) or 0

    def cells(self, row: int) -> tuple[str, ...]:
        """The user's own columns of a row."""
        query = select(requests.c.cells).where(requests.c.row == row)
        return tuple(json.loads(self.database.read(lambda c: c.scalar(query)) or "[]"))


def _wanted(query: Select[Any]) -> Select[Any]:
    """Of the tasks that wait those that a row asks for; there are hardly others, so looking costs little."""
    return query.where(tasks.c.state == WAITING, exists().where(request_tasks.c.task_id == tasks.c.id))


def note_facts(connection: Connection, facts: Mapping[str, str]) -> None:
    """Remember facts about the job as a part of a larger transaction."""
    connection.execute(delete(job).where(job.c.name.in_(facts)))
    connection.execute(insert(job), [{"name": name, "value": value} for name, value in facts.items()])


def _add_round(connection: Connection, task_id: int, asked: Sequence[Attempt]) -> None:
    latest = select(func.coalesce(func.max(attempts.c.round), 0)).where(attempts.c.task_id == task_id)
    number = (connection.scalar(latest) or 0) + 1
    fixed = {"task_id": task_id, "round": number}
    values = [fixed | {name: getattr(one, name) for name in Attempt.__slots__} for one in asked]
    connection.execute(insert(attempts), values)


def take_up(connection: Connection, task_ids: Iterable[int]) -> None:
    """Let tasks that have ended wait again, with all patience: nothing is known of their end any more."""
    now = time.time()
    for task_id in task_ids:
        _add_round(connection, task_id, [Attempt(now, now, "", 0, 0, RETRIED, None, "")])
        again = update(tasks).where(tasks.c.id == task_id)
        connection.execute(
            again.values(state=WAITING, not_before=None, code=None, details=None, proved_at=None)
        )


def _request(row: Row[Any]) -> Request:
    keys = tuple((keyword, value) for keyword, value in json.loads(row.keys))
    others = tuple(
        tuple((keyword, value) for keyword, value in one) for one in json.loads(row.alternatives or "[]")
    )
    cells = tuple(json.loads(row.cells))
    return Request(row.row, row.line, keys, cells, alternatives=others, note=row.note)


def _task(row: Row[Any]) -> Task:
    selection = Selection(frozenset(row.selection.split())) if row.selection else Selection()
    return Task(row.id, row.archive, study_of(row), selection)


def study_of(row: Row[Any]) -> Study:
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
        others=tuple(json.loads(row.others).items()) if row.others else (),
    )


def _selection_text(selection: Selection) -> str:
    return " ".join(sorted(selection.series))


def _task_values(archive: str, study: Study, selection: str) -> dict[str, object]:
    values = {name: getattr(study, name) for name in Study.__slots__}
    others = json.dumps(dict(study.others)) if study.others else None
    return {**values, "others": others, "archive": archive, "selection": selection, "state": WAITING}
