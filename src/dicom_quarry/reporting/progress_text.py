"""The progress of a job in words."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from dicom_quarry.model import SETTLED, OutcomeStatus
from dicom_quarry.plurals import format_count, format_part
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.system.durations import format_time_left
from dicom_quarry.system.text_safety import escape_text

if TYPE_CHECKING:
    # quarry status formats a time, and needs none of these.
    from dicom_quarry.jobs.progress import QueryProgress, Snapshot
    from dicom_quarry.ledger.cohort_rows import CohortChange


def format_query_progress(progress: QueryProgress) -> str:
    """Format the progress of queries."""
    unit, rate = progress.unit, f"{progress.per_second:,.0f}"
    text = f"{progress.done:,} of {progress.total:,} {unit} queried, {rate} {unit}/s"
    if progress.waiting_for:
        return f"{text}, waiting for {progress.waiting_for}"
    return text if progress.seconds_left is None else f"{text}, {format_left(progress.seconds_left)}"


def format_cohort(mapping: tuple[tuple[str, str], ...], rows: int) -> str:
    """Format the number of rows, and the columns that are searched by."""
    columns = ", ".join(f"{header} as {keyword}" for header, keyword in mapping)
    return f"{format_count(rows, 'row')}; {columns}"


def format_cohort_change(change: CohortChange) -> str:
    """Format what an updated table has changed."""
    added = format_count(change.added, "row")
    return f"Cohort updated: {added} added, {change.removed:,} removed, {change.changed:,} changed"


def format_totals(snapshot: Snapshot) -> str:
    """Format the rows, studies and instances done so far."""
    counts = snapshot.counts
    done = counts.rows - counts.rows_by_status.get(OutcomeStatus.PENDING, 0)
    needing_attention = done - sum(counts.rows_by_status.get(status, 0) for status in SETTLED)
    text = (
        f"{format_part(done, counts.rows, 'row')}, "
        f"{format_part(counts.studies_complete, counts.studies, 'study')} complete, "
        f"{format_count(snapshot.instances, 'instance')} ({format_size(snapshot.size)}) received"
    )
    return (
        f"{text}, {format_count(needing_attention, 'row needs', 'rows need')} attention"
        if needing_attention
        else text
    )


def format_rate(snapshot: Snapshot) -> str:
    """Format the transfer rate, and the time left or the reason to wait."""
    instances = format_count(round(snapshot.instances_per_second), "instance")
    text = f"{instances}/s, {format_size(round(snapshot.bytes_per_second))}/s"
    if snapshot.waiting_for:
        text = f"{text}, waiting for {snapshot.waiting_for}"
    return text if snapshot.seconds_left is None else f"{text}, {format_left(snapshot.seconds_left)}"


def format_study(row: int, patient_id: str = "", accession: str = "") -> str:
    """Format the row of a study; for a terminal, with its patient and its accession."""
    keys = [(name, value) for name, value in (("patient", patient_id), ("accession", accession)) if value]
    return ", ".join([f"row {row}", *(f"{name} {escape_text(value, limit=40)}" for name, value in keys)])


def format_left(seconds: float) -> str:
    """Format the time left, and the time of the end by this computer's clock."""
    return format_time_left(seconds, datetime.now().astimezone())
