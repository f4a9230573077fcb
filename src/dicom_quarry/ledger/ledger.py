"""The record of one job: its rows, its tasks, and the operations that change them."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exists, select, update

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger import statements as put
from dicom_quarry.ledger.claims import Claims
from dicom_quarry.ledger.compiled_statement import CompiledStatement, new_id
from dicom_quarry.ledger.database import Database, Work, do_nothing
from dicom_quarry.ledger.dialects import upsert
from dicom_quarry.ledger.instances import (
    InstanceRow,
    UidNumbers,
    add_instance,
    replace_instances,
    stored_totals,
)
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.records import make_request, make_task
from dicom_quarry.ledger.schema import (
    job,
    request_tasks,
    requests,
    tasks,
)
from dicom_quarry.ledger.statements import RETRIED
from dicom_quarry.model import InstanceRef, Request, RequestState, Selection, Study, Task, TaskState
from dicom_quarry.system.worker_identity import new_worker_identity

#: The detail of a task with the instances that our own receiver refused: UIDs by reason.
REFUSED = "refused"


def concluded_tasks(ledger: Ledger, study_uid: str) -> list[int]:
    """Return the ids of the concluded tasks of a study that is not released."""
    mine = tasks.c.study_uid == study_uid, tasks.c.state == TaskState.CONCLUDED, tasks.c.released_at.is_(None)
    query = select(tasks.c.id).where(*mine)
    return ledger.database.read(lambda c: list(c.scalars(query)))


def reopen_with_folders(ledger: Ledger, task_id: int, paths: Collection[str]) -> None:
    """Reopen a task; the instances in these folders need not be sent again."""

    def work(connection: Connection) -> None:
        put.ADD_FOLDER.run_many(connection, [{"task_id": task_id, "path": path} for path in paths])
        reopen_tasks(connection, [task_id])

    ledger.database.write(work)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One retrieval request to the archive for a task; times are POSIX seconds."""

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
    """The outcome of a task with its instances; ``proved_at`` is a POSIX time, None unless it is complete."""

    code: str
    details: Mapping[str, object]
    expected: int | None
    stored: int
    size: int
    folder: str
    proved_at: float | None
    instances: Sequence[InstanceRow]


@dataclass(frozen=True, slots=True)
class TaskHistory:
    """The first row that requests a task, 0 if none does, and the latest tries by transport.

    Those are counted that brought no new instance.
    """

    first_row: int
    fruitless_rounds: Mapping[str, int]


