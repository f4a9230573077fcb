"""The live display of a running job on a terminal."""

from __future__ import annotations

from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dicom_quarry.api import (
    CohortChange,
    JobObserver,
    QueryProgress,
    Snapshot,
    describe_unused_columns,
)
from dicom_quarry.cli.display.plain import (
    format_cohort,
    format_cohort_change,
    format_query_progress,
    format_rate,
    format_totals,
)
from dicom_quarry.model import OutcomeStatus


class LiveDisplay(JobObserver):
    """Redraws a job's progress in place; a context."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._is_drawing = False

    def __enter__(self) -> LiveDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_drawing:
            self._live.stop()

    def on_cohort_read(self, mapping: tuple[tuple[str, str], ...], rows: int, notes: tuple[str, ...]) -> None:
        """Print how the table was read, and the notes on it."""
        self._console.print(format_cohort(mapping, rows))
        for note in notes:
            self._console.print(f"  {note}")

    def on_columns_unused(self, names: tuple[str, ...]) -> None:
        """Print the columns that are not searched by."""
        if names:
            self._console.print(describe_unused_columns(names), markup=False)

    def on_cohort_updated(self, change: CohortChange) -> None:
        """Print what an updated table has changed."""
        self._console.print(format_cohort_change(change))

    def on_queued(self, waiting_for: str) -> None:
        """Redraw."""
        self._draw(Text(f"waiting for {waiting_for}", "yellow"))

    def on_progress(self, snapshot: Snapshot) -> None:
        """Redraw."""
        self._draw(_render_progress(snapshot))

    def on_query_progress(self, progress: QueryProgress) -> None:
        """Redraw."""
        self._draw(_render_query_progress(progress))

    def _draw(self, renderable: RenderableType) -> None:
        if not self._is_drawing:
            self._live.start()
            self._is_drawing = True
        self._live.update(renderable)

    def on_message(self, message: str) -> None:
        """Print a message with the time above the display."""
        self._console.print(f"{datetime.now():%H:%M:%S} {message}")


def _render_progress(snapshot: Snapshot) -> RenderableType:
    counts = snapshot.counts
    done = counts.rows - counts.rows_by_status.get(OutcomeStatus.PENDING, 0)
    head = Table.grid(padding=(0, 1))
    head.add_row(ProgressBar(counts.rows, done, width=40), f"{100 * done // max(counts.rows, 1)} %")
    lines: list[RenderableType] = [head, Text(format_totals(snapshot)), Text(format_rate(snapshot))]
    for study in snapshot.active_studies:
        lines.append(Text(f"  row {study.row}: {study.stored:,} of {study.listed:,} instances", "cyan"))
    if snapshot.waiting_for:
        lines.append(Text(f"waiting for {snapshot.waiting_for}", "yellow"))
    if snapshot.stopping:
        lines.append(
            Text("Stopping after the studies being transferred. Press Ctrl-C again to cancel them", "yellow")
        )
    return Group(*lines)


def _render_query_progress(progress: QueryProgress) -> RenderableType:
    head = Table.grid(padding=(0, 1))
    done = 100 * progress.done // max(progress.total, 1)
    head.add_row(ProgressBar(progress.total, progress.done, width=40), f"{done} %")
    return Group(
        head,
        Text(format_query_progress(progress), "yellow" if progress.waiting_for or progress.stopping else ""),
    )
