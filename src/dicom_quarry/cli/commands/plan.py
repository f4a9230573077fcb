"""``quarry plan``: the studies of a cohort and their size, found by queries alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli import cohort_options, options
from dicom_quarry.cli.console import fail, out, write_line
from dicom_quarry.cli.display.run_job import run_with_display
from dicom_quarry.cli.output_file import check_plan_file


def plan(
    cohort: cohort_options.Cohort,
    from_: cohort_options.From = None,
    as_: cohort_options.As = None,
    to: options.To = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the plan to a file: JSON if named .json, else CSV."),
    ] = None,
    detailed: Annotated[
        bool, typer.Option("--detailed", help="Query more attributes of every study, for the file.")
    ] = False,
    as_json: options.AsJson = False,
    config_file: options.ConfigFile = None,
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
    no_diagnosis: cohort_options.NoDiagnosis = False,
    trust_owner: options.TrustOwner = False,
) -> None:
    """Show what an extraction would fetch, and fetch nothing.

    Queries the archive for every row. --to names the folder whose free disk space counts (default: the
    current one). Run again after an interruption it continues. quarry extract with the same options reuses
    the query results for a day. Exit codes: 0 every row has studies to fetch; 1 some have none; 2 usage,
    configuration or input; 3 could not start; 4 not every row was queried.

    Examples:
      quarry plan cohort.csv --from PACS@10.1.2.3:104
      quarry plan cohort.csv -o plan.csv
      quarry plan cohort.xlsx --map 'Acc No=AccessionNumber' --series Modality=CT
    """
    if output is not None:
        check_plan_file(output, cohort, is_plan=api.is_plan_file(output))
    flags = {
        "from": from_,
        "as": as_,
        "to": to,
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
        "max_studies": max_studies,
        "trust_owner": trust_owner,
    }
    chosen = cohort_options.drop_unset(flags) | ({"diagnosis": False} if no_diagnosis else {})
    settings = api.load_plan_settings(config_file, chosen)
    end = run_with_display(
        settings, lambda runner: api.make_plan(runner.queries, cohort, detailed=detailed), quiet=as_json
    )
    plan_result = api.build_plan(settings, end, detailed=detailed)
    if output is not None:
        plan_result.write(output)
    _show_plan(plan_result, output, as_json=as_json)
    if plan_result.problem:
        fail(plan_result.problem)
    raise typer.Exit(plan_result.exit_code)


def _show_plan(plan_result: api.Plan, output: Path | None, *, as_json: bool) -> None:
    """Show the plan: in full on a terminal, by row numbers alone elsewhere."""
    if as_json:
        sys.stdout.writelines(api.plan_json(plan_result.summary, plan_result.rows()))
    elif sys.stdout.isatty():
        out.print(api.render_plan(plan_result.summary, plan_result.rows(), output), soft_wrap=False)
    else:
        write_line("\n".join(api.plan_lines(plan_result.summary, output)))
