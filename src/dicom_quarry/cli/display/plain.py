"""The display of a running job without a terminal: one line after the other."""

from __future__ import annotations

import time
from datetime import datetime

from dicom_quarry.api import (
    CohortChange,
    JobObserver,
    QueryProgress,
    Snapshot,
    describe_unused_columns,
    format_cohort,
    format_cohort_change,
    format_count,
    format_query_progress,
    format_rate,
    format_totals,
)
from dicom_quarry.cli.console import write_line

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
