"""The comparison of a job's files by the workers: a row of how far it is, the parts in work, the findings.

The tables are in the schema of the job, and made with its first comparison. A part is the files of some
studies, one after another in the record; the last one is the search of the folder for files that are not in
the record. A worker has a part while it has a claim on it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from dicom_quarry.jobs.cluster import file_check_statements as sql
from dicom_quarry.jobs.cluster.actions import record_action
from dicom_quarry.jobs.cluster.database import Cluster, JobRow, require_member
from dicom_quarry.jobs.cluster.locks import lock_key
from dicom_quarry.jobs.cluster.workers import FILES_QUEUE, describe_missing_worker, list_workers
from dicom_quarry.ledger.backend import backend_of
from dicom_quarry.ledger.outages import retry_while_away
from dicom_quarry.ledger.stored_files import FileTotals

T = TypeVar("T")

#: The part of the search of the folder: no study has this number.
SEARCH: Final = -1

#: A part has this many files or bytes, unless one study alone has more; and most studies.
PART_FILES, PART_BYTES, _PART_STUDIES = 10_000, 4 << 30, 1000

#: In place of the study of a finding that has none: it comes after the others.
_AFTER_ALL: Final = 1 << 62

#: Seconds for which a command tries again, if the server has ended its transaction for another's.
_RETRY_SECONDS = 1.0

#: Findings that are read at once.
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class FileCheckState:
    """A comparison: ``done`` files, of which ``damaged``; ``unrecorded`` are in the folder alone.

    ``is_active``: the workers have it; it was stopped if they do not, and ``ended`` is None. ``moved`` is the
    time at which a part of it ended last, ``is_shown`` is True once a user has seen the result. ``parts`` are
    in work.
    """

    parameters: Mapping[str, Any]
    started: datetime
    moved: datetime
    ended: datetime | None
    is_shown: bool
    is_active: bool
    done: FileTotals
    damaged: int
    unrecorded: int
    parts: int


@dataclass(frozen=True, slots=True)
class Part:
    """The studies after one up to another; the search of the folder, if both are ``SEARCH``."""

    after: int
    last: int
    claim: int
    parameters: Mapping[str, Any]

    @property
    def is_search(self) -> bool:
        """True for the search of the folder."""
        return self.after == SEARCH


def read_file_check(connection: Any, number: int) -> FileCheckState | None:
    """Return how far the comparison of a job's files is, None if there is none that this user may read."""
    schema = f"job_{number}"
    may_read = "SELECT has_table_privilege(to_regclass(%s), 'SELECT')"
    if connection.execute(may_read, (f"{schema}.file_checks",)).fetchone() != (True,):
        return None
    row = connection.execute(sql.STATE.format(job=schema), (number,)).fetchone()
    if row is None:
        return None
    parameters, started, moved, ended, is_shown, is_active, files, size, *counts = row
    done = FileTotals(int(files), int(size))
    return FileCheckState(json.loads(parameters), started, moved, ended, is_shown, is_active, done, *counts)


def find_file_check(cluster: Cluster, job: JobRow, *, restart: bool) -> FileCheck | None:
    """Return the comparison of a job's files by the workers; None if this process has to compare them.

    The workers can if one that gives signs of life has the job's folder below its root, and this user may
    write the record. What they do, or have found, is shown without workers, too, unless it is to ``restart``.
    Raises LedgerError.
    """
    check = FileCheck(cluster, job, max_outage=_RETRY_SECONDS)
    with cluster.connected() as connection:
        (may_write,) = connection.execute(
            "SELECT coalesce(has_table_privilege(to_regclass(%s), 'INSERT'), false)",
            (f"{cluster.location(job.number).schema}.claims",),
        ).fetchone()
        workers = [one for one in list_workers(connection) if not one.has_vanished]
    if not may_write:
        return None
    can_begin = any(FILES_QUEUE in one.queues and job.folder.is_relative_to(one.root) for one in workers)
    if can_begin:
        return check
    found = None if restart else check.read()
    has_result = found is not None and not found.is_shown and (found.is_active or found.ended is not None)
    return check if has_result else None