class Ledger:
    """The record of one job.

    Any thread may use it. A change is durable when its call returns, or when its future is done. A ``claim``
    is the number of the worker's claim on a task, 0 without one: ClaimLost is raised, and nothing changed, if
    another worker has taken it over. ``worker`` names this worker; with
    ``claims_ahead`` of 0 the studies that it finds are for any worker.
    """

    def __init__(self, location: LedgerLocation, worker: str = "", *, claims_ahead: int = 16) -> None:
        self.database = Database(location)
        #: Those that are committed.
        self._uid_numbers: UidNumbers = {}
        self.claims = Claims(self.database, worker or new_worker_identity(), claims_ahead)

    def close(self) -> None:
        """Commit what is queued and close the file."""
        self.database.close()

    # -- the job itself

    def metadata(self) -> dict[str, str]:
        """Return the facts about the job, by name."""
        return {row.name: row.value for row in self.database.fetch_all(put.METADATA)}

    def set_metadata(self, **values: str) -> None:
        """Store facts about the job; replace those of the same name."""
        self.database.write(lambda c: write_metadata(c, values))

    # -- requests

    def waiting_requests(self, limit: int) -> list[Request]:
        """Return the next rows to resolve, in their order; of rows with the same keys the first alone."""
        return [make_request(row) for row in self.database.fetch_all(put.WAITING_REQUESTS, limit=limit)]

    def resolve_request(
        self, request: Request, archive: str, wanted: Sequence[tuple[Study, Selection]], note: str = ""
    ) -> Future[int]:
        """Resolve the request, and every row with the same keys, to tasks for the ``wanted`` studies.

        ``note`` describes values that were rewritten. The future has the number of these rows; the change is
        durable when it is done. It raises LedgerError if the request is not waiting.
        """
        values = [_task_values(archive, study, _selection_text(chosen)) for study, chosen in wanted]

        def work(connection: Connection) -> tuple[int, list[Task]]:
            self.claims.end(connection, "row", request.row, request.claim)
            added = [put.ADD_TASK.run(connection, **one) for one in values]
            rows = _update_rows_with_keys(
                connection, put.RESOLVE_WITH_KEYS, request, state=RequestState.RESOLVED, note=note
            )
            found = [_task_id(connection, *one) for one in zip(values, added, strict=True)]
            links = [{"row": row, "task_id": task_id} for row in rows for task_id, _ in found]
            put.LINK_TASK.run_many(connection, links)
            new = (
                Task(task_id, archive, *one)
                for one, (task_id, is_new) in zip(wanted, found, strict=True)
                if is_new
            )
            return len(rows), self.claims.take_new(connection, new) if request.claim else []

        return self.claims.keep(self.database.submit(work))

    def conclude_request(self, request: Request, code: str, **details: object) -> Future[int]:
        """Conclude the request, and every row with the same keys, without a study; see resolve_request."""
        ended = {"state": RequestState.CONCLUDED, "code": code, "details": json.dumps(details)}

        def work(connection: Connection) -> int:
            self.claims.end(connection, "row", request.row, request.claim)
            return len(_update_rows_with_keys(connection, put.CONCLUDE_WITH_KEYS, request, **ended))

        return self.database.submit(work)

    # -- tasks

    def waiting_tasks(self, now: float, limit: int) -> list[Task]:
        """Return tasks that can be started now, and no worker has claimed; see ``claims.take_tasks``."""
        return [make_task(row) for row in self.database.fetch_all(put.WAITING_TASKS, now=now, limit=limit)]

    def next_due(self) -> float | None:
        """Return the time of the first waiting task (POSIX; 0 for now), None if none waits for a worker."""
        rows = self.database.fetch_all(put.NEXT_DUE)
        return rows[0].not_before or 0.0 if rows else None

    def all_complete(self) -> bool:
        """Return True if every task is proved complete."""
        return not self.database.fetch_all(put.UNPROVED_TASK)

    def postpone_task(self, task_id: int, not_before: float, claim: int = 0) -> None:
        """Postpone a task to a POSIX time."""

        def work(connection: Connection) -> None:
            self.claims.end(connection, "task", task_id, claim)
            put.POSTPONE_TASK.run(connection, task_id=task_id, not_before=not_before)

        self.database.write(work)

    def record_round(
        self, task_id: int, attempts: Sequence[Attempt], claim: int = 0, *, continues: bool = False
    ) -> Future[None]:
        """Record the retrieval requests of one round with their results.

        ``continues``: they follow the recorded round without a pause, and count as one try with it. It is
        written with the next change: the task's end, or its postponement.
        """

        def work(connection: Connection) -> None:
            self.claims.require(connection, "task", task_id, claim)
            _add_round(connection, task_id, attempts, continues=continues)

        return self.database.submit_joining(work)

    def add_folders(self, task_id: int, paths: Collection[str]) -> Future[None]:
        """Record folders of an unfinished task; durable before an instance in them is acknowledged."""
        rows = [{"task_id": task_id, "path": path} for path in paths]
        return self.database.submit_joining(lambda c: put.ADD_FOLDER.run_many(c, rows), repeatable=True)

    def folders_of(self, task_id: int) -> list[str]:
        """Return the folders that may have instances of an unfinished task."""
        return [row.path for row in self.database.fetch_all(put.FOLDERS, task_id=task_id)]

    def unfinished_folders(self) -> list[tuple[Task, str]]:
        """Return the folders that may have instances of tasks without an outcome, each with its task."""
        return [(make_task(row), row.folder) for row in self.database.fetch_all(put.UNFINISHED_FOLDERS)]

    def stored_instances(self, study_uid: str) -> list[tuple[InstanceRef, str | None]]:
        """Return the instances of a study that an outcome counts as stored.

        Each has its path, None for the one that the template gives. Their files are durable.
        """
        rows = self.database.fetch_all(put.STORED_INSTANCES, study_uid=study_uid)
        return [
            (InstanceRef(study_uid, row.series_uid, row.sop_uid, row.sop_class or ""), row.path)
            for row in rows
        ]

    def forget_stored(self, task_id: int, since: float, comment: str, claim: int = 0) -> None:
        """Record that what the requests of a task since a POSIX time brought was lost, and why."""

        def work(connection: Connection) -> None:
            self.claims.require(connection, "task", task_id, claim)
            put.FORGET_STORED.run(connection, task_id=task_id, since=since, comment=comment)

        self.database.write(work)

    def conclude_task(
        self, task_id: int, result: TaskResult, claim: int = 0, audit: Work[object] = do_nothing
    ) -> Future[None]:
        """Conclude a task: store its outcome and its instances in one transaction, with the ``audit`` line.

        Callers wait for the future, which causes the transaction, and then report the outcome. It raises
        LedgerError if the task is not waiting.
        """
        outcome = {name: getattr(result, name) for name in _OUTCOME}
        outcome["details"] = json.dumps(dict(result.details))
        numbers: UidNumbers = {}

        def work(connection: Connection) -> None:
            audit(connection)
            self.claims.end(connection, "task", task_id, claim)
            not_waiting = LedgerError(f"task {task_id} is concluded already")
            put.CONCLUDE_TASK.require_one(connection, not_waiting, task_id=task_id, **outcome)
            if result.proved_at is not None:
                put.DELETE_FOLDERS.run(connection, task_id=task_id)
            numbers.update(replace_instances(connection, task_id, result.instances, self._uid_numbers))

        def on_done(done: Future[None]) -> None:
            if done.exception() is None:
                self._uid_numbers.update(numbers)

        concluded = self.database.submit_joining(work)
        concluded.add_done_callback(on_done)
        return concluded

    def add_late_instance(self, task_id: int, row: InstanceRow, folder: str) -> None:
        """Record an instance that arrived while its task was not in work.

        A task that was given up waits again, since the archive is sending after all. A task that was complete
        becomes unverified, since the archive's list was too short; the user may retry it.
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

    def task_history(self, task_id: int) -> TaskHistory:
        """Return what is known of a task when the work on it begins."""
        values = {"task_id": task_id}
        reads = (put.FIRST_ROW, values), (put.FRUITLESS_ROUNDS, values)
        ((first,), rounds) = self.database.read_pool.fetch_together(*reads)
        return TaskHistory(first.row or 0, {row.transport: row.rounds for row in rounds})

    def retry(self, codes: Collection[str]) -> int:
        """Let studies and rows with one of these codes wait again; return their number.

        Released studies and unusable rows stay as they are: without keys, a row would query for everything.
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
        """Return the task of a study, None if no row requests it or it is released."""
        rows = self.database.fetch_all(put.TASK_OF_STUDY, study_uid=study_uid)
        return make_task(rows[0]) if rows else None

    def first_row(self, task_id: int) -> int:
        """Return the number of the first row that requests a task, 0 if there is none."""
        return self.database.fetch_all(put.FIRST_ROW, task_id=task_id)[0].row or 0

    def cells_of(self, task_id: int) -> tuple[str, ...]:
        """Return the user's own columns of the first row that requests a task."""
        rows = self.database.fetch_all(put.CELLS, task_id=task_id)
        return tuple(json.loads(rows[0].cells)) if rows else ()


