"""What a plan's ledger tells: rows with the studies that were found for them. Reads only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Row, func, select

from dicom_quarry.ledger.ledger import study_of
from dicom_quarry.ledger.reading import Reader
from dicom_quarry.ledger.schema import request_tasks, requests, tasks
from dicom_quarry.model import Outcome, Study
from dicom_quarry.outcomes import outcome


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row of the user's table: the studies found for it, by archive; or, without any, its outcome.

    ``note`` tells which of its values were rewritten.
    """

    row: int
    line: int
    same_as_row: int | None
    studies: tuple[tuple[str, Study], ...]
    outcome: Outcome | None = None
    note: str = ""


class PlanReader(Reader):
    """Reads a plan's ledger."""

    def planned(self) -> Iterator[PlannedRow]:
        """Every row of the user's table, in its order."""
        query = (
            select(
                requests.c.row,
                requests.c.line,
                requests.c.same_as,
                requests.c.note,
                requests.c.code.label("row_code"),
                requests.c.details.label("row_details"),
                *tasks.c,
            )
            .select_from(requests)
            .outerjoin(request_tasks, request_tasks.c.row == requests.c.row)
            .outerjoin(tasks, tasks.c.id == request_tasks.c.task_id)
            .order_by(requests.c.row, tasks.c.id)
        )
        with self._engine.connect() as connection:
            found = connection.execution_options(yield_per=1000).execute(query)
            for _, group in groupby(found, key=lambda row: row.row):
                yield _planned_row(list(group))

    def found(self) -> Iterator[tuple[str, Study]]:
        """Every study that a row asks for, once, with its archive."""
        asked_for = tasks.c.id.in_(select(request_tasks.c.task_id))
        # Several rows may ask for several series of it.
        first = select(func.min(tasks.c.id)).where(asked_for).group_by(tasks.c.archive, tasks.c.study_uid)
        query = select(tasks).where(tasks.c.id.in_(first)).order_by(tasks.c.id)
        with self._engine.connect() as connection:
            for row in connection.execution_options(yield_per=1000).execute(query):
                yield row.archive, study_of(row)


def _planned_row(group: list[Row[Any]]) -> PlannedRow:
    head = group[0]
    studies = tuple((row.archive, study_of(row)) for row in group if row.id is not None)
    ended = None
    if head.row_code:
        ended = outcome(head.row_code, **json.loads(head.row_details))
    elif not studies:
        ended = outcome("pending")
    return PlannedRow(head.row, head.line, head.same_as, studies, ended, head.note)
