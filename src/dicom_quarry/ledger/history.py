"""The history of one row or one study, for ``quarry explain``. Reads only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, func, select

from dicom_quarry.ledger.instances import instances_of
from dicom_quarry.ledger.ledger import Attempt
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.query_log import Postponement, QueryLogEntry
from dicom_quarry.ledger.reader import LedgerReader, refusal_reasons
from dicom_quarry.ledger.schema import (
    attempts,
    instances,
    postponements,
    queries,
    request_tasks,
    requests,
    tasks,
)
from dicom_quarry.ledger.statements import RETRIED
from dicom_quarry.ledger.views import RowView, StudyView
from dicom_quarry.model import InstanceRef

#: Most missing instances that a history names; missing.csv has all.
MAX_NAMED = 20

Keys = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RowHistory:
    """A row, its keys, the ``alternatives`` that rewrites made of them, and the queries for it."""

    view: RowView
    keys: Keys
    alternatives: tuple[Keys, ...]
    note: str
    queries: tuple[QueryLogEntry, ...]


@dataclass(frozen=True, slots=True)
class StudyHistory:
    """A task with its queries, rounds of retrieval requests and postponements, each in the order of time.

    ``retried_at`` are the POSIX times of retries. ``missing`` has the first of ``missing_count`` instances,
    each with the reason if our own receiver refused it; ``mismatch_paths`` the first files in the
    mismatch folder.
    """

    view: StudyView
    proved_at: float | None
    queries: tuple[QueryLogEntry, ...]
    rounds: tuple[tuple[int, Attempt], ...]
    retried_at: tuple[float, ...]
    postponements: tuple[Postponement, ...]
    missing_count: int
    missing: tuple[tuple[InstanceRef, str], ...]
    mismatch_paths: tuple[str, ...]


class HistoryReader(LedgerReader):
    """Reads the history of one row, or one study, at a time.

    ``mismatch_dir`` is the folder of instances whose identity differs from the archive's answer.
    """

    def __init__(self, location: LedgerLocation, mismatch_dir: str) -> None:
        super().__init__(location)
        self._mismatch_dir = mismatch_dir

    def row_history(self, number: int) -> RowHistory | None:
        """Return the history of a row, None if there is no row with this number."""
        view = next(self.rows(only=number), None)
        if view is None:
            return None
        with self._engine.connect() as connection:
            row = connection.execute(select(requests).where(requests.c.row == number)).one()
            first = select(func.min(requests.c.row)).where(requests.c.identity == row.identity)
            # For rows with the same keys there was one query, recorded for the first of them.
            of_row = queries.c.row.in_([number, connection.scalar(first)])
            found = connection.execute(select(queries).where(of_row).order_by(queries.c.id)).all()
        keys, *others = [_keys(one) for one in [json.loads(row.keys), *json.loads(row.alternatives or "[]")]]
        return RowHistory(view, keys, tuple(others), row.note, tuple(map(_query_log_entry, found)))

    def rows_of(self, study_uid: str) -> list[int]:
        """Return the rows that request a study."""
        query = select(request_tasks.c.row).distinct().join(tasks, tasks.c.id == request_tasks.c.task_id)
        with self._engine.connect() as connection:
            found = connection.scalars(query.where(tasks.c.study_uid == study_uid))
            return sorted(found)

    def rows_with(self, keyword: str, value: str) -> list[int]:
        """Return the rows that search for a value, or that request a study with it.

        ``keyword`` is ``PatientID`` or ``AccessionNumber``. A row that cannot be used is found by its cells.
        If no value is the same, values are found that differ only in capital letters, leading zeros, or
        spaces around them.
        """
        same: set[int] = set()
        similar: set[int] = set()
        plain = _plain_spelling(value)
        for row, values in self._values_of_rows(keyword):
            if value in values:
                same.add(row)
            elif plain in map(_plain_spelling, values):
                similar.add(row)
        return sorted(same or similar)

    def _values_of_rows(self, keyword: str) -> Iterator[tuple[int, list[str]]]:
        """Yield the values that each row has for a key; then those of the studies that it requests."""
        held = {"PatientID": "patient_id", "AccessionNumber": "accession"}[keyword]
        studies = select(request_tasks.c.row, tasks.c[held]).join(
            tasks, tasks.c.id == request_tasks.c.task_id
        )
        rows = select(requests.c.row, requests.c["keys"], requests.c.alternatives, requests.c.cells)
        with self._engine.connect().execution_options(yield_per=1000) as connection:
            for row, keys, alternatives, cells in connection.execute(rows):
                searches = [json.loads(keys), *json.loads(alternatives or "[]")]
                values = [text for search in searches for name, text in search if name == keyword]
                yield row, values if searches[0] else json.loads(cells)
            for row, text in connection.execute(studies):
                yield row, [text]

    def study_histories_of_rows(self, rows: Sequence[int]) -> Iterator[StudyHistory]:
        """Yield the history of each task of these rows."""
        wanted = request_tasks.c.row.in_(rows)
        yield from self._histories(select(request_tasks.c.task_id).where(wanted).distinct())

    def study_histories(self, study_uid: str) -> Iterator[StudyHistory]:
        """Yield the history of each task of a study: one for each archive and selection of series."""
        yield from self._histories(select(tasks.c.id).where(tasks.c.study_uid == study_uid))

    def _histories(self, chosen: Select[Any]) -> Iterator[StudyHistory]:
        with self._engine.connect() as connection:
            ids = sorted(connection.scalars(chosen))
        for task_id in ids:
            for view in self.studies(only=task_id):
                yield self._history(task_id, view)

    def _history(self, task_id: int, view: StudyView) -> StudyHistory:
        def mine(table: Any) -> list[Row[Any]]:
            return list(
                connection.execute(select(table).where(table.c.task_id == task_id).order_by(table.c.id))
            )

        with self._engine.connect() as connection:
            numbered_attempts = [(row.round, _attempt(row)) for row in mine(attempts)]
            lacks = (instances.c.digest.is_(None), instances.c.listed == 1)
            mismatch_paths = select(instances.c.path).where(
                instances.c.task_id == task_id, instances.c.path.startswith(f"{self._mismatch_dir}/")
            )
            known = connection.execute(
                select(tasks.c.proved_at, tasks.c.details).where(tasks.c.id == task_id)
            ).one()
            reasons = refusal_reasons(known.details)
            return StudyHistory(
                view=view,
                proved_at=known.proved_at,
                queries=tuple(map(_query_log_entry, mine(queries))),
                rounds=tuple((number, one) for number, one in numbered_attempts if one.verdict != RETRIED),
                retried_at=tuple(one.started for _, one in numbered_attempts if one.verdict == RETRIED),
                postponements=tuple(Postponement(row.at, row.until, row.why) for row in mine(postponements)),
                missing_count=connection.scalar(
                    select(func.count()).where(instances.c.task_id == task_id, *lacks)
                )
                or 0,
                missing=tuple(
                    (ref, reasons.get(ref.sop_uid, ""))
                    for ref in instances_of(connection, task_id, *lacks, limit=MAX_NAMED)
                ),
                mismatch_paths=tuple(connection.scalars(mismatch_paths.limit(MAX_NAMED))),
            )


def _plain_spelling(value: str) -> str:
    """Return a value without capital letters, leading zeros and spaces around it."""
    return value.strip().casefold().lstrip("0")


def _keys(pairs: list[list[str]]) -> Keys:
    return tuple((keyword, value) for keyword, value in pairs)


def _query_log_entry(row: Row[Any]) -> QueryLogEntry:
    values = {name: getattr(row, name) for name in QueryLogEntry.__slots__}
    return QueryLogEntry(**{**values, "started": row.started / 1000, "duration": row.duration / 1000})


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(**{name: getattr(row, name) for name in Attempt.__slots__})
