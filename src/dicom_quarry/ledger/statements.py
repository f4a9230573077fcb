"""The statements that a job puts for every row and every study, by what they do (see prepared.py).

No statement says RETURNING: SQLite has it since 3.35, and the Python 3.11 of RHEL 9 comes with 3.34.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BindParameter,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from dicom_quarry.ledger.compiled_statements import CompiledStatement
from dicom_quarry.ledger.schema import (
    CONCLUDED,
    UNWANTED,
    WAITING,
    attempts,
    folders,
    instances,
    job,
    request_tasks,
    requests,
    series,
    tasks,
    uids,
)
from dicom_quarry.model import Study

#: Stands among the attempts where a task that had ended was taken up again: patience begins anew.
RETRIED = "retried"

_task_id: BindParameter[int] = bindparam("task_id")
_limit: BindParameter[int] = bindparam("limit")

METADATA = CompiledStatement(select(job.c.name, job.c.value))

# -- requests

#: The next rows to resolve, in their order; of rows with the same keys the first alone.
WAITING_REQUESTS = CompiledStatement(
    select(requests)
    .where(requests.c.state == WAITING, requests.c.same_as.is_(None))
    .order_by(requests.c.row)
    .limit(_limit)
)

_same_keys = and_(requests.c.identity == bindparam("keys"), requests.c.state == WAITING)
WAITING_WITH_KEYS = CompiledStatement(select(requests.c.row).where(_same_keys))
CONCLUDE_WITH_KEYS = CompiledStatement(update(requests).where(_same_keys), "state", "code", "details")
RESOLVE_WITH_KEYS = CompiledStatement(update(requests).where(_same_keys), "state", "note")

CELLS = CompiledStatement(select(requests.c.cells).where(requests.c.row == bindparam("row")))

# -- tasks

#: What a task is made of.
TASK_COLUMNS = (tasks.c.id, tasks.c.archive, tasks.c.selection, *(tasks.c[name] for name in Study.__slots__))

ADD_TASK = CompiledStatement(
    upsert(tasks).on_conflict_do_nothing(), "archive", "selection", "state", *Study.__slots__
)
TASK_ID = CompiledStatement(
    select(tasks.c.id).where(
        tasks.c.archive == bindparam("archive"),
        tasks.c.study_uid == bindparam("study_uid"),
        tasks.c.selection == bindparam("selection"),
    )
)
REACTIVATE_TASK = CompiledStatement(
    update(tasks).where(tasks.c.id == _task_id, tasks.c.state == UNWANTED).values(state=WAITING)
)
LINK_TASK = CompiledStatement(upsert(request_tasks).on_conflict_do_nothing(), "row", "task_id")


def _wanted(query: Select[Any]) -> Select[Any]:
    """Of the tasks that wait those that a row asks for; there are hardly others, so looking costs little."""
    return query.where(tasks.c.state == WAITING, exists().where(request_tasks.c.task_id == tasks.c.id))


# Two questions, each a range of the index: as one they would sort all that waits.
_due = _wanted(select(*TASK_COLUMNS)).where(tasks.c.not_before <= bindparam("now"))
_due = _due.order_by(tasks.c.not_before, tasks.c.id).limit(_limit)
_fresh = _wanted(select(*TASK_COLUMNS)).where(tasks.c.not_before.is_(None)).order_by(tasks.c.id).limit(_limit)

#: Tasks that can be worked on now: those whose time has come, then those that were never put off.
WAITING_TASKS = CompiledStatement(union_all(select(_due.subquery()), select(_fresh.subquery())).limit(_limit))

#: When the task that waits and is the first to be tried may be; none if none waits.
NEXT_DUE = CompiledStatement(
    _wanted(select(tasks.c.not_before)).order_by(tasks.c.not_before.nulls_first(), tasks.c.id).limit(1)
)

#: One task of which something is still expected.
UNPROVED_TASK = CompiledStatement(select(tasks.c.id).where(tasks.c.proved_at.is_(None)).limit(1))

TASK_OF_STUDY = CompiledStatement(
    select(*TASK_COLUMNS)
    .where(tasks.c.study_uid == bindparam("study_uid"), tasks.c.released_at.is_(None))
    .limit(1)
)
FIRST_ROW = CompiledStatement(
    select(func.min(request_tasks.c.row).label("row")).where(request_tasks.c.task_id == _task_id)
)

ROWS_OF_TASK = CompiledStatement(
    select(request_tasks.c.row).where(request_tasks.c.task_id == _task_id).order_by(request_tasks.c.row)
)

POSTPONE_TASK = CompiledStatement(update(tasks).where(tasks.c.id == _task_id), "not_before")

CONCLUDE_TASK = CompiledStatement(
    update(tasks)
    .where(tasks.c.id == _task_id, tasks.c.state == WAITING)
    .values(state=CONCLUDED, not_before=None),
    *("code", "details", "expected", "stored", "size", "folder", "proved_at"),
)

ADD_FOLDER = CompiledStatement(upsert(folders).on_conflict_do_nothing(), "task_id", "path")
FOLDERS = CompiledStatement(select(folders.c.path).where(folders.c.task_id == _task_id))
DELETE_FOLDERS = CompiledStatement(delete(folders).where(folders.c.task_id == _task_id))

# -- attempts

_of_task = attempts.c.task_id == _task_id
LAST_ROUND = CompiledStatement(select(func.coalesce(func.max(attempts.c.round), 0)).where(_of_task))
ADD_ATTEMPT = CompiledStatement(insert(attempts), *(one.name for one in attempts.c if not one.primary_key))

_is_fruitful = or_(attempts.c.newly_stored > 0, attempts.c.verdict == RETRIED)
_last_fruitful_round = select(func.coalesce(func.max(attempts.c.round), 0)).where(_of_task, _is_fruitful)

#: How many rounds in a row, by road, have brought nothing.
FRUITLESS_ROUNDS = CompiledStatement(
    select(attempts.c.transport, func.count(attempts.c.round.distinct()).label("rounds"))
    .where(_of_task, attempts.c.round > _last_fruitful_round.scalar_subquery())
    .group_by(attempts.c.transport)
)

# -- instances

DELETE_INSTANCES = CompiledStatement(delete(instances).where(instances.c.task_id == _task_id))
ADD_INSTANCE = CompiledStatement(insert(instances))

ADD_SERIES = CompiledStatement(upsert(series).on_conflict_do_nothing(), "task_id", "series_uid")
SERIES_ID = CompiledStatement(
    select(series.c.id).where(series.c.task_id == _task_id, series.c.series_uid == bindparam("series_uid"))
)

UID_NUMBER = CompiledStatement(select(uids.c.id).where(uids.c.uid == bindparam("uid")))
ADD_UID = CompiledStatement(insert(uids), "uid")
