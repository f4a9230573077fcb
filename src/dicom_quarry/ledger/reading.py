"""What the ledger tells: streams of views, for the report, ``status`` and ``verify``. Reads only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import Row, and_, func, select, true
from sqlalchemy.exc import DatabaseError

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.connections import bring_up_to_date, open_engine
from dicom_quarry.ledger.counting import Counts as Counts
from dicom_quarry.ledger.counting import count
from dicom_quarry.ledger.ledger import study_of
from dicom_quarry.ledger.schema import (
    CONCLUDED,
    attempts,
    handovers,
    instances,
    job,
    outdated,
    request_tasks,
    requests,
    series,
    tasks,
    uids,
)
from dicom_quarry.ledger.statements import RETRIED
from dicom_quarry.ledger.views import InstanceView, MissingView, RowView, StudyView
from dicom_quarry.model import InstanceRef, Outcome, Study, Word
from dicom_quarry.outcomes import outcome, worst

#: Studies, and instances, that are read at once.
_PAGE = 1000

#: The path that the job's template gives to an instance of a study.
Derive = Callable[[Study, InstanceRef], PurePosixPath]


def was_begun(path: Path) -> bool:
    """Whether a ledger has a job in it: none if its first run ended, or is, before the table was entered."""
    engine = open_engine(path, read_only=True)
    try:
        with engine.connect() as connection:
            return bool(connection.scalar(select(func.count()).where(job.c.name == "cohort")))
    except DatabaseError as error:
        # Any other damage is for the Reader to explain.
        return "no such table" not in str(error.orig)
    finally:
        engine.dispose()


class Reader:
    """Reads a job's ledger, also while another process writes it; an older version's is upgraded first."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise LedgerError(f"there is no job in {path.parent}")
        self._engine = open_engine(path, read_only=True)
        try:
            with self._engine.connect() as connection:
                old = outdated(connection)
            if old:
                bring_up_to_date(path)
        except DatabaseError as error:
            self.close()
            raise LedgerError(f"the ledger {path} cannot be read: {error.orig}") from error
        except LedgerError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def facts(self) -> dict[str, str]:
        """What was noted about the job, by name."""
        with self._engine.connect() as connection:
            return {row.name: row.value for row in connection.execute(select(job))}

    def columns(self) -> tuple[str, ...]:
        """The headers of the user's table."""
        return tuple(json.loads(self.facts()["columns"]))

    def counts(self) -> Counts:
        """Where the job stands."""
        with self._engine.connect() as connection:
            return count(connection)

    def rows(self, only: int | None = None) -> Iterator[RowView]:
        """Every row of the user's table, in its order; or the one of this number."""
        first = (
            select(func.min(request_tasks.c.row))
            .where(request_tasks.c.task_id == tasks.c.id)
            .correlate(tasks)
            .scalar_subquery()
        )
        query = (
            select(
                requests.c.row,
                requests.c.line,
                requests.c.cells,
                requests.c.same_as,
                requests.c.note,
                requests.c.code.label("row_code"),
                requests.c.details.label("row_details"),
                first.label("first_row"),
                *tasks.c,
            )
            .select_from(requests)
            .outerjoin(request_tasks, request_tasks.c.row == requests.c.row)
            .outerjoin(tasks, tasks.c.id == request_tasks.c.task_id)
            .where(requests.c.row == only if only is not None else true())
            .order_by(requests.c.row, tasks.c.id)
        )
        with self._engine.connect() as connection:
            found = connection.execution_options(yield_per=1000).execute(query)
            for _, group in groupby(found, key=lambda row: row.row):
                yield _row_view(list(group))

    def studies(self, only: int | None = None) -> Iterator[StudyView]:
        """Every study that was asked for, in the order in which it was found; or the task of this id."""
        asked = (
            select(func.count())
            .select_from(attempts)
            .where(attempts.c.task_id == tasks.c.id, attempts.c.verdict != RETRIED)
            .correlate(tasks)
            .scalar_subquery()
        )
        query = (
            select(
                *tasks.c,
                asked.label("asked"),
                request_tasks.c.row,
                handovers.c.state.label("hand_over"),
                handovers.c.said,
                handovers.c.ended,
            )
            .outerjoin(handovers, handovers.c.task_id == tasks.c.id)
            .outerjoin(request_tasks, request_tasks.c.task_id == tasks.c.id)
            .where(tasks.c.id == only if only is not None else true())
            .order_by(tasks.c.id, request_tasks.c.row)
        )
        with self._engine.connect() as connection:
            found = connection.execution_options(yield_per=1000).execute(query)
            for _, grouped in groupby(found, key=lambda row: row.id):
                group = list(grouped)
                yield _study_view(group[0], tuple(row.row for row in group if row.row is not None))

    def instances(
        self, derive: Derive, *, study_uid: str | None = None, task_id: int | None = None
    ) -> Iterator[InstanceView]:
        """Every stored instance of studies that have ended, one by one; or of one study, or task."""
        syntax = uids.alias("syntax")
        query = _instances().outerjoin(syntax, syntax.c.id == instances.c.syntax_id)
        query = query.add_columns(syntax.c.uid.label("syntax_uid")).where(instances.c.digest.is_not(None))
        for row in self._pages(query, study_uid, task_id):
            ref = _ref(row)
            path = PurePosixPath(row.path) if row.path else derive(study_of(row), ref)
            released = row.released_at is not None
            yield InstanceView(path, ref, row.syntax_uid or "", row.file_size, row.digest, released)

    def moved(self) -> tuple[int, float]:
        """Bytes of the studies that were moved, and the seconds during which they were."""
        size = select(func.sum(tasks.c.size)).where(tasks.c.id.in_(select(attempts.c.task_id)))
        seconds = select(func.sum(attempts.c.ended - attempts.c.started)).where(attempts.c.gained > 0)
        with self._engine.connect() as connection:
            return connection.scalar(size) or 0, connection.scalar(seconds) or 0.0

    def missing(self) -> Iterator[MissingView]:
        """Every instance that the archive lists and that is not here."""
        query = _instances().where(instances.c.digest.is_(None), instances.c.listed == 1)
        for task_id, group in groupby(self._pages(query), key=lambda row: row.task_id):
            wanted = select(request_tasks.c.row).where(request_tasks.c.task_id == task_id)
            with self._engine.connect() as connection:
                rows = tuple(connection.scalars(wanted.order_by(request_tasks.c.row)))
            for row in group:
                yield MissingView(rows, _ref(row))

    def _pages(
        self, query: Any, study_uid: str | None = None, task_id: int | None = None
    ) -> Iterator[Row[Any]]:
        """Instances, a few studies at a time, each page from a snapshot of its own.

        Who takes hours over them, as ``verify`` does, would hold one snapshot all that time, and a job that
        runs beside it could not begin its write-ahead log anew.
        """
        mine = tasks.c.study_uid == study_uid if study_uid is not None else true()
        mine = and_(mine, tasks.c.id == task_id) if task_id is not None else mine
        number = func.coalesce(tasks.c.expected, 0) + tasks.c.stored
        listed = select(tasks.c.id, number).where(mine).order_by(tasks.c.id).limit(_PAGE)
        last = 0
        while True:
            with self._engine.connect() as connection:
                page = connection.execute(listed.where(tasks.c.id > last)).all()
                if not page:
                    return
                first, last = last + 1, _end([(row[0], row[1]) for row in page])
                found = connection.execute(query.where(mine, tasks.c.id.between(first, last))).all()
            yield from found


