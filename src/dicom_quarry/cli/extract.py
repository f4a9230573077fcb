"""``quarry extract`` and ``quarry retry``: run a job, show it, stop it when asked."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from dicom_quarry import api, config
from dicom_quarry.cli import detach as background
from dicom_quarry.cli import options
from dicom_quarry.cli.console import err, fail, out
from dicom_quarry.cli.display import LiveDisplay, PlainDisplay
from dicom_quarry.cli.summary import show_summary
from dicom_quarry.cohort.table import open_table
from dicom_quarry.errors import InputError
from dicom_quarry.extraction.listener import Listener
from dicom_quarry.extraction.runner import JobEnd, Runner
from dicom_quarry.model import Word
from dicom_quarry.niffler import Niffler
from dicom_quarry.niffler import read as read_niffler

_ANY_NUMBER = 1_000_000

T = TypeVar("T")

#: What ``retry`` works on when it is not told: everything that another try may change.
_RETRIED = frozenset(Word) - {Word.COMPLETE, Word.PENDING, Word.INVALID_ROW, Word.EXCLUDED}


def extract(
    cohort: Annotated[
        Path | None,
        typer.Argument(help="A table with a header, such as EMPI,Accession: CSV, TSV, XLSX, or - for stdin."),
    ] = None,
    from_: options.From = None,
    as_: options.As = None,
    retrieve: options.Retrieve = None,
    to: Annotated[Path | None, typer.Option(help="The folder to fill.")] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Where the job's record is kept, on a local disk.  [default: TO/.quarry]"),
    ] = None,
    file_mode: options.FileMode = None,
    group: options.Group = None,
    config_file: options.ConfigFile = None,
    niffler: Annotated[
        Path | None, typer.Option(help="Run a config.json of the extractor that Quarry replaces.")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(help="Studies asked for at once.  [default: 1, as a guest]")
    ] = None,
    give_up_after: Annotated[
        str | None,
        typer.Option(help="Stop when the archive did not answer for so long, such as 2d.  [default: never]"),
    ] = None,
    protocol: options.Protocol = None,
    on_complete: Annotated[
        str | None,
        typer.Option(
            help="A command to run for every complete study; {folder} is its folder, JSON on stdin."
        ),
    ] = None,
    filepath: Annotated[
        str | None,
        typer.Option(
            help="Pattern of file names; also {csv:COLUMN}.  [default: PatientID/Study/Series/SOP.dcm]"
        ),
    ] = None,
    map_: options.Map = None,
    where: options.Where = None,
    rewrite: options.Rewrite = None,
    pad: options.Pad = None,
    exclude: options.Exclude = None,
    date_format: options.DateFormat = None,
    allow_wildcards: options.AllowWildcards = False,
    series: options.Series = None,
    series_not: options.SeriesNot = None,
    min_instances: options.MinInstances = None,
    allow_several_patients: options.AllowSeveralPatients = False,
    whole_patients: options.WholePatients = False,
    max_studies: options.MaxStudies = None,
    yes: Annotated[bool, typer.Option("--yes", help="Any number of studies for a row is meant.")] = False,
    no_diagnosis: options.NoDiagnosis = False,
    accept_mismatch: Annotated[
        bool, typer.Option("--accept-mismatch", help="Take images whose patient ID or accession differs.")
    ] = False,
    skip_bad_rows: Annotated[
        bool,
        typer.Option("--skip-bad-rows", help="Go on without rows that cannot be used; the report has them."),
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Take a cohort file that has changed since the job was begun.")
    ] = False,
    queue: options.Queue = False,
    detach: options.Detach = False,
) -> None:
    """Extract the studies of a cohort, prove that nothing is missing, and explain every row.

    Run the same command again to go on after an interruption.

    Example:  quarry extract cohort.csv --from PACS@10.1.2.3:104 --as QUARRY:11112 --to out/
    """
    if detach:
        background.leave(table=cohort)
    flags = {
        "from": from_,
        "as": as_,
        "retrieve": retrieve,
        "to": to,
        "state": state,
        "file_mode": file_mode,
        "group": group,
        "parallel": parallel,
        "give_up_after": give_up_after,
        "protocol": protocol,
        "on_complete": on_complete,
        "filepath": filepath,
        "map": map_,
        "where": where,
        "rewrite": rewrite,
        "pad": pad,
        "exclude": exclude,
        "date_format": date_format,
        "allow_wildcards": allow_wildcards,
        "series": series,
        "series_not": series_not,
        "min_instances": min_instances,
        "allow_several_patients": allow_several_patients,
        "whole_patients": whole_patients,
        "max_studies": _ANY_NUMBER if yes else max_studies,
        "accept_mismatch": accept_mismatch,
        "skip_bad_rows": skip_bad_rows,
    }
    chosen = options.given(flags) | ({"diagnosis": False} if no_diagnosis else {})
    settings, table = _job(cohort, niffler, config_file, chosen)
    raise typer.Exit(run(settings, lambda runner: runner.extract(table, update=update), queue=queue))


def _job(
    cohort: Path | None, niffler: Path | None, config_file: Path | None, flags: dict[str, object]
) -> tuple[config.Settings, Path]:
    """What to run over which table, told by flags and quarry.toml or by the former extractor's files."""
    if niffler is None:
        if cohort is None:
            raise InputError("which table? give a file with a header such as EMPI,Accession, or - for stdin")
        return config.load(config_file, flags), cohort
    if config_file is not None:
        raise InputError("--niffler and --config both bring settings: give one of them")
    told = read_niffler(niffler)
    for note in told.notes:
        err.print(note, markup=False)
    if told.plan:
        detailed = " --detailed" if told.plan == "detailed" else ""
        raise InputError(f"{niffler} only asks what is there: run  quarry plan {told.cohort}{detailed}")
    table = cohort or told.cohort
    return told.settings({**_table_flags(told, table), **flags}), table


