"""A database of jobs at one moment: workers, archives with their limits, and jobs with their shares.

All faces show it: ``quarry cluster status`` and the page of the workers. It has numbers and names that
administrators gave, and no patient's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from dicom_quarry.jobs.cluster.file_check import read_file_check
from dicom_quarry.jobs.cluster.workers import ENGINE_TABLE, WorkerRow, list_workers
from dicom_quarry.scheduling.archive_facts import ArchiveFacts
from dicom_quarry.scheduling.archive_state import Condition
from dicom_quarry.scheduling.rate_counters import KINDS, RateRecord


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker; ``state`` is ``ready``, ``waiting`` or ``vanished``, ``remark`` why, in its own words.

    ``silent`` is the number of seconds since its last sign of life, ``takes`` the number of studies, or
    queries for rows, that it takes at once, by queue. ``in_work`` are its studies of the jobs that the user
    may read.
    """

    name: str
    host: str
    process: int
    address: str
    root: str
    version: str
    since: datetime
    silent: float
    state: str
    remark: str
    takes: Mapping[str, int]
    in_work: int


@dataclass(frozen=True, slots=True)
class PoolView:
    """The places that a limit of the site allows at once: ``holders`` are the workers that have ``used``."""

    name: str
    size: int
    used: int
    holders: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RateView:
    """A limit on a rate, and its use in the last hour (studies) or minute; ``worker``: its own limit."""

    unit: str
    allowed: float
    used: float
    worker: str = ""


@dataclass(frozen=True, slots=True)
class ArchiveView:
    """An archive: whether it answers, since when it does or does not, and why it did not.

    ``window_changes_at`` is when its window closes, or opens. ``at_once`` has, by worker, how many retrievals
    it may run now, and at most: fewer, while the archive was too busy. ``in_work`` are studies.
    """

    name: str
    address: str
    is_available: bool
    since: datetime | None
    problem: str
    failed_probes: int
    next_probe: datetime | None
    has_window: bool
    is_open: bool
    window_changes_at: datetime | None
    in_work: int
    at_once: Mapping[str, tuple[int, int]]
    pools: tuple[PoolView, ...]
    rates: tuple[RateView, ...]


@dataclass(frozen=True, slots=True)
class JobShare:
    """A job that the workers have: ``share`` is its part of their work, by its ``weight``.

    ``in_work`` are studies. ``counts`` is None for a job that the user may not read.
    """

    number: int
    name: str
    owner: str
    created: datetime
    weight: float
    share: float
    in_work: int
    counts: JobCounts | None

    @property
    def waiting(self) -> int:
        """The studies that wait, without those in work; 0 where that is not known."""
        return max(0, self.counts.waiting - self.in_work) if self.counts else 0


@dataclass(frozen=True, slots=True)
class JobCounts:
    """The studies of a job, of which ``postponed`` wait for a time; and rows that are not queried yet."""

    studies: int
    done: int
    waiting: int
    postponed: int
    rows_waiting: int


@dataclass(frozen=True, slots=True)
class FileCheckView:
    """A job whose files the workers compare, with what they have done so far; ``parts`` are in work.

    The numbers are None for a job that the user may not read.
    """

    name: str
    owner: str
    files: int | None = None
    damaged: int | None = None
    parts: int | None = None


@dataclass(frozen=True, slots=True)
class ClusterView:
    """A database of jobs at a moment of its own clock."""

    url: str
    time: datetime
    workers: tuple[WorkerView, ...]
    archives: tuple[ArchiveView, ...]
    jobs: tuple[JobShare, ...]
    file_checks: tuple[FileCheckView, ...] = ()


_SLOTS = """
SELECT pool, worker, count(*) FROM quarry.slots WHERE until > clock_timestamp() GROUP BY 1, 2 ORDER BY 1, 2
"""
# A schema that this user may not use has no tables for has_table_privilege.
_JOBS = """
SELECT number, name, owner, created, weight,
    CASE WHEN has_schema_privilege(to_regnamespace('job_' || number), 'USAGE')
    THEN coalesce(has_table_privilege(to_regclass('job_' || number || '.tasks'), 'SELECT'), false)
    ELSE false END
FROM quarry.jobs WHERE with_workers ORDER BY number
"""
_FILE_CHECKS = """
SELECT number, name, owner, CASE WHEN has_schema_privilege(to_regnamespace('job_' || number), 'USAGE')
    THEN has_table_privilege(to_regclass('job_' || number || '.file_checks'), 'SELECT') END
FROM quarry.jobs WHERE verifying ORDER BY number
"""
_IN_WORK = f"""
SELECT (args->>'job')::bigint, coalesce(args->>'archive', ''), count(*)
FROM {ENGINE_TABLE} WHERE status = 'doing' GROUP BY 1, 2
"""
_COUNTS = """
SELECT count(*), count(*) FILTER (WHERE state = 'concluded'), count(*) FILTER (WHERE state = 'waiting'),
    count(*) FILTER (WHERE state = 'waiting' AND not_before > extract(epoch FROM clock_timestamp())),
    (SELECT count(*) FROM {job}.requests WHERE state = 'waiting' AND same_as IS NULL)
FROM {job}.tasks WHERE state <> 'unwanted'
"""
_CLAIMS = "SELECT worker, count(*) FROM {job}.claims WHERE kind = 'task' GROUP BY 1"


