"""A job as a command runs it: shown, stopped when asked, summed up at its end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

from dicom_quarry import api
from dicom_quarry.cli import detach as background
from dicom_quarry.cli.console import err, fail, out
from dicom_quarry.cli.display.plain import PlainDisplay
from dicom_quarry.cli.display.summary import show_summary
from dicom_quarry.config.settings import Settings
from dicom_quarry.extraction.runner import JobEnd, Runner
from dicom_quarry.jobs.observer import Listener

T = TypeVar("T")


def run(settings: Settings, work: Callable[[Runner], JobEnd], *, queue: bool = False) -> int:
    """Run a job with its display, write its reports, show its summary; returns the exit code."""
    with api.telling(settings, lambda message: err.print(message, markup=False)) as ended:
        end = attended(settings, work, queue=queue)
        if end.nothing_to_do:
            out.print(f"nothing to do: the job in {end.folder.out} is finished", markup=False)
        result = api.reports_of(end)
        show_summary(result)
        if end.problem:
            # An archive's own words may name a patient.
            fail(end.problem if err.is_terminal else end.told)
        ended(end, result)
    return result.exit_code


def attended(
    settings: Settings, work: Callable[[Runner], T], *, quiet: bool = False, queue: bool = False
) -> T:
    """Do something with a display, unless it is to be ``quiet``, and stop it when asked."""
    with nullcontext(Listener()) if quiet else _display() as display:
        runner = Runner(settings, display, queue=queue)
        with _stopped_by_signals(runner):
            return work(runner)


@contextmanager
def _display() -> Iterator[Listener]:
    if background.is_launched():
        yield background.DetachedDisplay()
    elif sys.stdout.isatty():
        # Imported here: only a terminal needs what draws on it.
        from dicom_quarry.cli.display.live import LiveDisplay

        with LiveDisplay(out) as live:
            yield live
    else:
        yield PlainDisplay()


@contextmanager
def _stopped_by_signals(runner: Runner) -> Iterator[None]:
    """Ctrl-C or SIGTERM once: finish what is in flight; twice: cancel it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: runner.stop())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
