"""``quarry report``: write the reports of a job, also while it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli import options
from dicom_quarry.cli.chosen_folder import choose_folder
from dicom_quarry.cli.display.run_job import show_summary


def report(
    folder: options.FolderOrDefault = None,
    xlsx: Annotated[
        bool,
        typer.Option("--xlsx", help="Also write report.xlsx, all cells as text; later runs update it."),
    ] = False,
) -> None:
    """Write the reports of a job and show its summary.

    The reports are report.csv, studies.csv and manifest.csv.gz. Also works while the job runs.

    Exit codes: 0 every row complete or filtered; 1 finished, some rows need attention; 4 not finished.

    Examples:
      quarry report out/
      quarry report out/ --xlsx
      quarry report
    """
    result = api.report(choose_folder(folder), xlsx=xlsx)
    show_summary(result)
    raise typer.Exit(result.exit_code)
