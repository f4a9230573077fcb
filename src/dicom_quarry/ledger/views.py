"""Views of the ledger for reports, ``status`` and notebooks, and the counts of a job."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import and_, case, func, literal, not_, select

from dicom_quarry.ledger.backend import DriverConnection
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.dialects import join_distinct
from dicom_quarry.ledger.schema import (
    on_complete_items,
    request_tasks,
    requests,
    tasks,
)
from dicom_quarry.model import (
    InstanceRef,
    OnCompleteState,
    Outcome,
    OutcomeStatus,
    RequestState,
    Study,
    TaskState,
)
from dicom_quarry.outcomes import CATALOGUE, COMPLETE_CODE, INTERNAL_ERROR, worst_outcome


@dataclass(frozen=True, slots=True)
class RowView:
    """A row of the user's table with its outcome. Counts and bytes are over all of its studies.

    ``folders`` are those of its ``studies``, one each, relative to the output folder.
    """

    row: int
    line: int
    cells: tuple[str, ...]
    outcome: Outcome
    same_as_row: int | None
    studies_found: int
    studies_complete: int
    instances_expected: int
    instances_stored: int
    size: int
    proved_at: datetime | None
    studies: tuple[Study, ...]
    folders: tuple[str, ...] = ()

    @property
    def study_uids(self) -> tuple[str, ...]:
        """The UIDs of its studies."""
        return tuple(study.study_uid for study in self.studies)


@dataclass(frozen=True, slots=True)
class StudyView:
    """A task with the rows that request it; ``folder`` is relative to the output folder.

    ``on_complete_state`` is an OnCompleteState, empty without an on-complete command. The command last ran at
    ``on_complete_at``; ``on_complete_error`` is its failure. A released study has ``released_at``.
    """

    rows: tuple[int, ...]
    study: Study
    archive: str
    outcome: Outcome
    expected: int | None
    stored: int
    size: int
    folder: str
    attempts: int
    on_complete_state: str = ""
    on_complete_error: str = ""
    on_complete_at: datetime | None = None
    released_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class InstanceView:
    """A stored instance; ``path`` is relative to the output folder. A ``released`` one is elsewhere."""

    path: PurePosixPath
    ref: InstanceRef
    transfer_syntax: str
    size: int
    digest: bytes
    released: bool = False


@dataclass(frozen=True, slots=True)
class MissingView:
    """An instance that the archive lists and that is not stored, with the rows that request its study.

    ``reason`` is set if it arrived and our own receiver refused it.
    """

    rows: tuple[int, ...]
    ref: InstanceRef
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DamagedView:
    """A file that differs from its record, or (without UIDs and rows) a file that is not in the record.

    ``digest`` is the recorded SHA-256 in hexadecimal, ``code`` a stable word for ``problem``.
    """

    rows: tuple[int, ...]
    path: str
    study_uid: str
    series_uid: str
    sop_uid: str
    code: str
    problem: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class ChangeView:
    """A difference between the archive's list of a complete study and the record.

    UIDs that do not apply are empty.
    """

    rows: tuple[int, ...]
    archive: str
    study_uid: str
    series_uid: str
    sop_uid: str
    code: str
    change: str


_ON_COMPLETE_STATES = CompiledStatement(
    select(on_complete_items.c.state, func.count().label("number")).group_by(on_complete_items.c.state)
)

_instances = func.coalesce(tasks.c.expected, tasks.c.instance_count)
_STUDIES = CompiledStatement(
    select(
        tasks.c.state,
        tasks.c.code,
        func.count().label("number"),
        func.sum(tasks.c.expected).label("expected"),
        func.sum(tasks.c.stored).label("stored"),
        func.sum(tasks.c.size).label("size"),
        func.count(tasks.c.released_at).label("released"),
        tasks.c.archive,
        tasks.c.modalities,
        func.sum(_instances).label("instances"),
        func.count(_instances).label("counted"),
    )
    .where(tasks.c.id.in_(select(request_tasks.c.task_id)))
    .group_by(tasks.c.state, tasks.c.code, tasks.c.archive, tasks.c.modalities)
)

_WAITING = CompiledStatement(
    select(func.count().label("rows")).where(requests.c.state == RequestState.WAITING)
)

_code = func.coalesce(requests.c.code, "pending")
_UNLINKED = CompiledStatement(
    select(requests.c.state, _code.label("code"), func.count().label("rows")).group_by(
        requests.c.state, requests.c.code
    )
)

_LINKED = CompiledStatement(select(func.count(request_tasks.c.row.distinct()).label("rows")))

_combination = (
    select(
        join_distinct(case((tasks.c.state == TaskState.CONCLUDED, tasks.c.code), else_="pending")).label(
            "codes"
        )
    )
    .select_from(tasks)
    .join(request_tasks, request_tasks.c.task_id == tasks.c.id)
    .where(not_(and_(tasks.c.state == TaskState.CONCLUDED, tasks.c.code == literal(COMPLETE_CODE))))
    .group_by(request_tasks.c.row)
    .subquery()
)

#: The codes of each row's tasks that are not complete, and how many rows have these.
_INCOMPLETE_CODES = CompiledStatement(
    select(_combination.c.codes, func.count().label("rows")).group_by(_combination.c.codes)
)


@dataclass(frozen=True, slots=True)
class StudyGroup:
    """Studies of one archive and one combination of modalities, done or not.

    ``instances`` are listed, or counted by the archive; it gave no number for ``uncounted`` of the studies.
    """

    archive: str
    modalities: str
    is_done: bool
    studies: int
    instances: int
    uncounted: int
    stored: int
    size: int


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of a job. ``rows_waiting`` are rows that are not resolved yet.

    ``on_complete_counts`` counts complete studies by the state of their on-complete command.
    ``rows_with_internal_error`` are rows that ended for a defect of Quarry. ``rows_by_code`` and
    ``studies_by_code`` have the reason codes of all rows and studies.
    """

    rows: int
    rows_waiting: int
    rows_by_status: dict[OutcomeStatus, int]
    studies: int
    studies_done: int
    studies_complete: int
    instances_expected: int
    instances_stored: int
    size: int
    studies_released: int = 0
    on_complete_counts: dict[str, int] = field(default_factory=dict)
    study_groups: tuple[StudyGroup, ...] = ()
    rows_with_internal_error: int = 0
    rows_by_code: dict[str, int] = field(default_factory=dict)
    studies_by_code: dict[str, int] = field(default_factory=dict)

    @property
    def is_fetched(self) -> bool:
        """True when no row is pending."""
        return not self.rows_by_status.get(OutcomeStatus.PENDING)

    @property
    def is_finished(self) -> bool:
        """True when no row and no on-complete command is pending."""
        return self.is_fetched and not self.on_complete_counts.get(OnCompleteState.WAITING)


