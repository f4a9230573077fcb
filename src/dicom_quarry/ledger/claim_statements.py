"""The statements that take, find and end claims."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Select,
    and_,
    bindparam,
    delete,
    insert,
    literal,
    select,
    union_all,
)

from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.dialects import InsertNew
from dicom_quarry.ledger.schema import claims, requests, tasks
from dicom_quarry.ledger.statements import TASK_COLUMNS, startable_tasks, waiting_requests

_claim = [bindparam(name, type_=claims.c[name].type) for name in ("worker", "number", "claimed_at")]


def claim_all(kind: str, source: Select[Any], item: str) -> CompiledStatement:
    """Return the statement that claims the rows or tasks of a query, except those that another has.

    PostgreSQL leaves out what another transaction is just claiming.
    """
    found = source.subquery()
    # SQLite needs the condition before ON CONFLICT.
    chosen = select(literal(kind), found.c[item], *_claim).where(found.c[item].is_not(None))
    return CompiledStatement(InsertNew(claims, source=chosen))


def _claim_tasks(due: Select[Any], fresh: Select[Any]) -> CompiledStatement:
    """Return the statement that claims tasks: first postponed ones that are due, then the others."""
    locked = [select(one.with_for_update(skip_locked=True, of=tasks).subquery()) for one in (due, fresh)]
    startable = union_all(*locked).limit(bindparam("limit"))
    return claim_all("task", select(startable.subquery()), "id")


_of_archive = tasks.c.archive == bindparam("archive", type_=tasks.c.archive.type)
CLAIM_TASKS = _claim_tasks(*startable_tasks())
CLAIM_TASKS_OF_ARCHIVE = _claim_tasks(*startable_tasks(_of_archive))
CLAIM_REQUESTS = claim_all("row", waiting_requests.with_for_update(skip_locked=True, of=requests), "row")
#: Claims a task that was made in the same transaction.
CLAIM_TASK = CompiledStatement(
    insert(claims).values(kind="task"), "kind", "item", "worker", "number", "claimed_at"
)

_of_claim = and_(claims.c.worker == bindparam("worker"), claims.c.number == bindparam("number"))
_same_claim = and_(_of_claim, claims.c.kind == bindparam("kind"), claims.c.item == bindparam("item"))
CLAIMED_TASKS = CompiledStatement(
    select(*TASK_COLUMNS)
    .join_from(claims, tasks, tasks.c.id == claims.c.item)
    .where(claims.c.kind == "task", _of_claim)
    .order_by(tasks.c.not_before.nulls_last(), tasks.c.id)
)
CLAIMED_REQUESTS = CompiledStatement(
    select(requests)
    .join_from(claims, requests, requests.c.row == claims.c.item)
    .where(claims.c.kind == "row", _of_claim)
    .order_by(requests.c.row)
)
END_CLAIM = CompiledStatement(delete(claims).where(_same_claim))
FIND_CLAIM = CompiledStatement(select(claims.c.item).where(_same_claim))
CLAIMING_WORKERS = CompiledStatement(select(claims.c.worker).distinct())
