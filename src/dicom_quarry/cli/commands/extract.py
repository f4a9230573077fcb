"""``quarry extract`` and ``quarry retry``: fetch the studies of a cohort."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_quarry import api
from dicom_quarry.api import Settings
from dicom_quarry.cli import cohort_options, options
from dicom_quarry.cli.console import err
from dicom_quarry.cli.detach import run_in_background
from dicom_quarry.cli.display.run_job import run_job
from dicom_quarry.errors import InputError
from dicom_quarry.model import OutcomeStatus

if TYPE_CHECKING:
    # Only a command that runs a job loads what runs it.
    from dicom_quarry.api import JobResult, Runner


def extract(
    cohort: cohort_options.OptionalCohort = None,
    from_: cohort_options.From = None,
    as_: cohort_options.As = None,
    retrieve: cohort_options.Retrieve = None,
    to: options.To = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder for the job's record, on a local disk.  [default: TO/.quarry]"),
    ] = None,
    job: options.JobName = None,
    file_mode: options.FileMode = None,
    group: options.Group = None,
    config_file: options.ConfigFile = None,
    niffler: Annotated[
        Path | None, typer.Option(help="Run the job of a Niffler config.json, instead of quarry.toml.")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(help="Maximum studies to retrieve at the same time.  [default: 1]")
    ] = None,
    give_up_after: Annotated[
        str | None,
        typer.Option(help="Stop when the archive has not answered for this time: 2d.  [default: never]"),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Approval of this job, recorded in audit.csv, such as IRB-2026-014.")
    ] = None,
    on_complete: Annotated[
        str | None,
        typer.Option(
            help="A command to run for every complete study; {folder} is its folder, {folder-file} a file "
            "with its path, JSON on its stdin."
        ),
    ] = None,
    on_complete_env: Annotated[
        list[str] | None,
        typer.Option(
            help="A further variable of the environment for that command, such as 'AWS_*'; repeatable."
        ),
    ] = None,
    filepath: Annotated[
        str | None,
        typer.Option(
            help="Pattern of file names; also {csv:COLUMN}.  [default: PatientID/Study/Series/SOP.dcm]"
        ),
    ] = None,
    layout: options.Layout = None,
    portable_names: options.PortableNames = False,
    map_: cohort_options.Map = None,
    ignore_column: cohort_options.IgnoreColumn = None,
    verbatim: cohort_options.Verbatim = None,
    hidden_rows: cohort_options.HiddenRows = None,
    where: cohort_options.Where = None,
    rewrite: cohort_options.Rewrite = None,
    pad: cohort_options.Pad = None,
    exclude: cohort_options.Exclude = None,
    date_format: cohort_options.DateFormat = None,
    allow_wildcards: cohort_options.AllowWildcards = False,
    long_identifiers: cohort_options.LongIdentifiers = False,
    series: cohort_options.Series = None,
    series_not: cohort_options.SeriesNot = None,
    min_instances: cohort_options.MinInstances = None,
    allow_several_patients: cohort_options.AllowSeveralPatients = False,
    whole_patients: cohort_options.WholePatients = False,
    max_studies: cohort_options.MaxStudies = None,
    yes: cohort_options.AnyNumber = False,
    no_diagnosis: cohort_options.NoDiagnosis = False,
    accept_mismatch: cohort_options.AcceptMismatch = False,
    skip_bad_rows: Annotated[
        bool,
        typer.Option("--skip-bad-rows", help="Continue without unusable rows; the report lists them."),
    ] = False,
    update: Annotated[
        bool,
        typer.Option("--update", help="Continue with a cohort file that was changed meanwhile."),
    ] = False,
    archive_moved: Annotated[
        bool,
        typer.Option("--archive-moved", help="The archive of this job has another address now."),
    ] = False,
    trust_owner: options.TrustOwner = False,
    queue: options.Queue = False,
    detach: options.Detach = False,
) -> None:
    """Fetch the studies of a cohort and prove them complete.

    The report explains every row. After an interruption run the same command again: it continues where it
    stopped.

    Examples:
      quarry extract cohort.csv --from PACS@10.1.2.3:104 --as QUARRY:11112 --to out/
      quarry extract cohort.xlsx --to out/ --series Modality=CT --detach
      quarry extract longer.csv --to out/ --update
    """
    if detach:
        run_in_background(table=cohort)
    flags = {
        "from": from_,
        "as": as_,
        "retrieve": retrieve,
        "to": to,
        "state": state,
        "job": job,
        "file_mode": file_mode,
        "group": group,
        "parallel": parallel,
        "give_up_after": give_up_after,
        "protocol": protocol,
        "on_complete": on_complete,
        "on_complete_env": on_complete_env,
        "filepath": filepath,
        "layout": layout,
        "portable_names": portable_names,
        "map": map_,
        "ignore_column": ignore_column,
        "verbatim": verbatim,
        "hidden_rows": hidden_rows,
        "where": where,
        "rewrite": rewrite,
        "pad": pad,
        "exclude": exclude,
        "date_format": date_format,
        "allow_wildcards": allow_wildcards,
        "long_identifiers": long_identifiers,
        "series": series,
        "series_not": series_not,
        "min_instances": min_instances,
        "allow_several_patients": allow_several_patients,
        "whole_patients": whole_patients,
        "max_studies": api.UNLIMITED_STUDIES if yes else max_studies,
        "accept_mismatch": accept_mismatch,
        "skip_bad_rows": skip_bad_rows,
        "trust_owner": trust_owner,
    }
    chosen = cohort_options.drop_unset(flags) | ({"diagnosis": False} if no_diagnosis else {})
    settings, table = _load_job(cohort, niffler, config_file, chosen)
    work = partial(_extract, table, update=update, archive_moved=archive_moved)
    raise typer.Exit(run_job(settings, api.with_file_check(work), queue=queue))


def _extract(table: Path, runner: Runner, *, update: bool, archive_moved: bool) -> JobResult:
    return runner.extract(table, update=update, archive_moved=archive_moved)


def _load_job(
    cohort: Path | None, niffler: Path | None, config_file: Path | None, flags: dict[str, object]
) -> tuple[Settings, Path]:
    if niffler is None:
        if cohort is None:
            raise InputError("Which table? Give a file with a header such as EMPI,Accession, or - for stdin")
        return api.load_extract_settings(config_file, flags), cohort
    if config_file is not None:
        raise InputError("--niffler and --config both contain settings: give one of them")
    job = api.load_niffler_job(niffler, cohort, flags)
    for note in job.notes:
        err.print(note)
    return job.settings, job.cohort


def retry(
    folder: options.Folder,
    outcome: Annotated[
        list[OutcomeStatus] | None,
        typer.Option(help="Only rows with this outcome; repeatable.  [default: all that a retry may change]"),
    ] = None,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Instead: files that quarry verify found damaged or missing.")
    ] = False,
    changed: Annotated[
        bool,
        typer.Option("--changed", help="Instead: new instances that quarry verify --against-archive found."),
    ] = False,
    as_: cohort_options.As = None,
    retrieve: cohort_options.Retrieve = None,
    allow_several_patients: cohort_options.AllowSeveralPatients = False,
    max_studies: cohort_options.MaxStudies = None,
    yes: cohort_options.AnyNumber = False,
    accept_mismatch: cohort_options.AcceptMismatch = False,
    trust_owner: options.TrustOwner = False,
    queue: options.Queue = False,
    detach: options.Detach = False,
) -> None:
    """Try again the rows that are not complete.

    These are the rows that were not found, are partial, have failed and similar. Options that are given hold
    for the runs after this one, too.

    Examples:
      quarry retry out/
      quarry retry out/ --outcome not_found
      quarry retry out/ --damaged
    """
    if detach:
        run_in_background()
    if outcome and (damaged or changed):
        raise InputError("--outcome does not go with --damaged or --changed: leave one of them out")
    flags = {
        "local": as_,
        "retrieve": retrieve,
        "allow_several_patients": allow_several_patients,
        "max_studies": api.UNLIMITED_STUDIES if yes else max_studies,
        "accept_mismatch": accept_mismatch,
    }
    given = cohort_options.drop_unset(flags)
    settings = api.override_settings(api.load_job_settings(folder, trust_owner=trust_owner), given)
    if damaged or changed:
        refetch = partial(api.refetch, folder, damaged=damaged, changed=changed)
        raise typer.Exit(run_job(settings, refetch, queue=queue, continues=True))
    statuses = frozenset(outcome) if outcome else api.RETRIED_BY_DEFAULT
    recorded = api.list_changed_settings(given)
    work = partial(api.Runner.retry, statuses=statuses, options=recorded)
    raise typer.Exit(run_job(settings, work, queue=queue, continues=True))
