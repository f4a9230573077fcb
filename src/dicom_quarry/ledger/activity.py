"""The load that a job put on its archives: queries, retrievals, bytes, refusals and waits, over time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Integer, bindparam, case, func, literal, not_, select, union_all

from dicom_quarry.ledger.backend import DriverConnection
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.dialects import whole
from dicom_quarry.ledger.schema import attempts, postponements, queries, tasks
from dicom_quarry.ledger.statements import RETRIED

#: Seconds of a slice of time; the smallest that gives a chart at most so many slices is used.
_STEPS, _MAX_SLICES = (1, 5, 15, 60, 300, 900, 3600), 150

#: Most slices over which one retrieval is spread: a longer one shows that the clock was set forward.
_MAX_SPREAD = 1000

#: Final answers of a retrieval that refuse it (see archive.base.Verdict), and the one without an answer.
_REFUSED, _LOST = ("retry", "unsupported", "configuration"), "lost"


@dataclass(slots=True)
class Slice:
    """The load of one slice of time. ``size`` and ``instances`` are what was newly stored in it.

    A query or a retrieval counts in the slice in which it began, or ended. ``refusals`` are retrievals that
    the archive refused, and queries that failed.
    """

    queries: int = 0
    retrievals: int = 0
    instances: float = 0.0
    size: float = 0.0
    refusals: int = 0

    def add(self, other: Slice) -> None:
        """Add the load of another slice."""
        self.queries += other.queries
        self.retrievals += other.retrievals
        self.instances += other.instances
        self.size += other.size
        self.refusals += other.refusals


@dataclass(slots=True)
class ArchiveLoad:
    """The load on one archive; ``slices`` are by the POSIX time at which they begin. Times are in seconds.

    ``failed_queries`` had no complete result; ``lost`` are retrievals without a final answer. The
    postponements are studies that were tried again later.
    """

    slices: dict[int, Slice] = field(default_factory=lambda: defaultdict(Slice))
    failed_queries: int = 0
    query_seconds: float = 0.0
    longest_query: float = 0.0
    retrievals_by_transport: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    refused_retrievals: int = 0
    lost: int = 0
    retrieval_seconds: float = 0.0
    longest_retrieval: float = 0.0
    postponements: int = 0
    longest_postponement: float = 0.0

    @property
    def total(self) -> Slice:
        """The load of all slices."""
        total = Slice()
        for one in self.slices.values():
            total.add(one)
        return total


@dataclass(frozen=True, slots=True)
class Activity:
    """The load of a job by archive, in slices of ``step`` seconds, from ``began`` to ``ended`` (POSIX times).

    Both are 0 for a job that has requested nothing yet.
    """

    step: int
    began: float
    ended: float
    archives: dict[str, ArchiveLoad]

    @property
    def total(self) -> Slice:
        """The load on all archives."""
        total = Slice()
        for load in self.archives.values():
            total.add(load.total)
        return total

    def slices(self) -> dict[int, Slice]:
        """Return the load on all archives by the POSIX time at which a slice begins, in their order."""
        merged: dict[int, Slice] = defaultdict(Slice)
        for load in self.archives.values():
            for start, one in load.slices.items():
                merged[start].add(one)
        return dict(sorted(merged.items()))


_step = bindparam("step", type_=Integer)
_is_request = attempts.c.verdict != RETRIED

_SPAN = CompiledStatement(
    select(
        func.min(queries.c.started).label("first_query"),
        func.max(queries.c.started + queries.c.duration).label("last_query"),
        select(func.min(attempts.c.started)).where(_is_request).scalar_subquery().label("first_attempt"),
        select(func.max(attempts.c.ended)).where(_is_request).scalar_subquery().label("last_attempt"),
    )
)

_QUERIES = CompiledStatement(
    select(
        queries.c.archive,
        whole(queries.c.started / (1000 * _step)).label("slice"),
        func.sum(queries.c.request_count).label("number"),
        func.sum(case((queries.c.result_count.is_(None), 1), else_=0)).label("failed"),
        func.sum(queries.c.duration).label("duration"),
        func.max(queries.c.duration).label("longest"),
    ).group_by(queries.c.archive, "slice")
)

_took = attempts.c.ended - attempts.c.started
_size = attempts.c.newly_stored * 1.0 * tasks.c.size / func.nullif(tasks.c.stored, 0)
_first_slice, _last_slice = (whole(one / _step) for one in (attempts.c.started, attempts.c.ended))
_retrievals = (
    select(
        tasks.c.archive,
        attempts.c.transport,
        _last_slice.label("slice"),
        func.count().label("number"),
        func.sum(attempts.c.newly_stored).label("instances"),
        func.sum(_size).label("size"),
        func.sum(case((attempts.c.verdict.in_(list(map(literal, _REFUSED))), 1), else_=0)).label("refused"),
        func.sum(case((attempts.c.verdict == _LOST, 1), else_=0)).label("lost"),
        func.sum(_took).label("seconds"),
        func.max(_took).label("longest"),
        func.min(attempts.c.started).label("started"),
        func.max(attempts.c.ended).label("ended"),
    )
    .select_from(attempts)
    .join(tasks, tasks.c.id == attempts.c.task_id)
    .where(_is_request)
)
_is_short = _first_slice == _last_slice
_SHORT_RETRIEVALS = CompiledStatement(
    _retrievals.where(_is_short).group_by(tasks.c.archive, attempts.c.transport, "slice")
)
_LONG_RETRIEVALS = CompiledStatement(
    _retrievals.where(not_(_is_short)).group_by(attempts.c.id, tasks.c.archive)
)

_waited = postponements.c.until - postponements.c.at
_POSTPONEMENTS = CompiledStatement(
    select(tasks.c.archive, func.count().label("number"), func.max(_waited).label("longest"))
    .select_from(postponements)
    .join(tasks, tasks.c.id == postponements.c.task_id)
    .group_by(tasks.c.archive)
)


def compute_activity(connection: DriverConnection) -> Activity:
    """Compute the load on the archives from the query log and the attempts of a job."""
    [span] = _SPAN.fetch_all(connection)
    starts = [(span.first_query or 0) / 1000, span.first_attempt or 0]
    began = min((one for one in starts if one), default=0.0)
    ended = max((span.last_query or 0) / 1000, span.last_attempt or 0)
    step = next((one for one in _STEPS if (ended - began) / one <= _MAX_SLICES), _STEPS[-1])
    archives: dict[str, ArchiveLoad] = defaultdict(ArchiveLoad)
    for row in _QUERIES.fetch_all(connection, step=step):
        _add_queries(archives[row.archive], row, step)
    for row in _SHORT_RETRIEVALS.execute(connection, {"step": step}):
        _add_retrievals(archives, _SHORT_RETRIEVALS.make_row(row), step)
    for row in _LONG_RETRIEVALS.execute(connection, {"step": step}):
        _add_retrievals(archives, _LONG_RETRIEVALS.make_row(row), step)
    for row in _POSTPONEMENTS.fetch_all(connection):
        load = archives[row.archive]
        load.postponements, load.longest_postponement = row.number, row.longest
    return Activity(step, began, ended, dict(archives))


def _add_queries(load: ArchiveLoad, row: Any, step: int) -> None:
    one = load.slices[row.slice * step]
    one.queries += row.number
    one.refusals += row.failed
    load.failed_queries += row.failed
    load.query_seconds += row.duration / 1000
    load.longest_query = max(load.longest_query, row.longest / 1000)


def _add_retrievals(archives: dict[str, ArchiveLoad], row: Any, step: int) -> None:
    """Add retrievals that ended in one slice; what a long one stored is spread over its slices."""
    load = archives[row.archive]
    last = load.slices[row.slice * step]
    last.retrievals += row.number
    last.refusals += row.refused
    load.retrievals_by_transport[row.transport] += row.number
    load.refused_retrievals += row.refused
    load.lost += row.lost
    load.retrieval_seconds += row.seconds
    load.longest_retrieval = max(load.longest_retrieval, row.longest)
    first = int(row.started // step) if row.number == 1 else row.slice
    if row.slice - first > _MAX_SPREAD:
        first = row.slice
    for number in range(first, row.slice + 1):
        overlap = min(row.ended, (number + 1) * step) - max(row.started, number * step)
        share = overlap / (row.ended - row.started) if first < row.slice else 1.0
        load.slices[number * step].instances += row.instances * share
        load.slices[number * step].size += (row.size or 0) * share


#: Every retrieval as two events, its start and its end: the largest sum of these is the most at once.
_begun = (
    select(tasks.c.archive, attempts.c.started.label("at"), literal(1).label("change"))
    .join(tasks, tasks.c.id == attempts.c.task_id)
    .where(_is_request)
)
_over = (
    select(tasks.c.archive, attempts.c.ended, literal(-1))
    .join(tasks, tasks.c.id == attempts.c.task_id)
    .where(_is_request)
)
_events = union_all(_begun, _over).subquery()
_running = select(
    _events.c.archive,
    func.sum(_events.c.change)
    .over(partition_by=_events.c.archive, order_by=(_events.c.at, _events.c.change), rows=(None, 0))
    .label("running"),
).subquery()
_MOST_AT_ONCE = CompiledStatement(
    select(_running.c.archive, func.max(_running.c.running).label("most")).group_by(_running.c.archive)
)

_query_minute = whole(queries.c.started / 60_000)
_attempt_minute = whole(attempts.c.started / 60)
_MINUTES = CompiledStatement(
    union_all(
        select(
            queries.c.archive,
            _query_minute.label("minute"),
            func.sum(queries.c.request_count).label("number"),
        ).group_by(queries.c.archive, _query_minute),
        select(tasks.c.archive, _attempt_minute, func.count())
        .join(tasks, tasks.c.id == attempts.c.task_id)
        .where(_is_request)
        .group_by(tasks.c.archive, _attempt_minute),
    )
)


def most_retrievals_at_once(connection: DriverConnection) -> dict[str, int]:
    """Return the largest number of retrievals that ran at the same time, by archive."""
    return {row.archive: row.most for row in _MOST_AT_ONCE.fetch_all(connection)}


def requests_by_minute(connection: DriverConnection) -> Iterator[tuple[str, int, int]]:
    """Yield each minute in which requests began: archive, POSIX time and number of requests."""
    for row in map(_MINUTES.make_row, _MINUTES.execute(connection, {})):
        yield row.archive, row.minute * 60, row.number