def _table_flags(told: Niffler, table: Path) -> dict[str, object]:
    header = open_table(table, lambda _: True)[0].header
    beyond = [at for at in told.columns if at >= len(header)]
    if beyond:
        raise InputError(f"{table} has {len(header)} columns; there is no column {beyond[0]}, counted from 0")
    columns = [f"{header[at].strip()}={keyword}" for at, keyword in told.columns.items()]
    rewrite = {"rewrite": ["long-accession"]} if told.long_accession else {}
    return {"map": columns, "date_format": told.date_format, **rewrite}


def retry(
    folder: Annotated[Path, typer.Argument(help="The folder of a job (its --to).")],
    outcome: Annotated[
        list[Word] | None,
        typer.Option(help="Only what ended so; may be repeated.  [default: all but complete]"),
    ] = None,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Files that quarry verify found damaged or missing, instead.")
    ] = False,
    changed: Annotated[
        bool,
        typer.Option("--changed", help="Studies that quarry verify --against-archive found grown, instead."),
    ] = False,
    queue: options.Queue = False,
    detach: options.Detach = False,
) -> None:
    """Try again what did not end complete: not found, partial, failed and the like.

    Example:  quarry retry out/ --outcome not_found
    """
    if detach:
        background.leave()
    if damaged or changed:
        if outcome:
            raise InputError("--outcome is for what did not end complete: leave it out, or --damaged")
        fetch = partial(api.fetched_again, folder, damaged=damaged, changed=changed)
        raise typer.Exit(run(api.settings_of(folder), fetch, queue=queue))
    words = frozenset(outcome) if outcome else _RETRIED
    raise typer.Exit(run(api.settings_of(folder), lambda runner: runner.retry(words), queue=queue))


def run(settings: config.Settings, work: Callable[[Runner], JobEnd], *, queue: bool = False) -> int:
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
    settings: config.Settings, work: Callable[[Runner], T], *, quiet: bool = False, queue: bool = False
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
