"""``quarry extract`` and ``quarry retry``: run a job, show it, stop it when asked."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from dicom_quarry import api, config
from dicom_quarry.cli.console import fail, out, show_summary
from dicom_quarry.cli.display import LiveDisplay, PlainDisplay
from dicom_quarry.extraction.listener import Listener
from dicom_quarry.extraction.runner import JobEnd, Runner
from dicom_quarry.model import Word

T = TypeVar("T")

#: What ``retry`` works on when it is not told: everything that another try may change.
_RETRIED = frozenset(Word) - {Word.COMPLETE, Word.PENDING, Word.INVALID_ROW, Word.EXCLUDED}


def extract(
    cohort: Annotated[Path, typer.Argument(help="A table with a header, such as EMPI,Accession.")],
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="The archive: AET@HOST:PORT, or a name from quarry.toml; several, in order, with commas.",
        ),
    ] = None,
    as_: Annotated[
        str | None,
        typer.Option("--as", help=f"Our receiver: AET[@IP]:PORT.  [default: {config.DEFAULT_LOCAL}]"),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="The folder to fill.")] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Where the job's record is kept, on a local disk.  [default: TO/.quarry]"),
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="Settings.  [default: ./quarry.toml, if it is there]")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(help="Studies asked for at once.  [default: 1, as a guest]")
    ] = None,
    give_up_after: Annotated[
        str | None,
        typer.Option(
            help="Stop when the archive has not answered for so long, such as 2d.  [default: never]"
        ),
    ] = None,
    filepath: Annotated[
        str | None,
        typer.Option(
            help="Pattern of the file names; also {csv:COLUMN}.  [default: PatientID/Study/Series/SOP.dcm]"
        ),
    ] = None,
    allow_several_patients: Annotated[
        bool, typer.Option("--allow-several-patients", help="Take an accession that several patients share.")
    ] = False,
    max_studies: Annotated[
        int | None,
        typer.Option(help="Studies that one row may mean, or it is not moved.  [default: 10]"),
    ] = None,
    no_diagnosis: Annotated[
        bool, typer.Option("--no-diagnosis", help="Do not look for what is near a row that matched nothing.")
    ] = False,
    accept_mismatch: Annotated[
        bool, typer.Option("--accept-mismatch", help="Take images whose patient ID or accession differs.")
    ] = False,
    whole_patients: Annotated[
        bool, typer.Option("--whole-patients", help="Let a row with a patient alone mean all of the studies.")
    ] = False,
    skip_bad_rows: Annotated[
        bool,
        typer.Option("--skip-bad-rows", help="Go on without rows that cannot be used; the report has them."),
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Take a cohort file that has changed since the job was begun.")
    ] = False,
) -> None:
    """Extract the studies of a cohort, prove that nothing is missing, and explain every row.

    Run the same command again to go on after an interruption.

    Example:  quarry extract cohort.csv --from PACS@10.1.2.3:104 --as QUARRY:11112 --to out/
    """
    flags = {
        "from": from_,
        "as": as_,
        "to": to,
        "state": state,
        "parallel": parallel,
        "give_up_after": give_up_after,
        "max_studies": max_studies,
        "diagnosis": False if no_diagnosis else None,
        "filepath": filepath,
        # A flag that is not given leaves the word to quarry.toml.
        "allow_several_patients": allow_several_patients or None,
        "accept_mismatch": accept_mismatch or None,
        "whole_patients": whole_patients or None,
        "skip_bad_rows": skip_bad_rows or None,
    }
    settings = config.load(config_file, flags)
    raise typer.Exit(run(settings, lambda runner: runner.extract(cohort, update=update)))


def retry(
    folder: Annotated[Path, typer.Argument(help="The folder of a job (its --to).")],
    outcome: Annotated[
        list[Word] | None,
        typer.Option(help="Only what ended so; may be repeated.  [default: all but complete]"),
    ] = None,
) -> None:
    """Try again what did not end complete: not found, partial, failed and the like.

    Example:  quarry retry out/ --outcome not_found
    """
    words = frozenset(outcome) if outcome else _RETRIED
    raise typer.Exit(run(api.settings_of(folder), lambda runner: runner.retry(words)))


def run(settings: config.Settings, work: Callable[[Runner], JobEnd]) -> int:
    """Run a job with its display, write its reports, show its summary; returns the exit code."""
    end = attended(settings, work)
    if end.nothing_to_do:
        out.print(f"nothing to do: the job in {end.folder.out} is finished", markup=False)
    result = api.reports_of(end)
    show_summary(result)
    if end.problem:
        fail(end.problem)
    return result.exit_code


def attended(settings: config.Settings, work: Callable[[Runner], T], *, quiet: bool = False) -> T:
    """Do something with a display, unless it is to be ``quiet``, and stop it when asked."""
    with nullcontext(Listener()) if quiet else _display() as display:
        runner = Runner(settings, display)
        with _stopped_by_signals(runner):
            return work(runner)


@contextmanager
def _display() -> Iterator[Listener]:
    if sys.stdout.isatty():
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
