"""The section of report.html for the administrator of the archive: the job's load, and the limits kept."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import groupby

from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.ledger.activity import ArchiveLoad, Slice
from dicom_quarry.model import Transport
from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.reporting.html.charts import TimeAxis, time_chart
from dicom_quarry.reporting.html.markup import Markup, element, join, table
from dicom_quarry.reporting.html.report_data import ReportData
from dicom_quarry.reporting.html.report_sections import section, time_axis, zone_name
from dicom_quarry.system.durations import format_duration

_HOUR = 3600


def archive_section(data: ReportData) -> Markup:
    """Return what the job did to each of its archives, as a page of its own when printed."""
    parts = [_archive(data, archive) for archive in data.settings.archives]
    return section(
        "archive",
        "What we did to the archive",
        element(
            "p",
            "For the administrator of the archive: the requests of this job, their load over time, and the "
            "limits that it kept.",
            class_="quiet",
        ),
        *parts,
        _charts(data),
        kind="new-page",
    )


def _archive(data: ReportData, archive: ArchiveProfile) -> Markup:
    load = data.view.activity.archives.get(archive.name, ArchiveLoad())
    return join(
        [
            element("h3", archive.name),
            element("p", archive.description, class_="quiet") if archive.description != archive.name else "",
            element(
                "div",
                table(("Request", "Number"), _requests(load), caption="Requests", numeric=(1,)),
                table(("Load", "Amount"), _amounts(load), caption="Load", numeric=(1,)),
                class_="columns",
            ),
            table(
                ("Limit", "Allowed", "What happened"),
                _limits(data, archive, load),
                caption="Limits of this job, and of the site",
                kind="broad",
            ),
        ]
    )


def _requests(load: ArchiveLoad) -> Iterator[tuple[str, str]]:
    total = load.total
    yield "Queries", f"{total.queries:,}"
    yield "Queries that failed", f"{load.failed_queries:,}"
    yield "Retrievals", f"{total.retrievals:,}"
    for transport, number in load.retrievals_by_transport.items():
        yield f"of these by {Transport(transport).label}", f"{number:,}"
    yield "Retrievals that the archive refused", f"{load.refused_retrievals:,}"
    yield "Retrievals without a final answer", f"{load.lost:,}"
    yield "Studies tried again later", f"{load.postponements:,}"


def _amounts(load: ArchiveLoad) -> Iterator[tuple[str, str]]:
    total = load.total
    hours = _by_hour(load)
    busiest = max((one.size for one in hours), default=0)
    yield "Images received", f"{round(total.instances):,}"
    yield "Data received", format_size(round(total.size))
    if hours:
        yield "Data an hour, on average", format_size(round(total.size / len(hours)))
        yield "Data in the busiest hour", format_size(round(busiest))
        yield "Retrievals in the busiest hour", f"{max(one.retrievals for one in hours):,}"
    yield "Time in retrievals", format_duration(load.retrieval_seconds)
    yield "Longest retrieval", _seconds(load.longest_retrieval)
    yield "Longest wait for a query", _seconds(load.longest_query)
    yield "Longest time until a study was tried again", format_duration(load.longest_postponement)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else format_duration(seconds)


def _by_hour(load: ArchiveLoad) -> list[Slice]:
    """Return the load of every hour with a request."""
    hours = []
    for _, group in groupby(sorted(load.slices.items()), key=lambda one: one[0] // _HOUR):
        hour = Slice()
        for _, one in group:
            hour.add(one)
        hours.append(hour)
    return hours


def _limits(data: ReportData, archive: ArchiveProfile, load: ArchiveLoad) -> Iterator[tuple[str, str, str]]:
    name, limits = archive.name, data.limits[archive.name]
    at_once = min(
        one for one in (data.settings.parallel, *(found.parallel for found in limits)) if one is not None
    )
    most = data.most_at_once.get(name, 0)
    yield "Studies retrieved at once", f"{at_once:,}", f"at most {most:,}"
    yield (
        "Associations at once",
        _associations(at_once) if archive.address else "none: DICOMweb",
        "kept open between requests, and used again",
    )
    windows = [
        f"{one.window}{f' ({one.time_zone})' if one.time_zone else ''}" for one in limits if one.window
    ]
    if windows:
        outside = data.outside_window.get(name, 0)
        kept = (
            "no request began outside" if not outside else f"{format_count(outside, 'request')} began outside"
        )
        yield "Time window", "; ".join(windows), kept
    else:
        yield "Time window", "none", "any hour"
    yield from _rates(data, archive, load)


def _associations(retrievals: int) -> str:
    """Return the most associations of a job: docs/conformance.md has the same numbers."""
    queries = retrievals // 2 + 1
    return f"{retrievals + queries:,}: {retrievals:,} for retrievals, {queries:,} for queries"


def _rates(data: ReportData, archive: ArchiveProfile, load: ArchiveLoad) -> Iterator[tuple[str, str, str]]:
    limits, step = data.limits[archive.name], data.view.activity.step
    slices = load.slices.values()
    queries = max((one.queries for one in slices), default=0) / step
    speed = max((one.size for one in slices), default=0) / step
    retrievals = max((one.retrievals for one in _by_hour(load)), default=0)
    busiest = f"in the busiest {TimeAxis(data.written_at, timedelta(seconds=step), 1).step_name}"
    for label, values, happened in (
        ("Queries a second", [one.queries_per_second for one in limits], f"{queries:,.1f} {busiest}"),
        (
            "Studies an hour",
            [one.studies_per_hour for one in limits],
            f"{retrievals:,} retrievals in the busiest hour",
        ),
        ("MB a second", [one.megabytes_per_second for one in limits], f"{speed / 1e6:,.1f} {busiest}"),
    ):
        lowest = min((value for value in values if value is not None), default=None)
        yield label, "no limit" if lowest is None else f"{lowest:g}", happened


def _charts(data: ReportData) -> Markup:
    if not data.view.activity.ended:
        return Markup()
    axis, slices = time_axis(data)
    by = f"In each {axis.step_name}; times in {zone_name(data)}."
    charts = [
        ("Queries", [one.queries for one in slices], ""),
        ("Retrievals", [one.retrievals for one in slices], ""),
    ]
    if any(one.refusals for one in slices):
        charts.append(("Refusals and failed queries", [one.refusals for one in slices], "bad"))
    return join(
        element(
            "div",
            element("h3", f"{title} over time"),
            element("p", by, class_="quiet"),
            time_chart(axis, values, lambda value: f"{value:,.0f}", f"{title} over time", kind),
        )
        for title, values, kind in charts
    )
