"""``quarry extract`` and ``quarry retry``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli import detach as background
from dicom_quarry.cli import options
from dicom_quarry.cli.display.run_job import run_job
from dicom_quarry.config.settings import Settings, load_settings
from dicom_quarry.errors import InputError
from dicom_quarry.model import OutcomeStatus

_UNLIMITED_STUDIES = 1_000_000

#: What ``retry`` works on when it is not told: everything that another try may change.
_RETRIED_BY_DEFAULT = frozenset(OutcomeStatus) - {
    OutcomeStatus.COMPLETE,
    OutcomeStatus.PENDING,
    OutcomeStatus.INVALID_ROW,
    OutcomeStatus.EXCLUDED,
}


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
        background.run_in_background(table=cohort)
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
        "max_studies": _UNLIMITED_STUDIES if yes else max_studies,
        "accept_mismatch": accept_mismatch,
        "skip_bad_rows": skip_bad_rows,
    }
    chosen = options.drop_unset(flags) | ({"diagnosis": False} if no_diagnosis else {})
    settings, table = _load_job(cohort, niffler, config_file, chosen)
    raise typer.Exit(run_job(settings, lambda runner: runner.extract(table, update=update), queue=queue))


def _load_job(
    cohort: Path | None, niffler: Path | None, config_file: Path | None, flags: dict[str, object]
) -> tuple[Settings, Path]:
    """What to run over which table, told by flags and quarry.toml or by the former extractor's files."""
    if niffler is None:
        if cohort is None:
            raise InputError("which table? give a file with a header such as EMPI,Accession, or - for stdin")
        return load_settings(config_file, flags), cohort
    # Imported here: few come from the former extractor.
    from dicom_quarry.cli.niffler_hint import load_niffler_job

    if config_file is not None:
        raise InputError("--niffler and --config both bring settings: give one of them")
    return load_niffler_job(niffler, cohort, flags)


def retry(
    folder: Annotated[Path, typer.Argument(help="The folder of a job (its --to).")],
    outcome: Annotated[
        list[OutcomeStatus] | None,
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
        background.run_in_background()
    if damaged or changed:
        if outcome:
            raise InputError("--outcome is for what did not end complete: leave it out, or --damaged")
        refetch = partial(api.refetch, folder, damaged=damaged, changed=changed)
        raise typer.Exit(run_job(api.load_settings(folder), refetch, queue=queue))
    statuses = frozenset(outcome) if outcome else _RETRIED_BY_DEFAULT
    raise typer.Exit(run_job(api.load_settings(folder), lambda runner: runner.retry(statuses), queue=queue))
