"""A job as it runs: a live display on a terminal, timestamped lines elsewhere."""

from __future__ import annotations

import time
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dicom_quarry.extraction.listener import Listener
from dicom_quarry.extraction.progress import Asking, Snapshot
from dicom_quarry.ledger.rows import CohortChange
from dicom_quarry.model import Word
from dicom_quarry.report import counted, human_size, spoken_time

#: Seconds between two lines where nobody watches; the first comes early.
_EVERY = 60.0
_FIRST = 5.0


class PlainDisplay(Listener):
    """One line a minute with a timestamp, and one for everything worth knowing."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _FIRST
        self._queued = False

    def cohort(self, mapping: tuple[tuple[str, str], ...], rows: int, notes: tuple[str, ...]) -> None:
        """The table was read."""
        self.said(_read(mapping, rows))
        if notes:
            self.said(f"{len(notes)} notes on values that were repaired: run in a terminal to see them")

    def updated(self, change: CohortChange) -> None:
        """A newer table was taken."""
        self.said(_changed(change))

    def queued(self, behind: str) -> None:
        """A line at once, and then when it is time for one."""
        if not self._queued or time.monotonic() >= self._next:
            self._queued = True
            self._next = time.monotonic() + _EVERY
            self.said(f"waiting for {behind}")

    def tick(self, snapshot: Snapshot) -> None:
        """A line when it is time for one."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY
            self.said("; ".join(line for line in (_amounts(snapshot), _pace(snapshot)) if line))

    def asking(self, asking: Asking) -> None:
        """A line when it is time for one."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY
            self.said(_asked(asking))

    def said(self, message: str) -> None:
        """A line of its own."""
        print(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {message}", flush=True)


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
        self._console.print(_read(mapping, rows), markup=False)
        for note in notes:
            self._console.print(f"  {note}", markup=False)

    def updated(self, change: CohortChange) -> None:
        """A newer table was taken."""
        self._console.print(_changed(change), markup=False)

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
    lines: list[RenderableType] = [head, Text(_amounts(snapshot)), Text(_pace(snapshot))]
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
    return Group(head, Text(_asked(asking), "yellow" if asking.waiting or asking.stopping else ""))


def _asked(asking: Asking) -> str:
    what, rate = asking.what, f"{asking.per_second:,.0f}"
    text = f"{asking.asked:,} of {asking.number:,} {what} asked about, {rate} {what}/s"
    if asking.waiting:
        return f"{text}, waiting for {asking.waiting}"
    return f"{text}, {spoken_time(asking.seconds_left)} left" if asking.seconds_left is not None else text


def _read(mapping: tuple[tuple[str, str], ...], rows: int) -> str:
    columns = ", ".join(f"{header} as {keyword}" for header, keyword in mapping)
    return f"{counted(rows, 'row')}; {columns}"


def _changed(change: CohortChange) -> str:
    return f"the cohort: {change.added:,} rows added, {change.dropped:,} dropped, {change.changed:,} changed"


def _amounts(snapshot: Snapshot) -> str:
    counts = snapshot.counts
    done = counts.rows - counts.rows_by_word.get(Word.PENDING, 0)
    exceptions = done - counts.rows_by_word.get(Word.COMPLETE, 0)
    text = (
        f"{done:,} of {counts.rows:,} rows, "
        f"{counts.studies_complete:,} of {counts.studies:,} studies complete, "
        f"{snapshot.instances:,} instances ({human_size(snapshot.size)}) received"
    )
    return f"{text}, {exceptions:,} rows with exceptions" if exceptions else text


def _pace(snapshot: Snapshot) -> str:
    text = (
        f"{snapshot.instances_per_second:,.0f} instances/s, {human_size(round(snapshot.bytes_per_second))}/s"
    )
    if snapshot.waiting:
        return f"{text}, waiting for {snapshot.waiting}"
    return f"{text}, {spoken_time(snapshot.seconds_left)} left" if snapshot.seconds_left is not None else text
