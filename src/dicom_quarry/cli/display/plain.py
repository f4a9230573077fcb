"""A job as it runs, in words; and the timestamped lines that show it where there is no terminal."""

from __future__ import annotations

import time
from datetime import datetime

from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.jobs.progress import QueryProgress, Snapshot
from dicom_quarry.ledger.cohort_rows import CohortChange
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.reporting.formatting import format_count, format_size
from dicom_quarry.system.durations import format_duration

#: Seconds between two lines where nobody watches; the first comes early.
_INTERVAL = 60.0
_FIRST_DELAY = 5.0


class PlainDisplay(JobObserver):
    """One line a minute with a timestamp, and one for everything worth knowing."""

    def __init__(self) -> None:
        self._next_line_at = time.monotonic() + _FIRST_DELAY
        self._queued = False

    def on_cohort_read(self, mapping: tuple[tuple[str, str], ...], rows: int, notes: tuple[str, ...]) -> None:
        """The table was read."""
        self.on_message(format_cohort(mapping, rows))
        if notes:
            self.on_message(f"{len(notes)} notes on values that were repaired: run in a terminal to see them")

    def on_cohort_updated(self, change: CohortChange) -> None:
        """A newer table was taken."""
        self.on_message(format_cohort_change(change))

    def on_queued(self, waiting_for: str) -> None:
        """A line at once, and then when it is time for one."""
        if not self._queued or time.monotonic() >= self._next_line_at:
            self._queued = True
            self._next_line_at = time.monotonic() + _INTERVAL
            self.on_message(f"waiting for {waiting_for}")

    def on_progress(self, snapshot: Snapshot) -> None:
        """A line when it is time for one."""
        if time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + _INTERVAL
            self.on_message(
                "; ".join(line for line in (format_totals(snapshot), format_rate(snapshot)) if line)
            )

    def on_query_progress(self, progress: QueryProgress) -> None:
        """A line when it is time for one."""
        if time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + _INTERVAL
            self.on_message(format_query_progress(progress))

    def on_message(self, message: str) -> None:
        """A line of its own."""
        print(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {message}", flush=True)


def format_query_progress(progress: QueryProgress) -> str:
    """How far the questions of a plan are."""
    what, rate = progress.unit, f"{progress.per_second:,.0f}"
    text = f"{progress.done:,} of {progress.total:,} {what} asked about, {rate} {what}/s"
    if progress.waiting_for:
        return f"{text}, waiting for {progress.waiting_for}"
    return (
        f"{text}, {format_duration(progress.seconds_left)} left"
        if progress.seconds_left is not None
        else text
    )


def format_cohort(mapping: tuple[tuple[str, str], ...], rows: int) -> str:
    """How the table was read."""
    columns = ", ".join(f"{header} as {keyword}" for header, keyword in mapping)
    return f"{format_count(rows, 'row')}; {columns}"


def format_cohort_change(change: CohortChange) -> str:
    """What an update has changed."""
    return f"the cohort: {change.added:,} rows added, {change.removed:,} dropped, {change.changed:,} changed"


def format_totals(snapshot: Snapshot) -> str:
    """How much of a job is done."""
    counts = snapshot.counts
    done = counts.rows - counts.rows_by_status.get(OutcomeStatus.PENDING, 0)
    exceptions = done - counts.rows_by_status.get(OutcomeStatus.COMPLETE, 0)
    text = (
        f"{done:,} of {counts.rows:,} rows, "
        f"{counts.studies_complete:,} of {counts.studies:,} studies complete, "
        f"{snapshot.instances:,} instances ({format_size(snapshot.size)}) received"
    )
    return f"{text}, {exceptions:,} rows with exceptions" if exceptions else text


def format_rate(snapshot: Snapshot) -> str:
    """How fast a job is, and what it waits for or how long it needs."""
    text = (
        f"{snapshot.instances_per_second:,.0f} instances/s, {format_size(round(snapshot.bytes_per_second))}/s"
    )
    if snapshot.waiting_for:
        return f"{text}, waiting for {snapshot.waiting_for}"
    return (
        f"{text}, {format_duration(snapshot.seconds_left)} left"
        if snapshot.seconds_left is not None
        else text
    )
