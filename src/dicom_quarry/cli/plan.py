"""``quarry plan``: what a cohort would come to, before anything moves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli.console import fail, out
from dicom_quarry.cli.extract import attended
from dicom_quarry.config import DEFAULT_LOCAL
from dicom_quarry.errors import InputError
from dicom_quarry.report import plan_json, plan_lines, render_plan


def plan(
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
        typer.Option("--as", help=f"Who we are: AET[@IP]:PORT.  [default: {DEFAULT_LOCAL}]"),
    ] = None,
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
    config_file: Annotated[
        Path | None, typer.Option("--config", help="Settings.  [default: ./quarry.toml, if it is there]")
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
    whole_patients: Annotated[
        bool, typer.Option("--whole-patients", help="Let a row with a patient alone mean all of the studies.")
    ] = False,
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
        "max_studies": max_studies,
        "diagnosis": False if no_diagnosis else None,
        # A flag that is not given leaves the word to quarry.toml.
        "allow_several_patients": allow_several_patients or None,
        "whole_patients": whole_patients or None,
    }
    settings = api.plan_settings(config_file, flags)
    end = attended(settings, lambda runner: runner.plan(cohort, detailed=detailed), quiet=as_json)
    made = api.planned(settings, end, detailed=detailed)
    if output is not None:
        made.write(output)
    _show(made, output, as_json=as_json)
    if made.problem:
        fail(made.problem)
    raise typer.Exit(made.exit_code)


def _show(made: api.Plan, output: Path | None, *, as_json: bool) -> None:
    """Whole on a terminal, by row numbers alone elsewhere."""
    if as_json:
        sys.stdout.writelines(plan_json(made.summary, made.rows()))
    elif sys.stdout.isatty():
        out.print(render_plan(made.summary, made.rows(), output), soft_wrap=False)
    else:
        print("\n".join(plan_lines(made.summary, output)))
