"""Read-only access to a plan's ledger: the rows with the studies that were found for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import func, select

from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.ledger.records import study_of
from dicom_quarry.ledger.row_statements import ROWS_WITH_KEYS
from dicom_quarry.ledger.schema import request_tasks, tasks
from dicom_quarry.model import Outcome, Study
from dicom_quarry.outcomes import make_outcome


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row of the user's table with the archive and study of each task, or else with its outcome.

    ``keys`` are the keys that the row is searched by. ``note`` describes values that were rewritten.
    ``cells`` are the user's, unchanged.
    """

    row: int
    line: int
    same_as_row: int | None
    studies: tuple[tuple[str, Study], ...]
    outcome: Outcome | None = None
    note: str = ""
    keys: tuple[tuple[str, str], ...] = ()
    cells: tuple[str, ...] = ()

    def key(self, keyword: str) -> str:
        """Return the value that the row has for a keyword, empty if it has none."""
        return dict(self.keys).get(keyword, "")


class PlanReader(LedgerReader):
    """Reads a plan's ledger."""

    def planned_rows(self) -> Iterator[PlannedRow]:
        """Yield every row of the user's table, in its order."""
        for _, group in groupby(self._read_pool.stream(ROWS_WITH_KEYS), key=lambda row: row.row):
            yield _planned_row(list(group))

    def found_studies(self) -> Iterator[tuple[str, Study]]:
        """Yield every study that a row requests, once, with its archive."""
        is_requested = tasks.c.id.in_(select(request_tasks.c.task_id))
        # A study has several tasks where rows request different series of it.
        first = select(func.min(tasks.c.id)).where(is_requested).group_by(tasks.c.archive, tasks.c.study_uid)
        query = select(tasks).where(tasks.c.id.in_(first)).order_by(tasks.c.id)
        with self._engine.connect() as connection:
            for row in connection.execution_options(yield_per=1000).execute(query):
                yield row.archive, study_of(row)


def _planned_row(group: list[Any]) -> PlannedRow:
    head = group[0]
    studies = tuple((row.archive, study_of(row)) for row in group if row.id is not None)
    ended = None
    if head.row_code:
        ended = make_outcome(head.row_code, **json.loads(head.row_details))
    elif not studies:
        ended = make_outcome("pending")
    keys = tuple((keyword, value) for keyword, value in json.loads(head.row_keys))
    cells = tuple(json.loads(head.cells))
    return PlannedRow(head.row, head.line, head.same_as, studies, ended, head.note, keys, cells)
