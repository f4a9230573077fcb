"""What was asked, and what was put off: a diary beside the ledger's truth, for people who ask why.

Nothing leans on it. So an entry is written with the next transaction that is made anyway, and a crash before
that loses it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert

from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.schema import postponements, queries
from dicom_quarry.ledger.statements import CompiledStatement

_ADD_QUERY = CompiledStatement(insert(queries), *(one.name for one in queries.c if not one.primary_key))
_ADD_POSTPONEMENT = CompiledStatement(
    insert(postponements), *(one.name for one in postponements.c if not one.primary_key)
)


@dataclass(frozen=True, slots=True)
class QueryLogEntry:
    """What an archive was asked about a row or a task, once or, for a list, in several ``questions``.

    ``asked`` is a POSIX time, ``took`` are seconds; ``purpose`` is row, rewritten, part, near, series or
    listing, ``model`` study or patient (root), or qido. ``keys`` are the names of the keys alone. ``answers``
    is None where the question failed, with ``status`` where the archive gave one; ``why`` tells of a failure,
    and of an answer that was cut short.
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
    """A task was left alone from one POSIX time until another."""

    at: float
    until: float
    why: str


def log_query(
    database: Database, entry: QueryLogEntry, *, row: int | None = None, task_id: int | None = None
) -> None:
    """Remember a query that was put about a row, or about a task."""
    values = {name: getattr(entry, name) for name in QueryLogEntry.__slots__}
    # As whole numbers they take half of the room, in every row of a million.
    values |= {"started": round(entry.started * 1000), "duration": round(entry.duration * 1000)}
    database.defer(_ADD_QUERY, {**values, "row": row, "task_id": task_id})


def log_postponement(database: Database, task_id: int, postponement: Postponement) -> None:
    """Remember that a task was put off."""
    database.defer(
        _ADD_POSTPONEMENT,
        {"task_id": task_id, "at": postponement.at, "until": postponement.until, "why": postponement.why},
    )
