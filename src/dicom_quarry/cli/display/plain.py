"""The progress of a running job in words, and the display that prints it line by line without a terminal."""

from __future__ import annotations

import time
from datetime import datetime

from dicom_quarry.api import (
    CohortChange,
    JobObserver,
    QueryProgress,
    Snapshot,
    describe_unused_columns,
    escape_text,
    format_count,
    format_part,
    format_size,
    format_time_left,
)
from dicom_quarry.cli.console import write_line
from dicom_quarry.model import SETTLED, OutcomeStatus

#: Seconds between two progress lines, and before the first.
_INTERVAL = 60.0
_FIRST_DELAY = 5.0


class PlainDisplay(JobObserver):
    """Prints a line with a timestamp for every message, and a progress line once a minute."""

    def __init__(self) -> None:
        self._next_line_at = time.monotonic() + _FIRST_DELAY
        self._queued = False

    def on_cohort_read(self, mapping: tuple[tuple[str, str], ...], rows: int, notes: tuple[str, ...]) -> None:
        """Print how the table was read; notes contain values of the table, so only their number."""
        self.on_message(format_cohort(mapping, rows))
        if notes:
            self.on_message(f"{format_count(len(notes), 'note')} on the table, shown only in a terminal")

    def on_columns_unused(self, names: tuple[str, ...]) -> None:
        """Print the columns that are not searched by."""
        if names:
            self.on_message(describe_unused_columns(names))

    def on_cohort_updated(self, change: CohortChange) -> None:
        """Print what an updated table has changed."""
        self.on_message(format_cohort_change(change))

    def on_queued(self, waiting_for: str) -> None:
        """Print a line at once, then once a minute."""
        if not self._queued or time.monotonic() >= self._next_line_at:
            self._queued = True
            self._next_line_at = time.monotonic() + _INTERVAL
            self.on_message(f"waiting for {waiting_for}")

    def on_progress(self, snapshot: Snapshot) -> None:
        """Print a line once a minute."""
        if time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + _INTERVAL
            self.on_message(
                "; ".join(line for line in (format_totals(snapshot), format_rate(snapshot)) if line)
            )

    def on_query_progress(self, progress: QueryProgress) -> None:
        """Print a line once a minute."""
        if time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + _INTERVAL
            self.on_message(format_query_progress(progress))

    def on_message(self, message: str) -> None:
        """Print a message with a timestamp."""
        write_line(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {message}")


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
