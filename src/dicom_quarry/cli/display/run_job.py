"""A job with its display, from its start to its summary."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from dicom_quarry import api
from dicom_quarry.cli import detach
from dicom_quarry.cli.console import err, fail, out
from dicom_quarry.cli.display.plain import PlainDisplay

if TYPE_CHECKING:
    # Only a command that runs a job loads what runs it; quarry report shows a summary alone.
    from dicom_quarry.api import JobObserver, JobResult, Result, Runner, Settings


def show_summary(result: Result) -> None:
    """Show how a job ended: in full on a terminal, by row numbers alone elsewhere."""
    if sys.stdout.isatty():
        out.print(api.render_summary(result.summary, result.report))
    else:
        for line in api.summary_lines(result.summary, result.report):
            print(line)


T = TypeVar("T")


def run_job(settings: Settings, work: Callable[[Runner], JobResult], *, queue: bool = False) -> int:
    """Run a job with its display, write its reports and show its summary; returns the exit code."""
    with api.notify_on_end(settings, lambda message: err.print(message, markup=False)) as notify_end:
        end = run_with_display(settings, work, queue=queue)
        if end.nothing_to_do:
            out.print(f"Nothing to do: the job in {end.folder.out} is finished", markup=False)
        result = api.write_final_reports(end)
        show_summary(result)
        if end.problem:
            # The archive's own words may contain patient identifiers.
            fail(end.problem if err.is_terminal else end.redacted_problem)
        notify_end(end, result)
    return result.exit_code


def run_with_display(
    settings: Settings, work: Callable[[Runner], T], *, quiet: bool = False, queue: bool = False
) -> T:
    """Call ``work`` with a display, unless ``quiet``; Ctrl-C and SIGTERM stop it."""
    with nullcontext(api.JobObserver()) if quiet else _open_display() as display:
        runner = api.make_runner(settings, display, queue=queue)
        with _stop_on_signals(runner):
            return work(runner)


@contextmanager
def _open_display() -> Iterator[JobObserver]:
    if api.is_background_job():
        yield detach.DetachedDisplay()
    elif sys.stdout.isatty():
        # Imported here: only a terminal needs rich's live display.
        from dicom_quarry.cli.display.live import LiveDisplay

        with LiveDisplay(out) as live:
            yield live
    else:
        yield PlainDisplay()


@contextmanager
def _stop_on_signals(runner: Runner) -> Iterator[None]:
    """On the first Ctrl-C or SIGTERM finish the studies being transferred, on the second cancel them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: runner.queries.stop())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