class FileCheck:
    """The comparison of the files of one job; each method is one transaction on a connection of its own.

    A database that is away is waited for, for ``max_outage`` seconds. All methods raise LedgerError, and
    InputError where this role may not do that.
    """

    def __init__(self, cluster: Cluster, job: JobRow, *, max_outage: float = 0.0) -> None:
        self._cluster = cluster
        self._job = job
        self._location = cluster.location(job.number)
        self._max_outage = max_outage

    def read(self) -> FileCheckState | None:
        """Return how far the comparison is, None if there is none."""
        return self._transact(lambda connection: read_file_check(connection, self._job.number))

    def begin(self, parameters: Mapping[str, Any], *, searches: bool) -> FileCheckState | None:
        """Give a new comparison to the workers; ``searches`` the folder for files of no record, too.

        What an earlier one has found is forgotten. Returns the new one.
        """
        text = json.dumps(dict(parameters))

        def work(connection: Any) -> FileCheckState | None:
            self._begin_change(connection)
            self._run(connection, sql.BE_OWNER)
            self._run(connection, sql.TABLES + sql.CLEAR)
            self._run(connection, sql.ADD, (text, not searches))
            self._give_to_workers(connection, text)
            return read_file_check(connection, self._job.number)

        return self._transact(work)

    def go_on(self) -> FileCheckState | None:
        """Give a comparison that was stopped to the workers again, and return it; not if it has ended."""

        def work(connection: Any) -> FileCheckState | None:
            self._begin_change(connection)
            if self._run(connection, sql.HOLD_OPEN).fetchone() is not None:
                self._give_to_workers(connection, "continued")
            return read_file_check(connection, self._job.number)

        return self._transact(work)

    def find_obstacle(self) -> str:
        """Return why no worker compares the files, as far as the workers say so; else empty."""
        with self._cluster.connected() as connection:
            workers = [one for one in list_workers(connection) if FILES_QUEUE in one.queues]
        return describe_missing_worker(workers, f"job:{self._job.name}")

    def note_shown(self, state: FileCheckState) -> None:
        """Note that a user has seen the result of a comparison."""
        statement = "UPDATE {job}.file_checks SET is_shown = true WHERE started = %s"
        self._transact(lambda connection: self._run(connection, statement, (state.started,)))

    def forget(self) -> None:
        """Show the result to no user, if there is one."""
        state = self.read()
        if state is not None and state.ended is not None:
            self.note_shown(state)

    def findings(self, *, after: int = 0) -> list[tuple[int, dict[str, Any]]]:
        """Return the next findings after a number, with their numbers, in the order in which they came."""
        rows = self._read_findings("id > %s ORDER BY id", (after,))
        return [(number, json.loads(finding)) for number, _, finding in rows]

    def sorted_findings(self) -> Iterator[dict[str, Any]]:
        """Yield the findings in the order of the studies, and then those of the search."""
        place = (SEARCH, 0)
        while page := self._read_findings("(study, id) > (%s, %s) ORDER BY study, id", place):
            yield from (json.loads(finding) for _, _, finding in page)
            place = page[-1][1], page[-1][0]

    def take(self, worker: str) -> Part | None:
        """Claim the next part for a worker that has none; None if there is none now."""
        return self._transact(lambda connection: self._take(connection, worker))

    def report(self, part: Part, done: FileTotals) -> bool:
        """Note how far a part is; return False if it is to be given back, or was given to another worker."""
        values = (done.files, done.size, part.after, part.claim, self._job.number)
        row = self._transact(lambda connection: self._run(connection, sql.REPORT, values).fetchone())
        return bool(row == (True,))

    def give_back(self, part: Part) -> None:
        """Give a part back: another worker begins it again."""

        def work(connection: Any) -> None:
            if self._end_claim(connection, part):
                self._run(connection, sql.BEGIN_AGAIN, (part.after,))

        self._transact(work)

    def end(self, part: Part, done: FileTotals, findings: Iterable[Mapping[str, Any]]) -> bool:
        """Record what was found in a part; return True if it was the last one.

        Nothing is recorded if the part was given to another worker meanwhile.
        """
        rows = [(finding["file"][3] or _AFTER_ALL, json.dumps(finding)) for finding in findings]
        numbers = (0, len(rows)) if part.is_search else (len(rows), 0)

        def work(connection: Any) -> bool:
            self._run(connection, "SELECT FROM {job}.file_checks FOR UPDATE")
            if not self._end_claim(connection, part):
                return False
            self._run(connection, sql.END_PART, (part.after,))
            connection.cursor().executemany(self._of_job(sql.ADD_FINDING), rows)
            values = (done.files, done.size, *numbers, part.is_search)
            self._run(connection, sql.ADD_DONE, values)
            return self._end_if_done(connection)

        return self._transact(work)

    def _take(self, connection: Any, worker: str) -> Part | None:
        found = self._run(connection, sql.FIND).fetchone()
        if found is None:
            return None
        parameters, *facts = found
        # Those of a transaction whose commit was in doubt.
        self._run(connection, sql.FORGET_CLAIMS, (worker,))
        bounds = self._find_part(connection, *facts)
        if bounds is None:
            self._end_if_done(connection)
            return None
        part = Part(*bounds, time.time_ns(), json.loads(parameters))
        self._run(connection, sql.CLAIM, (part.after, worker, part.claim, time.time()))
        return part

    def _find_part(
        self, connection: Any, position: int, is_listed: bool, is_searched: bool
    ) -> tuple[int, int] | None:
        """Return the next part that no worker has: one that was given back, or a new one."""
        found: tuple[int, int] | None = self._run(connection, sql.UNCLAIMED).fetchone()
        if found is not None:
            return found
        new = None if is_listed else self._next_studies(connection, position)
        if new is not None:
            *bounds, is_last = new
            self._run(connection, sql.GIVE_OUT, (bounds[1], is_last))
        else:
            self._run(connection, "UPDATE {job}.file_checks SET is_listed = true")
            others = self._run(connection, "SELECT FROM {job}.file_check_parts LIMIT 1").fetchone()
            if is_searched or others is not None:
                return None
            bounds = [SEARCH, SEARCH]
        self._run(connection, sql.ADD_PART, bounds)
        return bounds[0], bounds[1]

    def _next_studies(self, connection: Any, position: int) -> tuple[int, int, bool] | None:
        """Return the bounds of the next part of the studies, and True if no other is left."""
        last, total = 0, FileTotals(0, 0)
        found = self._run(connection, sql.NEXT, (position, _PART_STUDIES + 1))
        for count, (number, files, size) in enumerate(found):
            total += FileTotals(files, size)
            if last and (count == _PART_STUDIES or total.files > PART_FILES or total.size > PART_BYTES):
                return position, last, False
            last = number
        return (position, last, True) if last else None

    def _end_claim(self, connection: Any, part: Part) -> bool:
        return bool(self._run(connection, sql.END_CLAIM, (part.after, part.claim)).rowcount)

    def _end_if_done(self, connection: Any) -> bool:
        """End the comparison if no part is left; return whether this ended it."""
        if not self._run(connection, sql.END).rowcount:
            return False
        number = (self._job.number,)
        connection.execute("UPDATE quarry.jobs SET verifying = false WHERE number = %s", number)
        return True

    def _begin_change(self, connection: Any) -> None:
        """Keep other commands from giving the files of the job to the workers at the same time."""
        require_member(connection, self._job)
        key = lock_key("file check")
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (key, self._job.number))

    def _give_to_workers(self, connection: Any, details: str) -> None:
        record_action(connection, self._job.name, "verification_requested", details)
        connection.execute("UPDATE quarry.jobs SET verifying = true WHERE number = %s", (self._job.number,))

    def _read_findings(self, condition: str, values: tuple[int, ...]) -> list[tuple[int, int, str]]:
        statement = (
            f"SELECT id, study, finding FROM {{job}}.file_check_findings WHERE {condition} LIMIT {_PAGE}"
        )
        return self._transact(lambda connection: self._run(connection, statement, values).fetchall())

    def _transact(self, work: Callable[[Any], T]) -> T:
        """Do the work in a transaction; it may be done again where its commit is in doubt."""

        def attempt() -> T:
            with self._cluster.connected() as connection, connection.transaction():
                return work(connection)

        return retry_while_away(backend_of(self._location), attempt, self._max_outage)

    def _run(self, connection: Any, statement: str, values: Sequence[object] = ()) -> Any:
        return connection.execute(self._of_job(statement), values or None)

    def _of_job(self, statement: str) -> str:
        return statement.format(job=self._location.schema)