_COUNTS = ("series_count", "instance_count")
_OUTCOME = ("code", "expected", "stored", "size", "folder", "proved_at")


def _task_id(connection: Connection, values: Mapping[str, object], added: Any) -> tuple[int, bool]:
    """Return the id of the task that was to be added, and True if it is new; an unwanted one waits again."""
    task_id = new_id(added)
    if task_id is not None:
        return task_id, True
    names = ("archive", "study_uid", "selection")
    ((task_id,),) = put.TASK_ID.find(connection, **{name: values[name] for name in names})
    put.REACTIVATE_TASK.run(connection, task_id=task_id)
    put.ADD_COUNTS.run(connection, task_id=task_id, **{name: values[name] for name in _COUNTS})
    return task_id, False


def _update_rows_with_keys(
    connection: Connection, statement: CompiledStatement, request: Request, **values: object
) -> list[int]:
    """Update a waiting request and every row with the same keys; return the rows. Raises LedgerError."""
    keys = request.key_hash()
    found = put.WAITING_WITH_KEYS.find(connection, keys=keys)
    statement.run(connection, keys=keys, **values)
    rows: list[int] = [row for (row,) in found]
    if request.row not in rows:
        raise LedgerError(f"row {request.row} is not waiting any more")
    return rows


def write_metadata(connection: Connection, values: Mapping[str, str]) -> None:
    """Store facts about the job within a larger transaction."""
    rows = [{"name": name, "value": values[name]} for name in sorted(values)]  # in one order, for their locks
    connection.execute(upsert(job, rows, connection.dialect))


def _add_round(
    connection: Connection, task_id: int, attempts: Sequence[Attempt], *, continues: bool = False
) -> None:
    step = 0 if continues else 1
    for one in attempts:
        values = {name: getattr(one, name) for name in Attempt.__slots__}
        put.ADD_ATTEMPT.run(connection, task_id=task_id, this_task=task_id, step=step, **values)
        step = 0


def reopen_tasks(connection: Connection, task_ids: Iterable[int]) -> None:
    """Let concluded tasks wait again, without an outcome and with all their retries."""
    now = time.time()
    for task_id in task_ids:
        _add_round(connection, task_id, [Attempt(now, now, "", 0, 0, RETRIED, None, "")])
        reopened = update(tasks).where(tasks.c.id == task_id)
        connection.execute(
            reopened.values(state=TaskState.WAITING, not_before=None, code=None, details=None, proved_at=None)
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
