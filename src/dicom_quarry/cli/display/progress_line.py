"""How far something is that takes a while: one line, redrawn on a terminal, once a minute elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Self

from rich.live import Live
from rich.text import Text

from dicom_quarry.cli.console import out
from dicom_quarry.reporting.formatting import human_size
from dicom_quarry.system.time_text import spoken_time
from dicom_quarry.verification.verifier import Pace

#: Seconds between two lines where nobody watches; the first comes early. On a terminal it is redrawn often.
_EVERY, _FIRST, _DRAWN = 60.0, 5.0, 0.25


class PaceLine:
    """A context; ``show`` may be called as often as anything changes."""

    def __init__(self) -> None:
        self._live = Live(console=out, auto_refresh=False, transient=True)
        self._next = time.monotonic() + (0.0 if out.is_terminal else _FIRST)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, line: Callable[[], str]) -> None:
        """Show a line when it is time for one; only then it is made."""
        now = time.monotonic()
        if now < self._next:
            return
        if out.is_terminal:
            self._next = now + _DRAWN
            self._live.update(Text(line(), no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            self._next = now + _EVERY
            say(line())


def say(line: str) -> None:
    """A line of its own; with the time where it is kept."""
    if out.is_terminal:
        out.print(line, markup=False)
    else:
        print(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {line}", flush=True)


def files_line(pace: Pace) -> str:
    """So many of so many files, how fast, and how long it still takes."""
    done = min(100, 100 * pace.done.size // max(pace.all.size, 1))
    text = (
        f"{pace.done.files:,} of {pace.all.files:,} files ({done} %), "
        f"{pace.files_per_second:,.0f} files/s, {human_size(round(pace.bytes_per_second))}/s"
    )
    return text if pace.seconds_left is None else f"{text}, {spoken_time(pace.seconds_left)} left"
