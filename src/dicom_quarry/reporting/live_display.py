"""The live display of a running job on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dicom_quarry.jobs.observer import JobObserver, describe_unused_columns
from dicom_quarry.jobs.progress import QueryProgress, Snapshot
from dicom_quarry.ledger.cohort_rows import CohortChange
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.plurals import format_count, format_part
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.reporting.progress_text import (
    format_cohort,
    format_cohort_change,
    format_left,
    format_query_progress,
    format_study,
    format_totals,
)
from dicom_quarry.system.durations import format_duration


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

    def update(self, done: int, total: int, lines: Sequence[str]) -> None:
        """Redraw a bar with some lines below it."""
        self._draw(Group(_render_bar(done, total), *map(Text, lines)))

    def finish(self, done: int, total: int, line: str) -> None:
        """Leave the terminal as it was: the caller shows the result."""

    def _draw(self, renderable: RenderableType) -> None:
        if not self._is_drawing:
            self._live.start()
            self._is_drawing = True
        self._live.update(renderable)

    def on_message(self, message: str) -> None:
        """Print a message with the time above the display."""
        self._console.print(f"{datetime.now():%H:%M:%S} {message}")


def _render_progress(snapshot: Snapshot) -> RenderableType:
    lines: list[RenderableType] = [_render_bar(*_share(snapshot)), Text(_format_amounts(snapshot))]
    lines.append(Text(_format_times(snapshot)))
    for study in snapshot.active_studies:
        name = format_study(study.row, study.patient_id, study.accession)
        lines.append(Text(f"  {name}: {format_part(study.stored, study.listed, 'instance')}"))
    if snapshot.waiting_for:
        lines.append(Text(f"waiting for {snapshot.waiting_for}", "yellow"))
    if snapshot.stopping:
        lines.append(
            Text("Stopping after the studies being transferred. Press Ctrl-C again to cancel them", "yellow")
        )
    return Group(*lines)


def _share(snapshot: Snapshot) -> tuple[int, int]:
    """Return the bytes so far and in the end; rows where the bytes are not known."""
    if snapshot.bytes_expected:
        return snapshot.bytes_done, snapshot.bytes_expected
    counts = snapshot.counts
    return counts.rows - counts.rows_by_status.get(OutcomeStatus.PENDING, 0), counts.rows


def _format_amounts(snapshot: Snapshot) -> str:
    totals = format_totals(snapshot)
    if not snapshot.bytes_expected:
        return totals
    return f"{format_size(snapshot.bytes_done)} of about {format_size(snapshot.bytes_expected)}; {totals}"


def _format_times(snapshot: Snapshot) -> str:
    parts = [
        f"{format_count(round(snapshot.instances_per_second), 'instance')}/s",
        f"{format_size(round(snapshot.bytes_per_second))}/s",
        f"running for {format_duration(snapshot.elapsed)}",
        *([format_left(snapshot.seconds_left)] if snapshot.seconds_left is not None else []),
    ]
    return ", ".join(parts)


def _render_bar(done: int, total: int) -> RenderableType:
    """Render a bar as wide as the terminal, in the terminal's own colours: red and green have meanings."""
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(ratio=1)
    line.add_column(justify="right")
    bar = ProgressBar(max(total, 1), done, style="dim", complete_style="default", finished_style="default")
    line.add_row(bar, f"{min(100, 100 * done // max(total, 1))} %")
    return line


def _render_query_progress(progress: QueryProgress) -> RenderableType:
    return Group(
        _render_bar(progress.done, progress.total),
        Text(format_query_progress(progress), "yellow" if progress.waiting_for or progress.stopping else ""),
    )