def read_cluster_view(connection: Any, url: str) -> ClusterView:
    """Read the database on a connection of psycopg; ``url`` names it. Raises psycopg.Error."""
    (now,) = connection.execute("SELECT extract(epoch FROM clock_timestamp())::double precision").fetchone()
    rows = list_workers(connection)
    claimed: Counter[str] = Counter()
    in_work = connection.execute(_IN_WORK).fetchall()
    jobs = tuple(_read_jobs(connection, in_work, claimed))
    return ClusterView(
        url,
        datetime.fromtimestamp(now, UTC),
        tuple(_view_worker(row, claimed[row.identity]) for row in rows),
        tuple(_read_archives(connection, rows, in_work, now)),
        jobs,
        tuple(_read_file_checks(connection)),
    )


def _read_jobs(connection: Any, in_work: Sequence[Any], claimed: Counter[str]) -> list[JobShare]:
    """Return the jobs of the workers; add the studies that a worker has claimed to ``claimed``."""
    studies: Counter[int] = Counter()
    for job, archive, count in in_work:
        studies[job] += count if archive else 0
    found = []
    for number, name, owner, created, weight, may_read in connection.execute(_JOBS).fetchall():
        counts = None
        if may_read:
            schema = f"job_{number}"
            counts = JobCounts(*connection.execute(_COUNTS.format(job=schema)).fetchone())
            claimed.update(dict(connection.execute(_CLAIMS.format(job=schema)).fetchall()))
        found.append(JobShare(number, name, owner, created, weight, 0.0, studies[number], counts))
    total = sum(one.weight for one in found)
    return [replace(one, share=one.weight / total) for one in found]


def _read_file_checks(connection: Any) -> Iterator[FileCheckView]:
    for number, name, owner, may_read in connection.execute(_FILE_CHECKS).fetchall():
        found = read_file_check(connection, number) if may_read else None
        numbers = (found.done.files, found.damaged, found.parts) if found else ()
        yield FileCheckView(name, owner, *numbers)


def _view_worker(row: WorkerRow, in_work: int) -> WorkerView:
    state = "vanished" if row.has_vanished else "waiting" if row.state else "ready"
    return WorkerView(
        name=row.name,
        host=row.host,
        process=row.process,
        address=row.receiver,
        root=row.root,
        version=row.version,
        since=row.started,
        silent=row.silent,
        state=state,
        remark=row.state,
        takes=dict(row.queues),
        in_work=in_work,
    )


#: What the living workers know of an archive, by their names.
_Known = Mapping[str, ArchiveFacts]


def _read_archives(
    connection: Any, rows: Sequence[WorkerRow], in_work: Sequence[Any], now: float
) -> list[ArchiveView]:
    numbers = {name: tuple(found) for name, found in connection.execute("SELECT * FROM quarry.numbers")}
    holders: dict[str, dict[str, int]] = defaultdict(dict)
    for pool, worker, count in connection.execute(_SLOTS):
        holders[pool][worker] = count
    studies: Counter[str] = Counter()
    for _, archive, count in in_work:
        studies[archive] += count
    known: dict[tuple[str, str], dict[str, ArchiveFacts]] = defaultdict(dict)
    for row in rows:
        for name, values in row.archives.items() if not row.has_vanished else ():
            facts = ArchiveFacts.parse(values)
            known[name, facts.address][row.name] = facts
    return [
        _view_archive(place, facts, numbers, holders, studies[place[0]], now)
        for place, facts in sorted(known.items())
    ]


def _view_archive(
    place: tuple[str, str],
    known: _Known,
    numbers: Mapping[str, tuple[float, ...]],
    holders: Mapping[str, Mapping[str, int]],
    in_work: int,
    now: float,
) -> ArchiveView:
    first = next(iter(known.values()))
    condition = Condition.of(numbers.get(first.state, ()), now)
    # The windows of the workers' own settings may differ: it is open if it is for one of them.
    window = next((one for one in known.values() if one.is_open), first)
    sizes = {name: size for one in known.values() for name, size in (one.pools or {}).items()}
    problems = [one.problem for one in known.values() if one.problem]
    return ArchiveView(
        *place,
        is_available=condition.is_available,
        since=_moment(condition.since),
        problem=problems[0] if problems and not condition.is_available else "",
        failed_probes=condition.failures,
        next_probe=_moment(condition.probe_at),
        has_window=window.has_window,
        is_open=window.is_open,
        window_changes_at=_moment(window.window_changes_at),
        in_work=in_work,
        at_once={worker: (one.at_once, one.most_at_once) for worker, one in known.items()},
        pools=tuple(
            PoolView(name, size, sum(holders.get(name, {}).values()), dict(holders.get(name, {})))
            for name, size in sizes.items()
        ),
        rates=tuple(_view_rates(known, numbers, now)),
    )


def _view_rates(known: _Known, numbers: Mapping[str, tuple[float, ...]], now: float) -> list[RateView]:
    """Return the limits of the site, once each, and those of the workers' own settings."""
    found: dict[tuple[str, str], RateView] = {}
    for worker, facts in known.items():
        for rate in facts.rates:
            kind = KINDS.get(rate["kind"])
            if kind is None:
                continue
            used = rate.get("used")
            if used is None:
                record = RateRecord.of(numbers.get(rate["name"], ()))
                used = record.used(now, kind.period) / kind.of_unit
            owner = worker if rate["is_own"] else ""
            found[rate["name"], owner] = RateView(kind.text, rate["allowed"], used, owner)
    return list(found.values())


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
