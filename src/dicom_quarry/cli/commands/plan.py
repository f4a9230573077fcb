"""``quarry plan``: what a cohort would come to, before anything moves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli import options
from dicom_quarry.cli.console import fail, out
from dicom_quarry.cli.display.run_job import run_with_display
from dicom_quarry.errors import InputError
from dicom_quarry.reporting.plan_files import plan_json
from dicom_quarry.reporting.plan_summary import plan_lines, render_plan


def plan(
    cohort: Annotated[
        Path,
        typer.Argument(help="A table with a header, such as EMPI,Accession: CSV, TSV, XLSX, or - for stdin."),
    ],
    from_: options.From = None,
    as_: options.As = None,
    to: Annotated[
        Path | None, typer.Option(help="The folder that will be filled, for its disk.  [default: .]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the plan to this file: CSV, or JSON if it is named .json."
        ),
    ] = None,
    detailed: Annotated[
        bool, typer.Option("--detailed", help="Ask the archive for more of every study, for the file.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For scripts: JSON without identifiers; -o plan.json has all.")
    ] = False,
    config_file: options.ConfigFile = None,
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
    no_diagnosis: options.NoDiagnosis = False,
) -> None:
    """Ask the archive about every row, and show what an extraction would come to. Nothing is moved.

    Interrupted and run again it goes on. quarry extract, with the same options, uses the answers for a day.
    Exit codes: 0 every row has studies to fetch; 1 some have none; 2 usage, configuration or input;
    3 could not start; 4 not every row was asked about.

    Example:  quarry plan cohort.csv --from PACS@10.1.2.3:104 -o plan.csv
    """
    if output is not None and not output.absolute().parent.is_dir():
        raise InputError(f"{output}: there is no folder {output.parent}")
    flags = {
        "from": from_,
        "as": as_,
        "to": to,
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
        "max_studies": max_studies,
    }
    chosen = options.drop_unset(flags) | ({"diagnosis": False} if no_diagnosis else {})
    settings = api.plan_settings(config_file, chosen)
    end = run_with_display(settings, lambda runner: runner.plan(cohort, detailed=detailed), quiet=as_json)
    plan_result = api.build_plan(settings, end, detailed=detailed)
    if output is not None:
        plan_result.write(output)
    _show_plan(plan_result, output, as_json=as_json)
    if plan_result.problem:
        fail(plan_result.problem)
    raise typer.Exit(plan_result.exit_code)


def _show_plan(plan_result: api.Plan, output: Path | None, *, as_json: bool) -> None:
    """Whole on a terminal, by row numbers alone elsewhere."""
    if as_json:
        sys.stdout.writelines(plan_json(plan_result.summary, plan_result.rows()))
    elif sys.stdout.isatty():
        out.print(render_plan(plan_result.summary, plan_result.rows(), output), soft_wrap=False)
    else:
        print("\n".join(plan_lines(plan_result.summary, output)))