def compute_counts(connection: DriverConnection) -> Counts:
    """Count the rows, studies and instances of a job; takes a second or two with a million rows."""
    states = _STUDIES.fetch_all(connection)
    done = [row for row in states if row.state == TaskState.CONCLUDED]
    by_code = _count_rows_by_code(connection)
    by_status: Counter[OutcomeStatus] = Counter()
    for code, number in by_code.items():
        by_status[CATALOGUE[code].status] += number
    studies: Counter[str] = Counter()
    for row in states:
        studies[row.code if row.state == TaskState.CONCLUDED else "pending"] += row.number
    return Counts(
        rows=sum(by_status.values()),
        rows_waiting=_WAITING.fetch_all(connection)[0].rows,
        rows_by_status=dict(by_status),
        studies=sum(row.number for row in states),
        studies_done=sum(row.number for row in done),
        studies_complete=sum(
            row.number for row in done if CATALOGUE[row.code].status is OutcomeStatus.COMPLETE
        ),
        instances_expected=sum(row.expected or 0 for row in states),
        instances_stored=sum(row.stored or 0 for row in states),
        size=sum(row.size or 0 for row in states),
        studies_released=sum(row.released for row in states),
        on_complete_counts={row.state: row.number for row in _ON_COMPLETE_STATES.fetch_all(connection)},
        rows_with_internal_error=by_code.get(INTERNAL_ERROR, 0),
        rows_by_code=by_code,
        studies_by_code=dict(studies),
        study_groups=tuple(map(_study_group, states)),
    )


def _study_group(row: Any) -> StudyGroup:
    return StudyGroup(
        archive=row.archive,
        modalities=row.modalities,
        is_done=row.state == TaskState.CONCLUDED,
        studies=row.number,
        instances=row.instances or 0,
        uncounted=row.number - row.counted,
        stored=row.stored or 0,
        size=row.size or 0,
    )


def _count_rows_by_code(connection: DriverConnection) -> dict[str, int]:
    """Count rows by the reason code of the worst outcome of their tasks.

    Most rows of a large job are complete, or not resolved yet: those are counted without a look at each. The
    others have few combinations of codes: SQL groups them, and worst_outcome runs once for each combination.
    """
    counted: Counter[str] = Counter()
    for state, code, rows in _UNLINKED.fetch_all(connection):
        # The outcome of a resolved row is that of its tasks, which is counted below.
        counted[code if state != RequestState.RESOLVED else "pending"] += rows
    linked = _LINKED.fetch_all(connection)[0].rows
    counted["pending"] -= linked
    counted[COMPLETE_CODE] += linked
    for codes, rows in _INCOMPLETE_CODES.fetch_all(connection):
        worst = worst_outcome(Outcome(CATALOGUE[one].status, one, "") for one in codes.split(","))
        counted[COMPLETE_CODE] -= rows
        counted[worst.code] += rows
    return {code: number for code, number in counted.items() if number}
