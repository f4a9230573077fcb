"""The data of report.html, read once from a job's record."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo

from dicom_quarry.config.archive_profile import ArchiveProfile, Limits
from dicom_quarry.config.settings import Settings
from dicom_quarry.config.site_policy import load_site_policy
from dicom_quarry.config.time_window import Schedule, load_time_zone
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.opened_job import OpenedJob
from dicom_quarry.ledger.composition import Composition
from dicom_quarry.ledger.views import RowView
from dicom_quarry.reporting.csv_reports import needs_attention
from dicom_quarry.reporting.html.row_data import MAX_ROWS, RowData, RowRanges
from dicom_quarry.reporting.job_view import JobView, read_job_view

#: Most rows of one reason in the table of the rows that need attention, and in all; most ranges of numbers.
_MAX_OF_CODE, MAX_ATTENTION, _MAX_RANGES = 100, 100, 24


@dataclass(slots=True)
class AttentionRows:
    """The rows of one reason: the first of them, and the numbers of all as ranges."""

    first: list[RowView] = field(default_factory=list)
    ranges: RowRanges = field(default_factory=lambda: RowRanges(_MAX_RANGES))


@dataclass(frozen=True, slots=True)
class ReportData:
    """The data of one report. ``identifiers``: the page may have cells, reasons and names of the user.

    ``rows`` has the exceptions alone if ``is_cut``. ``limits`` are those that apply to each archive, the
    site's among them. ``outside_window`` are requests that began while the window of the last run is closed.
    Times are shown in ``zone``.
    """

    view: JobView
    settings: Settings
    composition: Composition
    rows: RowData
    is_cut: bool
    attention: dict[str, AttentionRows]
    most_at_once: dict[str, int]
    outside_window: dict[str, int]
    limits: dict[str, tuple[Limits, ...]]
    zone: tzinfo
    columns: tuple[str, ...]
    has_proof: bool
    version: str
    identifiers: bool
    written_at: datetime

    def schedule(self, archive: str) -> Schedule:
        """Return the hours in which an archive may be queried."""
        return _schedule(self.limits.get(archive, ()))

    def local(self, time: float) -> datetime:
        """Return a POSIX time in the zone of the report."""
        return datetime.fromtimestamp(time, self.zone)


def read_report_data(job: OpenedJob, *, identifiers: bool = False) -> ReportData:
    """Read the data of a report; raises LedgerError."""
    view, settings, columns = read_job_view(job), job.settings, job.reader.columns()
    is_cut = view.rows > MAX_ROWS
    rows = RowData(columns if identifiers else None)
    attention: dict[str, AttentionRows] = defaultdict(AttentionRows)
    for row in job.reader.rows():
        is_exception = needs_attention(row)
        if is_exception:
            found = attention[row.outcome.code]
            found.ranges.add(row.row)
            if len(found.first) < _MAX_OF_CODE:
                found.first.append(row)
        if (is_exception or not is_cut) and rows.rows < MAX_ROWS:
            rows.add(row)
    limits = {archive.name: _limits(archive) for archive in settings.archives}
    return ReportData(
        view=view,
        settings=settings,
        composition=job.reader.composition(),
        rows=rows,
        is_cut=is_cut,
        attention=attention,
        most_at_once=job.reader.most_retrievals_at_once(),
        outside_window=_outside_window(job, {name: _schedule(found) for name, found in limits.items()}),
        limits=limits,
        zone=load_time_zone(settings.archives[0].time_zone),
        columns=columns,
        has_proof=(job.out / "proof.json").is_file(),
        version=job.metadata.get("version", ""),
        identifiers=identifiers,
        written_at=datetime.now(UTC),
    )


def _limits(archive: ArchiveProfile) -> tuple[Limits, ...]:
    """Return the limits of an archive: its own, and those of the site's policy for it.

    The policy is compared by address as it is written: a report is no reason to resolve names.
    """
    try:
        policy = load_site_policy()
    except ConfigError:
        return (archive,)
    written = {str(address) for address in archive.addresses}
    of_site = [limits for address, limits in policy.archive.items() if str(address) in written]
    return (archive, policy, *of_site)


def _schedule(limits: tuple[Limits, ...]) -> Schedule:
    schedule = Schedule()
    for one in limits:
        schedule &= one.schedule
    return schedule


def _outside_window(job: OpenedJob, schedules: dict[str, Schedule]) -> dict[str, int]:
    """Count the requests that began while the window was closed, for the archives that have one."""
    outside = {name: 0 for name, schedule in schedules.items() if schedule.windows}
    if outside:
        for archive, minute, number in job.reader.requests_by_minute():
            if archive in outside and not schedules[archive].is_open(datetime.fromtimestamp(minute, UTC)):
                outside[archive] += number
    return outside
