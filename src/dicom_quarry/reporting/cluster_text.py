"""The words for workers, archives and shares; and all of them as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from dicom_quarry.plurals import format_count, format_part
from dicom_quarry.reporting.cluster_view import (
    ArchiveView,
    ClusterView,
    FileCheckView,
    JobShare,
    PoolView,
    WorkerView,
)
from dicom_quarry.reporting.text_table import text_table, wrap
from dicom_quarry.system.durations import format_duration

#: The name of the pool of all archives together.
_ALL = "all"

#: Workers that are named one by one.
_MAX_NAMED = 6

#: Seconds since a sign of life that are not worth mentioning.
_NOW = 5.0

#: What happens to a worker that vanished.
VANISHED: Final = "its studies are given to others"

_INDENT = "  "


def format_moment(when: datetime, now: datetime) -> str:
    """Format a time in the local zone: of today without a day, of the days around it with the weekday."""
    local = when.astimezone()
    if local.date() == now.astimezone().date():
        return f"{local:%H:%M}"
    return f"{local:%a %H:%M}" if abs(when - now) < timedelta(days=6) else f"{local:%Y-%m-%d %H:%M}"


def describe_address(worker: WorkerView) -> str:
    """Return where archives send to, without the AE title, which is in the worker's name."""
    address = worker.address.removeprefix(worker.name.partition("@")[0]).removeprefix("@")
    return f"port {address[1:]}" if address.startswith(":") else address


def describe_silence(worker: WorkerView) -> str:
    """Return the time of the last sign of life; a worker gives one each second."""
    return "now" if worker.silent < _NOW else f"{format_duration(worker.silent)} ago"


def describe_worker(worker: WorkerView) -> str:
    """Return what a worker does, and what it waits for."""
    if worker.state == "vanished":
        return f"vanished: {VANISHED}"
    has_work = f"{format_count(worker.in_work, 'study')} in work" if worker.in_work else ""
    return "; ".join(filter(None, [has_work, worker.remark])) or "ready"


def describe_common(workers: tuple[WorkerView, ...]) -> str:
    """Return root and version of the workers; empty if they do not have the same."""
    found = {(one.root, one.version) for one in workers}
    if len(found) != 1:
        return ""
    [(root, version)] = found
    return f"for the jobs below {root}; Quarry {version}"


def describe_availability(archive: ArchiveView, now: datetime) -> str:
    """Return whether an archive answers, since when it does not, and why."""
    if not archive.is_available:
        return f"does not answer {describe_outage(archive, now)}"
    return f"answers, again since {format_moment(archive.since, now)}" if archive.since else "answers"


def describe_outage(archive: ArchiveView, now: datetime) -> str:
    """Return since when an archive does not answer, and why."""
    since = format_moment(archive.since or now, now)
    count = archive.failed_probes
    probes = f"; {format_count(count, 'probe')} without an answer" if count else ""
    return f"since {since}{probes}{f': {archive.problem}' if archive.problem else ''}"


def describe_window(archive: ArchiveView, now: datetime) -> str:
    """Return whether the window is open, and when that changes; empty without a window."""
    if not archive.has_window:
        return ""
    at = archive.window_changes_at
    if archive.is_open:
        return f"open until {format_moment(at, now)}" if at else "open"
    return f"closed, opens {format_moment(at, now)}" if at else "closed"


def describe_pool(pool: PoolView) -> str:
    """Return how many places of a limit are in use, and by whom."""
    holders = sorted(pool.holders.items(), key=lambda one: -one[1])
    named = _name_some([f"{name} {count}" for name, count in holders])
    by = f": {named}" if named else ""
    scope = ", for all archives together" if pool.name == _ALL else ""
    return f"{pool.used} of {pool.size} in use{scope}{by}"


def describe_rates(archive: ArchiveView) -> str:
    """Return the use of the limits on rates; of the workers' own limits, that of the busiest worker."""
    own: dict[tuple[str, float], float] = {}
    for rate in archive.rates:
        if rate.worker:
            key = rate.unit, rate.allowed
            own[key] = max(rate.used, own.get(key, 0.0))
    shared = [_format_rate(one.used, one.allowed, one.unit) for one in archive.rates if not one.worker]
    each = [f"{_format_rate(used, *key[::-1])} by each worker at most" for key, used in own.items()]
    return ", ".join([*shared, *each])


def _format_rate(used: float, allowed: float, unit: str) -> str:
    number = f"{used:,.0f}" if used >= 10 else f"{used:.2g}"
    return f"{number} of {allowed:,g} {unit}"


