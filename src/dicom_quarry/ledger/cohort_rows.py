"""The rows of the user's table in the ledger: inserted once, and replaced with ``--update``.

A table may have millions of rows. They are inserted in batches, and the database compares them with each
other. Temporary tables keep the keys and states of the old rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    delete,
    func,
    insert,
    literal,
    select,
    union_all,
    update,
)

from dicom_quarry.ledger.backend import driver_connection
from dicom_quarry.ledger.schema import claims, queries, request_tasks, requests, tasks
from dicom_quarry.model import Request, RequestState, TaskState

_BATCH = 10_000

_UNUSABLE = "row_unusable"

_temporary = MetaData()

#: The rows of the old table.
_old_requests = Table(
    "old_requests",
    _temporary,
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("identity", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("code", Text),
    Column("details", Text),
    Index("old_requests_by_identity", "identity"),
    prefixes=["TEMPORARY"],
)

#: The tasks of the old rows, by their keys.
_old_request_tasks = Table(
    "old_request_tasks",
    _temporary,
    Column("identity", LargeBinary, nullable=False),
    Column("task_id", Integer, nullable=False),
    Index("old_request_tasks_by_identity", "identity"),
    prefixes=["TEMPORARY"],
)


@dataclass(frozen=True, slots=True)
class CohortChange:
    """The difference between an old and a new table. Rows are compared by their keys, not by their place."""

    added: int
    removed: int
    changed: int


def insert_rows(connection: Connection, rows: Iterable[Request]) -> None:
    """Insert rows in their first state; a row with the keys of an earlier one refers to it."""
    by_identity = next(one for one in requests.indexes if one.name == "requests_by_identity")
    # Digests come in random order. An index that is made at the end takes a fraction of the time, and of the
    # write-ahead log.
    by_identity.drop(connection)
    values = map(_values, rows)
    if connection.dialect.name == "postgresql":
        _copy(connection, values)
    else:
        while batch := list(islice(values, _BATCH)):
            connection.execute(insert(requests), batch)
    by_identity.create(connection)
    _link_duplicates(connection)


def _copy(connection: Connection, rows: Iterator[dict[str, object]]) -> None:
    """Insert rows by COPY, which takes PostgreSQL a tenth of the time of as many INSERTs."""
    first = next(rows, None)
    if first is None:
        return
    names = list(first)
    statement = f"COPY requests ({', '.join(names)}) FROM STDIN"
    with driver_connection(connection).cursor().copy(statement) as copy:
        for row in chain([first], rows):
            copy.write_row([row[name] for name in names])
    # Without statistics the server would read all of them for the next few.
    driver_connection(connection).execute("ANALYZE requests")


def replace_rows(connection: Connection, rows: Iterable[Request]) -> CohortChange:
    """Replace the table by a newer one; a row keeps its state, its tasks and its queries by its keys.

    A study that no row requests any more is not fetched; its stored files stay.
    """
    # What a worker finds for a row by its number now would be another row's.
    connection.execute(delete(claims).where(claims.c.kind == "row"))
    _save_old_rows(connection)
    insert_rows(connection, rows)
    _restore_states(connection)
    _renumber_queries(connection)
    change = _count_changes(connection)
    _temporary.drop_all(connection)
    return change


def _values(request: Request) -> dict[str, object]:
    return {
        "row": request.row,
        "line": request.line,
        "identity": request.key_hash(),
        "keys": json.dumps(request.keys),
        "alternatives": json.dumps(request.alternatives) if request.alternatives else None,
        "note": request.note,
        "cells": json.dumps(request.cells),
        "state": RequestState.CONCLUDED if request.problem else RequestState.WAITING,
        "code": _UNUSABLE if request.problem else None,
        "details": json.dumps({"problem": request.problem}) if request.problem else None,
    }


def _link_duplicates(connection: Connection) -> None:
    """Let every usable row refer to the first row with its keys, if that is another row."""
    usable = requests.c.code.is_(None)
    several = (
        select(requests.c.identity, func.min(requests.c.row).label("first"))
        .where(usable)
        .group_by(requests.c.identity)
        .having(func.count() > 1)
        .subquery()
    )
    connection.execute(
        update(requests)
        .where(usable, requests.c.identity == several.c.identity, requests.c.row > several.c.first)
        .values(same_as=several.c.first)
    )


def _save_old_rows(connection: Connection) -> None:
    _temporary.create_all(connection)
    old = [requests.c[column.name] for column in _old_requests.c]
    connection.execute(insert(_old_requests).from_select([column.name for column in old], select(*old)))
    linked = select(requests.c.identity, request_tasks.c.task_id).distinct()
    connection.execute(
        insert(_old_request_tasks).from_select(
            ["identity", "task_id"], linked.join(requests, requests.c.row == request_tasks.c.row)
        )
    )
    connection.execute(delete(request_tasks))
    connection.execute(delete(requests))


def _restore_states(connection: Connection) -> None:
    """Give each usable row the tasks and the state that an old usable row with its keys had."""
    usable = requests.c.state == RequestState.WAITING
    connection.execute(
        insert(request_tasks).from_select(
            ["row", "task_id"],
            select(requests.c.row, _old_request_tasks.c.task_id)
            .join(_old_request_tasks, _old_request_tasks.c.identity == requests.c.identity)
            .where(usable)
            .order_by(requests.c.row, _old_request_tasks.c.task_id),
        )
    )
    known = (
        select(_old_requests)
        .where(
            _old_requests.c.state != RequestState.WAITING, _old_requests.c.code.is_distinct_from(_UNUSABLE)
        )
        .subquery()
    )
    connection.execute(
        update(requests)
        .where(usable, requests.c.identity == known.c.identity)
        .values(state=known.c.state, code=known.c.code, details=known.c.details)
    )
    requested = select(request_tasks.c.task_id)
    unwanted = update(tasks).where(tasks.c.state == TaskState.WAITING, tasks.c.id.not_in(requested))
    connection.execute(unwanted.values(state=TaskState.UNWANTED))


def _renumber_queries(connection: Connection) -> None:
    """Assign logged queries to the first row that has the keys now; delete those of rows that are gone."""
    first = (
        select(func.min(requests.c.row))
        .join(_old_requests, _old_requests.c.identity == requests.c.identity)
        .where(_old_requests.c.row == queries.c.row)
        .scalar_subquery()
    )
    connection.execute(update(queries).where(queries.c.row.is_not(None)).values(row=first))
    connection.execute(delete(queries).where(queries.c.row.is_(None), queries.c.task_id.is_(None)))


def _count_changes(connection: Connection) -> CohortChange:
    """Count added, removed and changed rows; each of several rows with the same keys counts."""
    counted = union_all(
        select(requests.c.identity, literal(1).label("one")), select(_old_requests.c.identity, literal(-1))
    ).subquery()
    more = func.sum(counted.c.one)
    uneven = select(counted.c.identity, more).group_by(counted.c.identity).having(more != 0)
    removed: Counter[bytes] = Counter()
    added: Counter[bytes] = Counter()
    for identity, balance in connection.execute(uneven):
        (added if balance > 0 else removed)[identity] = abs(balance)
    changed = 0
    for before, after in _changed_keys(connection):
        if removed[before] and added[after]:
            removed[before] -= 1
            added[after] -= 1
            changed += 1
    return CohortChange(added.total(), removed.total(), changed)


def _changed_keys(connection: Connection) -> Iterator[tuple[bytes, bytes]]:
    """Yield the old and the new identity of every row number whose identity changed."""
    query = (
        select(_old_requests.c.identity.label("before"), requests.c.identity.label("after"))
        .join(requests, requests.c.row == _old_requests.c.row)
        .where(requests.c.identity != _old_requests.c.identity)
        .order_by(_old_requests.c.row)
        .execution_options(yield_per=1000)
    )
    for found in connection.execute(query):
        yield found.before, found.after
