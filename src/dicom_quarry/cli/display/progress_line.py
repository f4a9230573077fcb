"""A progress line: redrawn in place on a terminal, printed once a minute elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Self

from rich.live import Live
from rich.text import Text

from dicom_quarry.cli.console import out, write_line

#: Seconds between two printed lines, before the first of them, and between two redraws on a terminal.
_INTERVAL, _FIRST_DELAY, _REDRAW_INTERVAL = 60.0, 5.0, 0.25


class ProgressLine:
    """A context; ``show`` may be called at every change."""

    def __init__(self) -> None:
        self._live = Live(console=out, auto_refresh=False, transient=True)
        self._next_line_at = time.monotonic() + (0.0 if out.is_terminal else _FIRST_DELAY)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, format_line: Callable[[], str]) -> None:
        """Show the line that ``format_line`` makes, if it is time for one."""
        now = time.monotonic()
        if now < self._next_line_at:
            return
        if out.is_terminal:
            self._next_line_at = now + _REDRAW_INTERVAL
            self._live.update(Text(format_line(), no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            self._next_line_at = now + _INTERVAL
            print_line(format_line())


def print_line(line: str) -> None:
    """Print a line; in a file or pipe with the time before it."""
    if out.is_terminal:
        out.print(line)
    else:
        write_line(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {line}")
