"""The display of ``quarry receive``: its counters."""

from __future__ import annotations

import time
from typing import Self

from rich.live import Live
from rich.text import Text

from dicom_quarry.api import ReceiverStats, format_count, format_size
from dicom_quarry.cli.console import out, write_line
from dicom_quarry.cli.display.warning_lines import timestamp

#: Seconds between two lines of a file or pipe.
_INTERVAL = 60.0

_REDRAW_INTERVAL = 1.0


class ReceiverDisplay:
    """Shows counters and rate: redrawn in place on a terminal, once a minute elsewhere; a context."""

    def __init__(self, stats: ReceiverStats) -> None:
        self._live = Live(console=out, auto_refresh=False, transient=True)
        self._interval = _REDRAW_INTERVAL if out.is_terminal else _INTERVAL
        self._shown, self._shown_at = stats, time.monotonic()

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, stats: ReceiverStats) -> None:
        """Show the counters, if it is time for that."""
        seconds = time.monotonic() - self._shown_at
        if seconds < self._interval:
            return
        rate = format_size(round((stats.bytes - self._shown.bytes) / seconds))
        line = f"{format_count(stats.open_associations, 'association')}, {rate}/s, {format_totals(stats)}"
        if out.is_terminal:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif stats != self._shown:
            write_line(f"{timestamp()} {line}")
        self._shown, self._shown_at = stats, time.monotonic()


def format_totals(stats: ReceiverStats) -> str:
    """Format the instances received and refused, and the associations rejected."""
    text = f"{format_count(stats.instances, 'instance')} ({format_size(stats.bytes)})"
    if stats.rejected_instances:
        text += f", {stats.rejected_instances:,} refused"
    if stats.rejected_associations:
        text += f", rejected associations: {stats.rejected_associations:,}"
    if stats.gave_way:
        text += f", idle associations ended for a new one: {stats.gave_way:,}"
    if stats.errors:
        text += f", waits for a thread, a file or memory: {stats.errors:,}"
    return text
