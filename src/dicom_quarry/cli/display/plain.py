"""A job as it runs, in words; and the timestamped lines that show it where there is no terminal."""

from __future__ import annotations

import time
from datetime import datetime

from dicom_quarry.jobs.observer import Listener
from dicom_quarry.jobs.progress import Asking, Snapshot
from dicom_quarry.ledger.cohort_rows import CohortChange
from dicom_quarry.model import Word
from dicom_quarry.reporting.formatting import counted, human_size
from dicom_quarry.system.time_text import spoken_time

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
        self.said(read(mapping, rows))
        if notes:
            self.said(f"{len(notes)} notes on values that were repaired: run in a terminal to see them")

    def updated(self, change: CohortChange) -> None:
        """A newer table was taken."""
        self.said(changed(change))

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
            self.said("; ".join(line for line in (amounts(snapshot), pace(snapshot)) if line))

    def asking(self, asking: Asking) -> None:
        """A line when it is time for one."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY
            self.said(asked(asking))

    def said(self, message: str) -> None:
        """A line of its own."""
        print(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {message}", flush=True)


def asked(asking: Asking) -> str:
    """How far the questions of a plan are."""
    what, rate = asking.what, f"{asking.per_second:,.0f}"
    text = f"{asking.asked:,} of {asking.number:,} {what} asked about, {rate} {what}/s"
    if asking.waiting:
        return f"{text}, waiting for {asking.waiting}"
    return f"{text}, {spoken_time(asking.seconds_left)} left" if asking.seconds_left is not None else text


def read(mapping: tuple[tuple[str, str], ...], rows: int) -> str:
    """How the table was read."""
    columns = ", ".join(f"{header} as {keyword}" for header, keyword in mapping)
    return f"{counted(rows, 'row')}; {columns}"


def changed(change: CohortChange) -> str:
    """What an update has changed."""
    return f"the cohort: {change.added:,} rows added, {change.dropped:,} dropped, {change.changed:,} changed"


def amounts(snapshot: Snapshot) -> str:
    """How much of a job is done."""
    counts = snapshot.counts
    done = counts.rows - counts.rows_by_word.get(Word.PENDING, 0)
    exceptions = done - counts.rows_by_word.get(Word.COMPLETE, 0)
    text = (
        f"{done:,} of {counts.rows:,} rows, "
        f"{counts.studies_complete:,} of {counts.studies:,} studies complete, "
        f"{snapshot.instances:,} instances ({human_size(snapshot.size)}) received"
    )
    return f"{text}, {exceptions:,} rows with exceptions" if exceptions else text


def pace(snapshot: Snapshot) -> str:
    """How fast a job is, and what it waits for or how long it needs."""
    text = (
        f"{snapshot.instances_per_second:,.0f} instances/s, {human_size(round(snapshot.bytes_per_second))}/s"
    )
    if snapshot.waiting:
        return f"{text}, waiting for {snapshot.waiting}"
    return f"{text}, {spoken_time(snapshot.seconds_left)} left" if snapshot.seconds_left is not None else text