def _end(page: Sequence[tuple[int, int]]) -> int:
    """The last of the studies whose instances fit a page; one study is taken whole, however large."""
    total = 0
    for at, (_, number) in enumerate(page):
        total += number
        if total > _PAGE and at:
            return page[at - 1][0]
    return page[-1][0]


def _instances() -> Any:
    return (
        select(
            instances.c.task_id,
            instances.c.sop_uid,
            instances.c.digest,
            instances.c.path,
            instances.c.size.label("file_size"),
            series.c.series_uid,
            uids.c.uid.label("class_uid"),
            *tasks.c,
        )
        .select_from(instances)
        .join(tasks, tasks.c.id == instances.c.task_id)
        .join(series, series.c.id == instances.c.series_id)
        .outerjoin(uids, uids.c.id == instances.c.class_id)
        .order_by(instances.c.task_id, instances.c.series_id, instances.c.sop_uid)
    )


def _ref(row: Row[Any]) -> InstanceRef:
    return InstanceRef(row.study_uid, row.series_uid, row.sop_uid, row.class_uid or "")


def _task_outcome(row: Row[Any]) -> Outcome:
    if row.state != CONCLUDED:
        return outcome("pending")
    return outcome(row.code, **json.loads(row.details))


def _row_view(group: list[Row[Any]]) -> RowView:
    head = group[0]
    found = [row for row in group if row.id is not None]
    if found:
        ended = worst(_task_outcome(row) for row in found)
    elif head.row_code:
        ended = outcome(head.row_code, **json.loads(head.row_details))
    else:
        ended = outcome("pending")
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
        studies_complete=sum(_task_outcome(row).word is Word.COMPLETE for row in found),
        instances_expected=sum(row.expected or 0 for row in found),
        instances_stored=sum(row.stored for row in found),
        size=sum(row.size for row in found),
        proved_at=datetime.fromtimestamp(max(proofs), UTC) if proofs and None not in proofs else None,
        study_uids=tuple(row.study_uid for row in found),
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
        attempts=row.asked,
        hand_over=row.hand_over or "",
        hand_over_said=row.said or "",
        hand_over_at=_moment(row.ended),
        released_at=_moment(row.released_at),
    )


def _moment(time: float | None) -> datetime | None:
    return None if time is None else datetime.fromtimestamp(time, UTC)
