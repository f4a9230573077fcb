"""Read-only access to a ledger: streams of views for reports, ``status`` and ``verify``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.exc import DatabaseError

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.activity import (
    Activity,
    compute_activity,
    most_retrievals_at_once,
    requests_by_minute,
)
from dicom_quarry.ledger.backend import backend_of, raise_described
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.composition import Composition, compute_composition
from dicom_quarry.ledger.database import upgrade_ledger, upgrades_itself
from dicom_quarry.ledger.ledger import REFUSED
from dicom_quarry.ledger.location import LedgerLocation, PostgresLocation
from dicom_quarry.ledger.migrations import VERSION, is_outdated, schema_version
from dicom_quarry.ledger.read_pool import ReadPool
from dicom_quarry.ledger.records import study_of
from dicom_quarry.ledger.row_statements import ROW, ROWS_WITH_TASKS, page_statement
from dicom_quarry.ledger.schema import (
    attempts,
    instances,
    job,
    on_complete_items,
    request_tasks,
    series,
    tasks,
    uids,
)
from dicom_quarry.ledger.statements import METADATA, RETRIED, ROWS_OF_TASK, TASK_COLUMNS, WAITING_ARCHIVES
from dicom_quarry.ledger.views import Counts as Counts
from dicom_quarry.ledger.views import InstanceView, MissingView, RowView, StudyView, compute_counts
from dicom_quarry.model import InstanceRef, Outcome, OutcomeStatus, Study, TaskState
from dicom_quarry.outcomes import make_outcome, worst_outcome

#: Most instances in one page, unless one study alone has more; and most studies.
_PAGE, _STUDIES_AT_ONCE = 1000, 100

_attempt_count = (
    select(func.count())
    .select_from(attempts)
    .where(attempts.c.task_id == tasks.c.id, attempts.c.verdict != RETRIED)
    .correlate(tasks)
    .scalar_subquery()
)
_studies = (
    select(
        *tasks.c,
        _attempt_count.label("attempt_count"),
        request_tasks.c.row,
        on_complete_items.c.state.label("on_complete_state"),
        on_complete_items.c.error,
        on_complete_items.c.ended,
    )
    .outerjoin(on_complete_items, on_complete_items.c.task_id == tasks.c.id)
    .outerjoin(request_tasks, request_tasks.c.task_id == tasks.c.id)
    .order_by(tasks.c.id, request_tasks.c.row)
)
# A task that no row requests, and that has nothing stored, is no study of the job.
_STUDIES = CompiledStatement(_studies.where(tasks.c.state != TaskState.UNWANTED))
_STUDY = CompiledStatement(_studies.where(tasks.c.id == bindparam("only")))

_MAX_ID = 2**63 - 1
_TASKS = CompiledStatement(
    select(*TASK_COLUMNS, tasks.c.expected, tasks.c.stored, tasks.c.released_at, tasks.c.details)
    .where(tasks.c.id.between(bindparam("first"), bindparam("last")))
    .order_by(tasks.c.id)
    .limit(bindparam("limit"))
)
_TASKS_OF_STUDY = CompiledStatement(
    select(tasks.c.id).where(tasks.c.study_uid == bindparam("study_uid")).order_by(tasks.c.id)
)

_syntax = uids.alias("syntax")
_instances = (
    select(
        instances.c.task_id,
        instances.c.sop_uid,
        instances.c.digest,
        instances.c.path,
        instances.c.size,
        series.c.series_uid,
        uids.c.uid.label("class_uid"),
        _syntax.c.uid.label("syntax_uid"),
    )
    .select_from(instances)
    .join(series, series.c.id == instances.c.series_id)
    .outerjoin(uids, uids.c.id == instances.c.class_id)
    .outerjoin(_syntax, _syntax.c.id == instances.c.syntax_id)
    .where(instances.c.task_id.between(bindparam("first"), bindparam("last")))
    .order_by(instances.c.task_id, instances.c.series_id, instances.c.sop_uid)
)
_STORED = CompiledStatement(_instances.where(instances.c.digest.is_not(None)))
_MISSING = CompiledStatement(_instances.where(instances.c.digest.is_(None), instances.c.listed == 1))

#: A function that gives the path of an instance of a study, by the job's path template.
PathFunction = Callable[[Study, InstanceRef], PurePosixPath]


def has_job(location: LedgerLocation) -> bool:
    """Return True if a ledger has a job: not if its first run ended before the user's table was stored."""
    backend = backend_of(location)
    engine = backend.open_engine(read_only=True)
    try:
        with engine.connect() as connection:
            return bool(connection.scalar(select(func.count()).where(job.c.name == "cohort")))
    except DatabaseError as error:
        # LedgerReader reports any other damage.
        return not backend.lacks_tables(error)
    finally:
        engine.dispose()


