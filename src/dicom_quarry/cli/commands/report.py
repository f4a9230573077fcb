"""``quarry report``: write the reports of a job, also while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli import options
from dicom_quarry.cli.chosen_folder import choose_folder
from dicom_quarry.cli.console import write_line
from dicom_quarry.cli.display.run_job import show_summary


def report(
    folder: options.FolderOrDefault = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Write them to this folder.  [default: beside the images]", show_default=False),
    ] = None,
    xlsx: Annotated[
        bool,
        typer.Option("--xlsx", help="Also write report.xlsx, a workbook to read; later runs update it."),
    ] = False,
    problems: Annotated[
        bool,
        typer.Option("--problems", help="Also write problems.csv: the rows that need attention alone."),
    ] = False,
    sha256sums: Annotated[
        bool,
        typer.Option("--sha256sums", help="Also write SHA256SUMS, for  sha256sum -c SHA256SUMS."),
    ] = False,
    html: Annotated[
        bool,
        typer.Option("--html", help="Write report.html, a page for any browser, also with  html = false."),
    ] = False,
    identifiers: options.Identifiers = False,
    bom: Annotated[
        bool | None,
        typer.Option(
            "--bom/--no-bom",
            help="Begin the CSV files with a byte order mark, for Excel.  [default: as they are]",
        ),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY", help="Sign proof.json with this Ed25519 key, a PEM file.", show_default=False
        ),
    ] = None,
) -> None:
    """Write the reports of a job and show its summary.

    The reports are report.csv, studies.csv, manifest.csv.gz, proof.json and report.html. This also works
    while the job runs.
    Reports that you request once are kept up to date by later runs. With --to they are written also on a
    computer that does not have the images of job:NAME.

    Exit codes: 0 every row complete or filtered; 1 finished, some rows need attention; 4 not finished.

    Examples:
      quarry report out/
      quarry report out/ --xlsx
      quarry report job:ct-2026 --to reports
    """
    out = choose_folder(folder)
    result = api.report(
        out,
        to=to,
        xlsx=xlsx,
        problems=problems,
        sha256sums=sha256sums,
        bom=bom,
        sign=sign,
        html=html,
        identifiers=identifiers,
    )
    show_summary(result)
    if problems and not result.report.with_name("problems.csv").exists():
        write_line("no row needs attention: there is no problems.csv")
    raise typer.Exit(result.exit_code)
