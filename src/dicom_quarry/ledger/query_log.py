"""The log of queries and postponements, for ``quarry explain``.

The log is best effort: an entry is written with the next transaction, a crash before that loses it, and no
decision reads the log.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert

from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.schema import postponements, queries

_ADD_QUERY = CompiledStatement(insert(queries), *(one.name for one in queries.c if not one.primary_key))
_ADD_POSTPONEMENT = CompiledStatement(
    insert(postponements), *(one.name for one in postponements.c if not one.primary_key)
)


@dataclass(frozen=True, slots=True)
class QueryLogEntry:
    """A query for a row or a task; a listing takes ``request_count`` requests.

    ``started`` is a POSIX time, ``duration`` is in seconds. ``purpose`` is row, rewritten, part, count,
    unfiltered, near, series or listing; ``model`` is study or patient (root), or qido. ``keys`` has the names
    of the keys, not their values. The ``result_count`` of a failed query is None, and ``status`` is the
    archive's, if it gave one. ``why`` describes a failure, or a result that was cut short.
    """

    archive: str
    model: str
    purpose: str
    level: str
    keys: str
    started: float
    duration: float
    request_count: int
    result_count: int | None
    status: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Postponement:
    """A postponement of a task from one POSIX time to another."""

    at: float
    until: float
    why: str


def log_query(
    database: Database, entry: QueryLogEntry, *, row: int | None = None, task_id: int | None = None
) -> None:
    """Log a query for a row, or for a task."""
    values = {name: getattr(entry, name) for name in QueryLogEntry.__slots__}
    # Integers take half the space of floats; a job may have millions of entries.
    values |= {"started": round(entry.started * 1000), "duration": round(entry.duration * 1000)}
    database.defer(_ADD_QUERY, {**values, "row": row, "task_id": task_id})


def log_postponement(database: Database, task_id: int, postponement: Postponement) -> None:
    """Log the postponement of a task."""
    database.defer(
        _ADD_POSTPONEMENT,
        {"task_id": task_id, "at": postponement.at, "until": postponement.until, "why": postponement.why},
    )
