"""The progress of a call from Python: one output of a notebook that is updated, or a live display."""

from __future__ import annotations

import sys
import time
import uuid
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dicom_quarry.api.notebook import is_ipython
from dicom_quarry.jobs.observer import GuardedObserver, JobObserver, ObserverGroup, describe_unused_columns
from dicom_quarry.jobs.progress import QueryProgress, Snapshot
from dicom_quarry.ledger.cohort_rows import CohortChange
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.progress_text import (
    format_cohort,
    format_cohort_change,
    format_query_progress,
    format_rate,
    format_totals,
)

if TYPE_CHECKING:
    from dicom_quarry.reporting.live_display import LiveDisplay

#: Seconds between two updates of an output.
_INTERVAL = 0.5
_MAX_MESSAGES = 5


class OutputDisplay(JobObserver):
    """One output of a notebook, which is updated in place; a context. It has no identifiers."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._id = uuid.uuid4().hex
        self._is_shown = self._is_broken = False
        self._due_at = 0.0
        self._done = self._total = 0
        self._messages: deque[str] = deque(maxlen=_MAX_MESSAGES)

    def __enter__(self) -> OutputDisplay:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            interrupted = issubclass(kind, KeyboardInterrupt)
            lines = ["Run the same call again to go on."] if interrupted else []
            self._draw("Interrupted" if interrupted else "Ended by an error", lines)

    def on_cohort_read(self, mapping: tuple[tuple[str, str], ...], rows: int, notes: tuple[str, ...]) -> None:
        """Show how the table was read; notes contain values of the table, so only their number."""
        if notes:
            self.on_message(f"{format_count(len(notes), 'note')} on the table: quarry plan shows them")
        self._total = rows
        self.update(0, rows, [format_cohort(mapping, rows)])

    def on_columns_unused(self, names: tuple[str, ...]) -> None:
        """Show the columns that are not searched by."""
        if names:
            self.on_message(describe_unused_columns(names))

    def on_cohort_updated(self, change: CohortChange) -> None:
        """Show what an updated table has changed."""
        self.on_message(format_cohort_change(change))

    def on_queued(self, waiting_for: str) -> None:
        """Show the reason of the wait."""
        self.update(self._done, self._total, [f"waiting for {waiting_for}"])

    def on_progress(self, snapshot: Snapshot) -> None:
        """Show how far the job is: by bytes where they are known, else by rows."""
        counts = snapshot.counts
        done, total = counts.rows - counts.rows_by_status.get(OutcomeStatus.PENDING, 0), counts.rows
        if snapshot.bytes_expected:
            done, total = snapshot.bytes_done, snapshot.bytes_expected
        self.update(done, total, [format_totals(snapshot), format_rate(snapshot)])

    def on_query_progress(self, progress: QueryProgress) -> None:
        """Show how many queries are done."""
        self.update(progress.done, progress.total, [format_query_progress(progress)])

    def on_message(self, message: str) -> None:
        """Show a message below the progress, with the next update."""
        self._messages.append(message)

    def update(self, done: int, total: int, lines: list[str]) -> None:
        """Show progress, if it is time for that."""
        self._done, self._total = done, total
        now = time.monotonic()
        if now >= self._due_at:
            self._due_at = now + _INTERVAL
            self._draw(self._title, lines)

    def finish(self, done: int, total: int, line: str) -> None:
        """Show the end, which stays in the notebook."""
        self._done, self._total = done, total
        self._draw("Done" if done >= total else "Ended", [line])

    def _draw(self, title: str, lines: list[str]) -> None:
        from IPython.display import display

        from dicom_quarry.reporting.html.notebook import ProgressView, progress_output

        view = ProgressView(title, self._done, self._total, lines, tuple(self._messages))
        text = "\n".join([f"{title}: {min(100, 100 * self._done // max(self._total, 1))} %", *lines])
        bundle = {"text/html": progress_output(view), "text/plain": text}
        try:
            display(bundle, raw=True, display_id=self._id, update=self._is_shown)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - a notebook that went away must not end the job
            if not self._is_broken:
                self._is_broken = True
                warnings.warn(f"the progress cannot be shown ({error}). The job goes on", stacklevel=2)
        self._is_shown = True


@contextmanager
def open_progress(
    title: str, observer: JobObserver | None, *, progress: bool
) -> Iterator[tuple[JobObserver, OutputDisplay | LiveDisplay | None]]:
    """Yield the observer of a call, and the display to finish, None where there is none.

    ``progress`` shows nothing where the output is neither that of a notebook nor a terminal.
    """
    observers: list[JobObserver] = [] if observer is None else [GuardedObserver(observer)]
    if progress and is_ipython(kernel=True):
        with OutputDisplay(title) as output:
            yield ObserverGroup([*observers, output]), output
    elif progress and sys.stdout.isatty():
        # Imported here: only a terminal needs rich's live display.
        from rich.console import Console

        from dicom_quarry.reporting.live_display import LiveDisplay

        with LiveDisplay(Console()) as live:
            yield ObserverGroup([*observers, GuardedObserver(live)]), live
    else:
        yield (observers[0] if observers else JobObserver()), None