class LedgerReader:
    """Reads a job's ledger, also while another process writes it; upgrades an older version first.

    ``max_outage`` is the number of seconds for which a server that is away is waited for.
    """

    def __init__(self, location: LedgerLocation, *, max_outage: float = 0) -> None:
        backend = backend_of(location)
        self._engine = backend.open_engine(read_only=True)
        raise_described(self._engine, backend)
        self._read_pool = ReadPool(location, max_outage=max_outage)
        # To a server each connection is a process: where one has shown all, two more are saved.
        if isinstance(location, PostgresLocation) and self._is_current():
            return
        try:
            backend.require_job()
            with self._engine.connect() as connection:
                old = is_outdated(connection, upgrades=upgrades_itself(location))
            if old:
                upgrade_ledger(location)
        except DatabaseError as error:
            self.close()
            raise backend.describe(error) from error
        except LedgerError:
            self.close()
            raise

    def _is_current(self) -> bool:
        """Return True for a ledger of this version; False if that is not known."""
        try:
            return [row.version for row in self._read_pool.fetch_all(VERSION)] == [schema_version()]
        except LedgerError:
            return False

    def close(self) -> None:
        """Close the file."""
        self._read_pool.close()
        self._engine.dispose()

    def metadata(self) -> dict[str, str]:
        """Return the facts about the job, by name."""
        return {row.name: row.value for row in self._read_pool.fetch_all(METADATA)}

    def columns(self) -> tuple[str, ...]:
        """Return the headers of the user's table."""
        return tuple(json.loads(self.metadata()["columns"]))

    def counts(self) -> Counts:
        """Count the rows, studies and instances of the job."""
        return self._read_pool.read_snapshot(compute_counts)

    def waiting_archives(self) -> set[str]:
        """Return the archives of the studies that wait."""
        return {row.archive for row in self._read_pool.fetch_all(WAITING_ARCHIVES)}

    def activity(self) -> Activity:
        """Compute the load that the job put on its archives so far."""
        with self._read_pool.snapshot() as connection:
            return compute_activity(connection)

    def most_retrievals_at_once(self) -> dict[str, int]:
        """Return the largest number of retrievals that ran at the same time, by archive."""
        with self._read_pool.snapshot() as connection:
            return most_retrievals_at_once(connection)

    def requests_by_minute(self) -> list[tuple[str, int, int]]:
        """Return each minute in which requests began: archive, POSIX time and number of requests."""
        with self._read_pool.snapshot() as connection:
            return list(requests_by_minute(connection))

    def composition(self) -> Composition:
        """Compute the numbers of the stored data."""
        with self._read_pool.snapshot() as connection:
            return compute_composition(connection)

    def rows(self, only: int | None = None) -> Iterator[RowView]:
        """Yield every row of the user's table, in its order; or the row with the number ``only``."""
        chosen = (
            self._read_pool.stream(ROWS_WITH_TASKS)
            if only is None
            else self._read_pool.stream(ROW, only=only)
        )
        for _, group in groupby(chosen, key=lambda row: row.row):
            yield _row_view(list(group))

    def row_page(
        self, status: OutcomeStatus | None, limit: int, *, after: int = 0, before: int | None = None
    ) -> list[RowView]:
        """Return rows with an outcome, None for any, in their order.

        These are the first ones behind the row ``after``, or the last ones in front of the row ``before``.
        """
        statement = page_statement(status, backwards=before is not None)
        edge = after if before is None else before
        with closing(self._read_pool.stream(statement, edge=edge)) as found:
            views = (_row_view(list(group)) for _, group in groupby(found, key=lambda row: row.row))
            page = list(islice((one for one in views if status in (None, one.outcome.status)), limit))
        return page if before is None else page[::-1]

    def studies(self, only: int | None = None) -> Iterator[StudyView]:
        """Yield a view of every task, in the order of their ids; or of the task with the id ``only``."""
        chosen = (
            self._read_pool.stream(_STUDIES) if only is None else self._read_pool.stream(_STUDY, only=only)
        )
        for _, grouped in groupby(chosen, key=lambda row: row.id):
            group = list(grouped)
            yield _study_view(group[0], tuple(row.row for row in group if row.row is not None))

    def instances(
        self, path_of: PathFunction, *, study_uid: str | None = None, task_id: int | None = None
    ) -> Iterator[InstanceView]:
        """Yield every recorded stored instance; or those of one study, or of one task."""
        if study_uid is not None:
            for row in self._read_pool.fetch_all(_TASKS_OF_STUDY, study_uid=study_uid):
                yield from self.instances(path_of, task_id=row.id)
            return
        ends = (1, _MAX_ID) if task_id is None else (task_id, task_id)
        for task, found in self._pages(_STORED, *ends):
            study, released = study_of(task), task.released_at is not None
            for row in found:
                ref = _ref(study, row)
                path = PurePosixPath(row.path) if row.path else path_of(study, ref)
                yield InstanceView(path, ref, row.syntax_uid or "", row.size, row.digest, released)

    def retrieval_totals(self) -> tuple[int, float]:
        """Return the bytes of studies that were retrieved, and the seconds that this took."""
        size = select(func.sum(tasks.c.size)).where(tasks.c.id.in_(select(attempts.c.task_id)))
        seconds = select(func.sum(attempts.c.ended - attempts.c.started)).where(attempts.c.newly_stored > 0)
        with self._engine.connect() as connection:
            return connection.scalar(size) or 0, connection.scalar(seconds) or 0.0

    def missing(self) -> Iterator[MissingView]:
        """Yield every instance that the archive lists and that is not stored."""
        for task, found in self._pages(_MISSING):
            rows = tuple(row for (row,) in self._read_pool.fetch_all(ROWS_OF_TASK, task_id=task.id))
            study, reasons = study_of(task), refusal_reasons(task.details)
            for row in found:
                ref = _ref(study, row)
                yield MissingView(rows, ref, reasons.get(ref.sop_uid, ""))

    def _pages(
        self, wanted: CompiledStatement, first: int = 1, last: int = _MAX_ID
    ) -> Iterator[tuple[Any, Iterator[Any]]]:
        """Yield tasks with the instances that ``wanted`` selects; each page is a snapshot of its own.

        ``verify`` may take hours. A single snapshot would last as long, and meanwhile SQLite could not reset
        the write-ahead log of a running job.
        """
        while True:
            with self._read_pool.snapshot() as connection:
                page = _fit_page(_TASKS.fetch_all(connection, first=first, last=last, limit=_STUDIES_AT_ONCE))
                if not page:
                    return
                upto = page[-1].id
                found = wanted.fetch_all(connection, first=first, last=upto)
            by_id = {task.id: task for task in page}
            for task_id, group in groupby(found, key=lambda row: row.task_id):
                yield by_id[task_id], group
            first = upto + 1


