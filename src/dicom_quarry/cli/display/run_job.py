"""A job with its display, from its start to its summary."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from dicom_quarry import api
from dicom_quarry.cli import detach
from dicom_quarry.cli.chosen_folder import resume_command
from dicom_quarry.cli.console import err, fail, out, write_line
from dicom_quarry.cli.display.plain import PlainDisplay

if TYPE_CHECKING:
    # Only a command that runs a job loads what runs it; quarry report shows a summary alone.
    from dicom_quarry.api import JobObserver, JobResult, Result, Runner, Settings, StopSignals

#: Reports that are written on request, by name.
_FURTHER_REPORTS = {
    "report.xlsx": "workbook",
    "problems.csv": "rows that need attention",
    "SHA256SUMS": "checksums",
    "report.html": "page",
}


def show_summary(result: Result) -> None:
    """Show how a job ended: in full on a terminal, by row numbers alone elsewhere."""
    if sys.stdout.isatty():
        out.print(api.render_summary(result.summary, result.report))
    else:
        for line in api.summary_lines(result.summary, result.report):
            write_line(line)
    for path in result.further_reports:
        write_line(f"{_FURTHER_REPORTS[path.name]}: {path}")
    for problem in filter(None, (result.sign_problem, result.page_problem)):
        err.print(problem)


T = TypeVar("T")

#: Exit code of a job that is not finished.
_NOT_FINISHED = 4


def run_job(
    settings: Settings, work: Callable[[Runner], JobResult], *, queue: bool = False, continues: bool = False
) -> int:
    """Run a job with its display, write its reports and show its summary; returns the exit code.

    ``continues``: the settings are those of the job's record.
    """
    with (
        api.StopSignals() as signals,
        api.notify_on_end(settings, err.print) as notify_end,
    ):
        end = _run_with_signals(settings, work, signals, queue=queue, continues=continues)
        if end.nothing_to_do:
            out.print(f"Nothing to do: the job in {end.folder.out} is finished")
        result = api.write_final_reports(end)
        show_summary(result)
        if result.exit_code == _NOT_FINISHED:
            out.print(_describe_next_command(end))
        if end.problem:
            # The archive's own words may contain patient identifiers.
            fail(end.problem if err.is_terminal else end.redacted_problem)
        signals.exit_code = result.exit_code
        notify_end(end, result)
    return result.exit_code


def _describe_next_command(end: JobResult) -> str:
    label = end.folder.label
    if end.goes_on:
        return (
            f"let go of {label}: the workers go on. To see it:  quarry status {label}; to stop it:  quarry "
            f"stop {label}"
        )
    return f"to continue: {resume_command(label)}"


def run_with_display(
    settings: Settings,
    work: Callable[[Runner], T],
    *,
    quiet: bool = False,
    queue: bool = False,
    continues: bool = False,
) -> T:
    """Call ``work`` with a display, unless ``quiet``; Ctrl-C and SIGTERM stop it."""
    with api.StopSignals() as signals:
        return _run_with_signals(settings, work, signals, quiet=quiet, queue=queue, continues=continues)


def _run_with_signals(
    settings: Settings,
    work: Callable[[Runner], T],
    signals: StopSignals,
    *,
    quiet: bool = False,
    queue: bool = False,
    continues: bool = False,
) -> T:
    """Call ``work``: the first signal finishes the studies being transferred, the second cancels them."""
    with nullcontext(api.JobObserver()) if quiet else _open_display() as display:
        runner = api.make_runner(settings, display, queue=queue, continues=continues)
        signals.begin(runner.queries.stop)
        try:
            return work(runner)
        finally:
            signals.finish()


@contextmanager
def _open_display() -> Iterator[JobObserver]:
    if api.is_background_job():
        yield detach.DetachedDisplay()
    elif sys.stdout.isatty():
        with api.LiveDisplay(out) as live:
            yield live
    else:
        yield PlainDisplay()
