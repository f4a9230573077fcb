"""The user's table in the ledger: entered once, and exchanged for a newer one with ``--update``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from dicom_quarry.ledger.schema import CONCLUDED, WAITING, request_tasks, requests
from dicom_quarry.model import Request

_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class CohortChange:
    """What a newer table changed: rows by their keys, wherever they stand in it."""

    added: int
    dropped: int
    changed: int


def enter_rows(connection: Connection, rows: Iterable[Request]) -> None:
    """Enter rows that nothing is known of yet; a row with the keys of an earlier one names it."""
    first: dict[bytes, int] = {}
    values: list[dict[str, object]] = []
    for request in rows:
        values.append(_values(request, first))
        if len(values) == _BATCH:
            connection.execute(insert(requests), values)
            values = []
    if values:
        connection.execute(insert(requests), values)


def exchange_rows(connection: Connection, rows: Iterable[Request]) -> CohortChange:
    """Take a newer table: what is known of a row goes with its keys.

    A study that no row asks for any more is not fetched; what is here of it stays.
    """
    old = {row.row: row for row in connection.execute(select(requests))}
    links: dict[bytes, set[int]] = {}
    for row, task_id in connection.execute(select(request_tasks.c.row, request_tasks.c.task_id)):
        links.setdefault(old[row].identity, set()).add(task_id)
    connection.execute(delete(request_tasks))
    connection.execute(delete(requests))
    known = {row.identity: row for row in old.values() if row.code != "row_unusable"}
    first: dict[bytes, int] = {}
    identities: dict[int, bytes] = {}
    for request in rows:
        values = _values(request, first)
        identities[request.row] = request.identity()
        before = known.get(request.identity())
        if before is not None and not request.problem:
            values |= {"state": before.state, "code": before.code, "details": before.details}
        connection.execute(insert(requests), [values])
        linked = links.get(request.identity(), ())
        if linked and not request.problem:
            connection.execute(
                insert(request_tasks), [{"row": request.row, "task_id": task_id} for task_id in linked]
            )
    return _difference({row: request.identity for row, request in old.items()}, identities)


def _values(request: Request, first: dict[bytes, int]) -> dict[str, object]:
    identity = request.identity()
    same_as = request.row if request.problem else first.setdefault(identity, request.row)
    return {
        "row": request.row,
        "line": request.line,
        "identity": identity,
        "keys": json.dumps(request.keys),
        "cells": json.dumps(request.cells),
        "state": CONCLUDED if request.problem else WAITING,
        "code": "row_unusable" if request.problem else None,
        "details": json.dumps({"problem": request.problem}) if request.problem else None,
        "same_as": same_as if same_as != request.row else None,
    }


def _difference(old: dict[int, bytes], new: dict[int, bytes]) -> CohortChange:
    """Rows with the same keys are counted one by one: one of three may have gone."""
    gone = Counter(old.values()) - Counter(new.values())
    come = Counter(new.values()) - Counter(old.values())
    changed = 0
    for row in old.keys() & new.keys():
        if gone[old[row]] and come[new[row]]:
            gone[old[row]] -= 1
            come[new[row]] -= 1
            changed += 1
    return CohortChange(come.total(), gone.total(), changed)