def _fit_page(page: Sequence[Any]) -> Sequence[Any]:
    """Return the first tasks whose instances fit a page, at least one."""
    total = 0
    for at, task in enumerate(page):
        total += (task.expected or 0) + task.stored
        if total > _PAGE and at:
            return page[:at]
    return page


def _ref(study: Study, row: Any) -> InstanceRef:
    return InstanceRef(study.study_uid, row.series_uid, row.sop_uid, row.class_uid or "")


def refusal_reasons(details: str | None) -> dict[str, str]:
    """Return, by SOP Instance UID, why our own receiver refused instances, from the details of a task."""
    by_reason: dict[str, list[str]] = json.loads(details or "{}").get(REFUSED, {})
    return {
        uid: f"Quarry's own receiver refused it: {why}" for why, uids in by_reason.items() for uid in uids
    }


def _task_outcome(row: Any) -> Outcome:
    if row.state != TaskState.CONCLUDED:
        return make_outcome("pending")
    return make_outcome(row.code, **json.loads(row.details))


def _row_view(group: list[Any]) -> RowView:
    head = group[0]
    found = [row for row in group if row.id is not None]
    if found:
        ended = worst_outcome(_task_outcome(row) for row in found)
    elif head.row_code:
        ended = make_outcome(head.row_code, **json.loads(head.row_details))
    else:
        ended = make_outcome("pending")
    if head.note:
        ended = replace(ended, reason=f"{ended.reason} ({head.note})")
    earlier = [row.first_row for row in found if row.first_row < head.row]
    proofs = [row.proved_at for row in found]
    return RowView(
        row=head.row,
        line=head.line,
        cells=tuple(json.loads(head.cells)),
        outcome=ended,
        same_as_row=head.same_as or min(earlier, default=None),
        studies_found=len(found),
        studies_complete=sum(_task_outcome(row).status is OutcomeStatus.COMPLETE for row in found),
        instances_expected=sum(row.expected or 0 for row in found),
        instances_stored=sum(row.stored for row in found),
        size=sum(row.size for row in found),
        proved_at=datetime.fromtimestamp(max(proofs), UTC) if proofs and None not in proofs else None,
        studies=tuple(study_of(row) for row in found),
        folders=tuple(row.folder for row in found),
    )


def _study_view(row: Any, rows: tuple[int, ...]) -> StudyView:
    return StudyView(
        rows=rows,
        study=study_of(row),
        archive=row.archive,
        outcome=_task_outcome(row),
        expected=row.expected,
        stored=row.stored,
        size=row.size,
        folder=row.folder,
        attempts=row.attempt_count,
        on_complete_state=row.on_complete_state or "",
        on_complete_error=row.error or "",
        on_complete_at=_utc_datetime(row.ended),
        released_at=_utc_datetime(row.released_at),
    )


def _utc_datetime(time: float | None) -> datetime | None:
    return None if time is None else datetime.fromtimestamp(time, UTC)
