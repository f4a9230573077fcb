"""The statements of the hot path."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    union_all,
    update,
)

from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.dialects import InsertNew
from dicom_quarry.ledger.schema import (
    OF_ANY_ARCHIVE,
    attempts,
    claims,
    folders,
    instances,
    job,
    request_tasks,
    requests,
    series,
    tasks,
    uids,
)
from dicom_quarry.model import RequestState, Study, TaskState

#: Verdict of the attempt that marks a retry of a concluded task: rounds before it do not count as failures.
RETRIED = "retried"

_task_id: BindParameter[int] = bindparam("task_id")
_limit: BindParameter[int] = bindparam("limit")

METADATA = CompiledStatement(select(job.c.name, job.c.value))

# -- requests


def _unclaimed(kind: str, item: Column[int]) -> ColumnElement[bool]:
    """Return the condition that no worker works on a row or a task. The few claims cost little."""
    return ~exists().where(claims.c.kind == kind, claims.c.item == item)


waiting_requests = (
    select(requests)
    .where(
        requests.c.state == RequestState.WAITING,
        requests.c.same_as.is_(None),
        _unclaimed("row", requests.c.row),
    )
    .order_by(requests.c.row)
    .limit(_limit)
)

#: The next rows to resolve, in their order; of rows with the same keys the first alone.
WAITING_REQUESTS = CompiledStatement(waiting_requests)

_same_keys = and_(requests.c.identity == bindparam("keys"), requests.c.state == RequestState.WAITING)
WAITING_WITH_KEYS = CompiledStatement(select(requests.c.row).where(_same_keys))
CONCLUDE_WITH_KEYS = CompiledStatement(update(requests).where(_same_keys), "state", "code", "details")
RESOLVE_WITH_KEYS = CompiledStatement(update(requests).where(_same_keys), "state", "note")


# -- tasks

#: The columns that make a Task.
TASK_COLUMNS = (tasks.c.id, tasks.c.archive, tasks.c.selection, *(tasks.c[name] for name in Study.__slots__))

ADD_TASK = CompiledStatement(InsertNew(tasks, tasks.c.id), "archive", "selection", "state", *Study.__slots__)
TASK_ID = CompiledStatement(
    select(tasks.c.id).where(
        tasks.c.archive == bindparam("archive"),
        tasks.c.study_uid == bindparam("study_uid"),
        tasks.c.selection == bindparam("selection"),
    )
)
REACTIVATE_TASK = CompiledStatement(
    update(tasks)
    .where(tasks.c.id == _task_id, tasks.c.state == TaskState.UNWANTED)
    .values(state=TaskState.WAITING)
)
#: The counts of a task that has none.
ADD_COUNTS = CompiledStatement(
    update(tasks).where(tasks.c.id == _task_id, tasks.c.instance_count.is_(None)),
    *("series_count", "instance_count"),
)
LINK_TASK = CompiledStatement(InsertNew(request_tasks), "row", "task_id")


# Not EXISTS: of that PostgreSQL makes a join, which reads all of the table.
_first_row = select(request_tasks.c.row).where(request_tasks.c.task_id == tasks.c.id).limit(1)
_is_requested = _first_row.scalar_subquery().is_not(None)

_of_any_archive: ColumnElement[bool] = literal_column(f"tasks.{OF_ANY_ARCHIVE}")


def _wanted(query: Select[Any], archive: ColumnElement[bool] = _of_any_archive) -> Select[Any]:
    """Limit a query to waiting tasks that a row requests, and no worker has. Nearly all are such tasks.

    They are found in the order of an index: PostgreSQL takes it for the order of all of its columns alone.
    """
    # Not a parameter: with one, neither database takes an index of waiting tasks alone.
    is_waiting = tasks.c.state == literal_column(f"'{TaskState.WAITING}'")
    found = query.where(is_waiting, archive, _is_requested, _unclaimed("task", tasks.c.id))
    return found.order_by(tasks.c.not_before, tasks.c.id)


def startable_tasks(archive: ColumnElement[bool] = _of_any_archive) -> tuple[Select[Any], Select[Any]]:
    """Return the queries for postponed tasks that are due, and for the others, which can be started, too.

    Each is a range of an index: one query would sort all waiting tasks.
    """
    tasks_in_order = _wanted(select(*TASK_COLUMNS), archive)
    due = tasks_in_order.where(tasks.c.not_before <= bindparam("now"))
    return due.limit(_limit), tasks_in_order.where(tasks.c.not_before.is_(None)).limit(_limit)


#: Tasks that can be started now: first postponed ones that are due, then the others.
WAITING_TASKS = CompiledStatement(
    union_all(*(select(one.subquery()) for one in startable_tasks())).limit(_limit)
)

#: The archives of waiting tasks.
WAITING_ARCHIVES = CompiledStatement(
    select(tasks.c.archive).where(tasks.c.state == TaskState.WAITING, _is_requested).distinct()
)

#: The time of the first waiting task that no worker has; no row if no such task waits.
_first_fresh = _wanted(select(tasks.c.not_before)).where(tasks.c.not_before.is_(None)).limit(1)
_first_later = _wanted(select(tasks.c.not_before)).where(tasks.c.not_before.is_not(None)).limit(1)
NEXT_DUE = CompiledStatement(
    union_all(select(_first_fresh.subquery()), select(_first_later.subquery())).limit(1)
)

#: One task that is not proved complete.
UNPROVED_TASK = CompiledStatement(select(tasks.c.id).where(tasks.c.proved_at.is_(None)).limit(1))

TASK_OF_STUDY = CompiledStatement(
    select(*TASK_COLUMNS)
    .where(tasks.c.study_uid == bindparam("study_uid"), tasks.c.released_at.is_(None))
    .limit(1)
)
_first_row = select(func.min(request_tasks.c.row).label("row")).where(request_tasks.c.task_id == _task_id)
FIRST_ROW = CompiledStatement(_first_row)
CELLS = CompiledStatement(select(requests.c.cells).where(requests.c.row == _first_row.scalar_subquery()))

ROWS_OF_TASK = CompiledStatement(
    select(request_tasks.c.row).where(request_tasks.c.task_id == _task_id).order_by(request_tasks.c.row)
)

POSTPONE_TASK = CompiledStatement(update(tasks).where(tasks.c.id == _task_id), "not_before")

CONCLUDE_TASK = CompiledStatement(
    update(tasks)
    .where(tasks.c.id == _task_id, tasks.c.state == TaskState.WAITING)
    .values(state=TaskState.CONCLUDED, not_before=None),
    *("code", "details", "expected", "stored", "size", "folder", "proved_at"),
)

ADD_FOLDER = CompiledStatement(InsertNew(folders), "task_id", "path")
FOLDERS = CompiledStatement(select(folders.c.path).where(folders.c.task_id == _task_id))
DELETE_FOLDERS = CompiledStatement(delete(folders).where(folders.c.task_id == _task_id))

#: The instances of a study that were made durable with an outcome.
STORED_INSTANCES = CompiledStatement(
    select(series.c.series_uid, instances.c.sop_uid, uids.c.uid.label("sop_class"), instances.c.path)
    .join_from(tasks, instances, instances.c.task_id == tasks.c.id)
    .join(series, series.c.id == instances.c.series_id)
    .outerjoin(uids, uids.c.id == instances.c.class_id)
    .where(tasks.c.study_uid == bindparam("study_uid"), instances.c.digest.is_not(None))
)

#: The folders of tasks without an outcome.
UNFINISHED_FOLDERS = CompiledStatement(
    select(*TASK_COLUMNS, folders.c.path.label("folder"))
    .join_from(folders, tasks, tasks.c.id == folders.c.task_id)
    .where(tasks.c.state != TaskState.CONCLUDED)
    .order_by(folders.c.task_id, folders.c.path)
)

# -- attempts

_of_task = attempts.c.task_id == _task_id
#: An attempt ``step`` rounds behind the last one of its task.
ADD_ATTEMPT = CompiledStatement(
    insert(attempts).values(
        round=select(func.coalesce(func.max(attempts.c.round), 0) + bindparam("step", type_=BigInteger()))
        .where(attempts.c.task_id == bindparam("this_task"))
        .scalar_subquery()
    ),
    *(one.name for one in attempts.c if one.name not in ("id", "round")),
)

#: What the latest rounds of a task brought was lost.
FORGET_STORED = CompiledStatement(
    update(attempts)
    .where(_of_task, attempts.c.started >= bindparam("since"), attempts.c.newly_stored > 0)
    .values(newly_stored=0),
    "comment",
)

_is_fruitful = or_(attempts.c.newly_stored > 0, attempts.c.verdict == RETRIED)
_last_fruitful_round = select(func.coalesce(func.max(attempts.c.round), 0)).where(_of_task, _is_fruitful)

#: The number of latest rounds without a new instance, by transport.
FRUITLESS_ROUNDS = CompiledStatement(
    select(attempts.c.transport, func.count(attempts.c.round.distinct()).label("rounds"))
    .where(_of_task, attempts.c.round > _last_fruitful_round.scalar_subquery())
    .group_by(attempts.c.transport)
)

# -- instances

DELETE_INSTANCES = CompiledStatement(delete(instances).where(instances.c.task_id == _task_id))
ADD_INSTANCE = CompiledStatement(insert(instances))

ADD_SERIES = CompiledStatement(InsertNew(series, series.c.id), "task_id", "series_uid")
SERIES_ID = CompiledStatement(
    select(series.c.id).where(series.c.task_id == _task_id, series.c.series_uid == bindparam("series_uid"))
)

UID_NUMBER = CompiledStatement(select(uids.c.id).where(uids.c.uid == bindparam("uid")))
ADD_UID = CompiledStatement(InsertNew(uids, uids.c.id), "uid")
