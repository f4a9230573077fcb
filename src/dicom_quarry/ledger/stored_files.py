"""Read-only access to the records of stored files, in pages, so that millions take little memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, exists, func, select

from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.reader import LedgerReader, PathFunction
from dicom_quarry.ledger.records import study_of
from dicom_quarry.ledger.schema import folders, instances, request_tasks, series, tasks, uids
from dicom_quarry.model import InstanceRef, OutcomeStatus, Selection, Study, Task, TaskState
from dicom_quarry.outcomes import codes_of

#: Most files in one page, unless one study alone has more; and most studies.
_PAGE, _STUDIES_AT_ONCE = 2000, 100

#: The columns that verify needs. A view of each instance would take longer than the hash of a small file.
_FILES = (
    select(
        instances.c.task_id,
        instances.c.path,
        instances.c.size,
        instances.c.digest,
        instances.c.sop_uid,
        series.c.series_uid,
        uids.c.uid,
    )
    .select_from(instances)
    .join(series, series.c.id == instances.c.series_id)
    .outerjoin(uids, uids.c.id == instances.c.class_id)
    .where(instances.c.digest.is_not(None))
    .order_by(instances.c.task_id, instances.c.series_id, instances.c.sop_uid)
)


class StoredFile(NamedTuple):
    """The record of a file; ``path`` is relative to the output folder, ``size`` is in bytes."""

    path: str
    size: int
    digest: bytes
    task_id: int
    study_uid: str
    series_uid: str
    sop_uid: str


@dataclass(frozen=True, slots=True)
class FileTotals:
    """A number of files, and their bytes."""

    files: int
    size: int

    def __add__(self, other: FileTotals) -> FileTotals:
        return FileTotals(self.files + other.files, self.size + other.size)


def count_stored_bytes(database: Database) -> int:
    """Return the bytes of a job's files, without those of studies that were released."""
    size = select(func.coalesce(func.sum(tasks.c.size), 0)).where(tasks.c.released_at.is_(None))
    return int(database.read(lambda connection: connection.scalar(size)) or 0)


class StoredFilesReader(LedgerReader):
    """Reads the records of stored files; each page is a snapshot, so that a job can run meanwhile."""

    def totals(self, *, released: bool = False) -> FileTotals:
        """Return the totals of unreleased studies, or of the ``released`` ones."""
        mine = tasks.c.released_at.is_not(None) if released else tasks.c.released_at.is_(None)
        found = select(func.sum(tasks.c.stored), func.sum(tasks.c.size)).where(mine)
        with self._engine.connect() as connection:
            files, size = connection.execute(found).one()
        return FileTotals(files or 0, size or 0)

    def files(
        self, path_of: PathFunction, *, after: int = 0, last: int | None = None, released: bool = False
    ) -> Iterator[tuple[int, list[StoredFile]]]:
        """Yield pages of whole studies, each with its last task: those after ``after`` up to ``last``.

        Files of released studies are included if ``released``.
        """
        while True:
            with self._engine.connect() as connection:
                studies = _page(connection, after, last, released=released)
                if not studies:
                    return
                mine = instances.c.task_id.between(min(studies), max(studies))
                found = connection.execute(_FILES.where(mine)).all()
            after = max(studies)
            yield after, [_stored_file(row, studies[row[0]], path_of) for row in found if row[0] in studies]

    def files_of(self, path_of: PathFunction, task_id: int) -> list[StoredFile]:
        """Return the files of one task."""
        return [file for _, page in self.files(path_of, after=task_id - 1, last=task_id) for file in page]

    def wanted_folders(self) -> dict[int, tuple[str, int]]:
        """Return the folder, and the number of files, of the tasks that a row requests, by task.

        Tasks that are released, excluded or in work are left out.
        """
        excluded = codes_of({OutcomeStatus.EXCLUDED})
        query = select(tasks.c.id, tasks.c.folder, tasks.c.stored).where(
            tasks.c.stored > 0,
            tasks.c.state == TaskState.CONCLUDED,
            tasks.c.released_at.is_(None),
            tasks.c.code.not_in(excluded),
            exists().where(request_tasks.c.task_id == tasks.c.id),
        )
        with self._engine.connect() as connection:
            return {number: (folder, stored) for number, folder, stored in connection.execute(query)}

    def count_stored(self, study_uid: str, sop_uids: Collection[str]) -> int:
        """Count the instances of a study that are stored, among these."""
        query = select(instances.c.sop_uid).join(tasks, tasks.c.id == instances.c.task_id)
        query = query.where(tasks.c.study_uid == study_uid, instances.c.digest.is_not(None))
        with self._engine.connect() as connection:
            return len(set(connection.scalars(query)).intersection(sop_uids))

    def rows_of(self, task_id: int) -> tuple[int, ...]:
        """Return the rows that request a task."""
        wanted = select(request_tasks.c.row).where(request_tasks.c.task_id == task_id)
        with self._engine.connect() as connection:
            return tuple(connection.scalars(wanted.order_by(request_tasks.c.row)))

    def unfinished_folders(self) -> frozenset[str]:
        """Return the folders of unfinished tasks, whose instances are not recorded yet."""
        query = select(folders.c.path).join(tasks, tasks.c.id == folders.c.task_id)
        with self._engine.connect() as connection:
            return frozenset(connection.scalars(query.where(tasks.c.state == TaskState.WAITING)))

    def complete_tasks(self, *, after: int = 0) -> Iterator[Task]:
        """Yield the tasks that were proved complete, after the task ``after``."""
        while True:
            query = select(tasks).where(tasks.c.id > after, tasks.c.proved_at.is_not(None))
            with self._engine.connect() as connection:
                page = connection.execute(query.order_by(tasks.c.id).limit(100)).all()
            if not page:
                return
            for row in page:
                selection = Selection(frozenset(row.selection.split())) if row.selection else Selection()
                yield Task(row.id, row.archive, study_of(row), selection)
            after = page[-1].id

    def count_complete(self) -> int:
        """Count the tasks that were proved complete."""
        query = select(func.count()).select_from(tasks).where(tasks.c.proved_at.is_not(None))
        with self._engine.connect() as connection:
            return connection.scalar(query) or 0

    def series_by_instance(self, task_id: int) -> dict[str, str]:
        """Return the series UID of every stored instance of a task, by SOP Instance UID."""
        query = (
            select(instances.c.sop_uid, series.c.series_uid)
            .join(series, series.c.id == instances.c.series_id)
            .where(instances.c.task_id == task_id, instances.c.digest.is_not(None))
        )
        with self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}


def _page(connection: Connection, after: int, last: int | None, *, released: bool) -> Mapping[int, Study]:
    """Return the next studies whose files fit a page, at least one, by task id."""
    query = select(tasks).where(tasks.c.id > after)
    if last is not None:
        query = query.where(tasks.c.id <= last)
    if not released:
        query = query.where(tasks.c.released_at.is_(None))
    studies: dict[int, Study] = {}
    total = 0
    for row in connection.execute(query.order_by(tasks.c.id).limit(_STUDIES_AT_ONCE)):
        total += row.stored
        if total > _PAGE and studies:
            break
        studies[row.id] = study_of(row)
    return studies


def _stored_file(row: Any, study: Study, path_of: PathFunction) -> StoredFile:
    task_id, path, size, digest, sop_uid, series_uid, sop_class = row
    if path is None:
        path = str(path_of(study, InstanceRef(study.study_uid, series_uid, sop_uid, sop_class or "")))
    return StoredFile(path, size, digest, task_id, study.study_uid, series_uid, sop_uid)
