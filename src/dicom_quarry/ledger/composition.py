"""The stored data of a job in numbers: bytes by modality and by year, sizes of studies, missing instances."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, case, func, select

from dicom_quarry.ledger.backend import DriverConnection
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.schema import request_tasks, tasks

#: Upper bounds of the classes of study sizes, in bytes; the last class has none.
SIZE_BOUNDS = (1_000_000, 10_000_000, 50_000_000, 100_000_000, 500_000_000, 1_000_000_000, 5_000_000_000)


@dataclass(frozen=True, slots=True)
class StoredPart:
    """The stored studies that have one value in common, with their instances and bytes."""

    studies: int
    instances: int
    size: int


@dataclass(frozen=True, slots=True)
class Composition:
    """The stored data of a job: studies without any stored instance are left out, but for what is missing.

    ``modalities`` are as the archive gives them, several in one value; ``years`` are the first four
    characters of study dates. ``size_classes`` counts the studies below each of SIZE_BOUNDS, and others.
    ``missing_by_archive`` has the studies that lack listed instances, and the number of those.
    """

    modalities: dict[str, StoredPart]
    years: dict[str, StoredPart]
    size_classes: tuple[int, ...]
    missing_by_archive: dict[str, tuple[int, int]]


_is_stored = (tasks.c.stored > 0, tasks.c.id.in_(select(request_tasks.c.task_id)))
_totals = (
    func.count().label("studies"),
    func.sum(tasks.c.stored).label("instances"),
    func.sum(tasks.c.size).label("size"),
)
_MODALITIES = CompiledStatement(
    select(tasks.c.modalities.label("name"), *_totals).where(*_is_stored).group_by(tasks.c.modalities)
)
_year = func.substr(tasks.c.study_date, 1, 4)
_YEARS = CompiledStatement(select(_year.label("name"), *_totals).where(*_is_stored).group_by(_year))
_class = case(
    *((tasks.c.size < bindparam(f"bound{at}"), at) for at in range(len(SIZE_BOUNDS))), else_=len(SIZE_BOUNDS)
)
_SIZES = CompiledStatement(
    select(_class.label("size_class"), func.count().label("studies"))
    .where(*_is_stored)
    .group_by("size_class")
)
_lacking = tasks.c.expected - tasks.c.stored
_MISSING = CompiledStatement(
    select(tasks.c.archive, func.count().label("studies"), func.sum(_lacking).label("instances"))
    .where(_lacking > 0, tasks.c.id.in_(select(request_tasks.c.task_id)))
    .group_by(tasks.c.archive)
)


def compute_composition(connection: DriverConnection) -> Composition:
    """Compute the numbers of the stored data of a job."""
    bounds = {f"bound{at}": bound for at, bound in enumerate(SIZE_BOUNDS)}
    sizes = {row.size_class: row.studies for row in _SIZES.fetch_all(connection, **bounds)}
    missing = {row.archive: (row.studies, row.instances) for row in _MISSING.fetch_all(connection)}
    return Composition(
        modalities=_parts(connection, _MODALITIES),
        years=_parts(connection, _YEARS),
        size_classes=tuple(sizes.get(at, 0) for at in range(len(SIZE_BOUNDS) + 1)),
        missing_by_archive=missing,
    )


def _parts(connection: DriverConnection, statement: CompiledStatement) -> dict[str, StoredPart]:
    return {
        row.name: StoredPart(row.studies, row.instances, row.size) for row in statement.fetch_all(connection)
    }