def describe_at_once(archive: ArchiveView) -> str:
    """Return how many retrievals the workers may run at once; fewer, while the archive is too busy."""
    now, most = (sum(one[at] for one in archive.at_once.values()) for at in (0, 1))
    text = f"{len(archive.at_once)}, for {format_part(now, most, 'retrieval')} at once"
    less = [f"{name} {one[0]} of {one[1]}" for name, one in archive.at_once.items() if one[0] < one[1]]
    return f"{text}: fewer for a while, as it was too busy ({_name_some(less)})" if less else text


def _name_some(names: list[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join([*names[:_MAX_NAMED], *([f"{more} more"] if more > 0 else [])])


def describe_share(job: JobShare) -> str:
    """Return a job's weight, and its share of the work."""
    return f"weight {job.weight:g}, {job.share:.0%} of the work"


def describe_counts(job: JobShare) -> str:
    """Return how far a job is."""
    counts = job.counts
    if counts is None:
        return f"{format_count(job.in_work, 'study')} in work; you may not read its record"
    parts = [
        f"{format_count(job.in_work, 'study')} in work",
        f"{job.waiting:,} waiting",
    ]
    if counts.postponed:
        parts.append(f"{counts.postponed:,} of them postponed")
    parts.append(f"{counts.done:,} of {counts.studies:,} done")
    rows = f"; {format_count(counts.rows_waiting, 'row')} to query for" if counts.rows_waiting else ""
    return f"{', '.join(parts)}{rows}"


def describe_comparison(check: FileCheckView) -> str:
    """Return how far the workers have compared the files of a job."""
    if check.files is None:
        return "the workers compare its files; you may not read its record"
    found = f"{format_count(check.files, 'file')} so far, {check.damaged:,} damaged or missing"
    return f"the workers compare its files: {found}; {format_count(check.parts or 0, 'part')} in work"


def archive_facts(archive: ArchiveView, now: datetime) -> Iterator[tuple[str, str]]:
    """Yield the facts about an archive with their names, without what does not apply."""
    yield "in work", format_count(archive.in_work, "study")
    yield from (("slots", describe_pool(pool)) for pool in archive.pools)
    if window := describe_window(archive, now):
        yield "window", window
    if rates := describe_rates(archive):
        yield "rates", rates
    yield "workers", describe_at_once(archive)


def cluster_lines(view: ClusterView, width: int) -> Iterator[str]:
    """Yield the lines of ``quarry cluster status``."""
    yield from _worker_lines(view, width)
    if view.archives:
        yield ""
        yield from _archive_lines(view, width)
    yield ""
    yield f"{format_count(len(view.jobs), 'job')} with the workers"
    for job in view.jobs:
        yield from _indented(f"job:{job.name} of {job.owner}: {describe_share(job)}", width, _INDENT)
        yield from _indented(describe_counts(job), width, 2 * _INDENT)
    for check in view.file_checks:
        text = f"job:{check.name} of {check.owner}: {describe_comparison(check)}"
        yield from _indented(text, width, _INDENT)


def _worker_lines(view: ClusterView, width: int) -> Iterator[str]:
    common = describe_common(view.workers)
    yield f"{format_count(len(view.workers), 'worker')} in {view.url}"
    if not view.workers:
        yield f"{_INDENT}To start one:  quarry worker --as AET:PORT --root DIR"
        return
    if common:
        yield f"{_INDENT}{common}"
    names = ("Worker", "Address", "Since", "Last seen", *(() if common else ("Root, version",)), "State")
    rows = [
        _worker_row(one, view.time, () if common else (f"{one.root}, {one.version}",)) for one in view.workers
    ]
    for line in text_table(names, rows, width - len(_INDENT)):
        yield f"{_INDENT}{line}"


def _worker_row(worker: WorkerView, now: datetime, further: tuple[str, ...]) -> list[str]:
    since = format_moment(worker.since, now)
    return [
        worker.name,
        describe_address(worker),
        since,
        describe_silence(worker),
        *further,
        describe_worker(worker),
    ]


def _archive_lines(view: ClusterView, width: int) -> Iterator[str]:
    yield f"{format_count(len(view.archives), 'archive')} of the workers"
    for archive in view.archives:
        title = f"{archive.name}, {archive.address}: {describe_availability(archive, view.time)}"
        yield from _indented(title, width, _INDENT)
        for name, text in archive_facts(archive, view.time):
            yield from _indented(text, width, f"{2 * _INDENT}{name:<9}")


def _indented(text: str, width: int, start: str) -> Iterator[str]:
    first, *more = wrap(text, width - len(start))
    yield f"{start}{first}"
    yield from (f"{'':<{len(start)}}{line}" for line in more)
