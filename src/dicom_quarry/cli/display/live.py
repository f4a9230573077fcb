"""A job as it runs, on a terminal: redrawn in place."""

from __future__ import annotations

from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dicom_quarry.cli.display.plain import amounts, asked, changed, pace, read
from dicom_quarry.jobs.observer import Listener
from dicom_quarry.jobs.progress import Asking, Snapshot
from dicom_quarry.ledger.cohort_rows import CohortChange
from dicom_quarry.model import Word


class LiveDisplay(Listener):
    """Redrawn in place; used as a context."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._running = False

    def __enter__(self) -> LiveDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self._running:
            self._live.stop()

    def cohort(self, mapping: tuple[tuple[str, str], ...], rows: int, notes: tuple[str, ...]) -> None:
        """The table was read."""
        self._console.print(read(mapping, rows), markup=False)
        for note in notes:
            self._console.print(f"  {note}", markup=False)

    def updated(self, change: CohortChange) -> None:
        """A newer table was taken."""
        self._console.print(changed(change), markup=False)

    def queued(self, behind: str) -> None:
        """Redraw."""
        self._draw(Text(f"waiting for {behind}", "yellow"))

    def tick(self, snapshot: Snapshot) -> None:
        """Redraw."""
        self._draw(_drawn(snapshot))

    def asking(self, asking: Asking) -> None:
        """Redraw."""
        self._draw(_drawn_plan(asking))

    def _draw(self, drawn: RenderableType) -> None:
        if not self._running:
            self._live.start()
            self._running = True
        self._live.update(drawn)

    def said(self, message: str) -> None:
        """Above the display, with the time."""
        self._console.print(f"{datetime.now():%H:%M:%S} {message}", markup=False)


def _drawn(snapshot: Snapshot) -> RenderableType:
    counts = snapshot.counts
    done = counts.rows - counts.rows_by_word.get(Word.PENDING, 0)
    head = Table.grid(padding=(0, 1))
    head.add_row(ProgressBar(counts.rows, done, width=40), f"{100 * done // max(counts.rows, 1)} %")
    lines: list[RenderableType] = [head, Text(amounts(snapshot)), Text(pace(snapshot))]
    for moving in snapshot.moving:
        lines.append(Text(f"  row {moving.row}: {moving.stored:,} of {moving.listed:,} instances", "cyan"))
    if snapshot.waiting:
        lines.append(Text(f"waiting for {snapshot.waiting}", "yellow"))
    if snapshot.stopping:
        lines.append(Text("stopping when what is in flight is here; Ctrl-C again cancels it", "yellow"))
    return Group(*lines)


def _drawn_plan(asking: Asking) -> RenderableType:
    head = Table.grid(padding=(0, 1))
    done = 100 * asking.asked // max(asking.number, 1)
    head.add_row(ProgressBar(asking.number, asking.asked, width=40), f"{done} %")
    return Group(head, Text(asked(asking), "yellow" if asking.waiting or asking.stopping else ""))
