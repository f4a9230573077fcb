"""``quarry report``: write the reports of a job, also while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli.display.run_job import show_summary


def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a job (its --to).")],
    xlsx: Annotated[
        bool,
        typer.Option(
            "--xlsx", help="Write report.xlsx as well, every cell as text; it is then kept up to date."
        ),
    ] = False,
) -> None:
    """Write report.csv, studies.csv and manifest.csv.gz, also in mid-run, and show the summary.

    Example:  quarry report out/ --xlsx
    """
    result = api.report(folder, xlsx=xlsx)
    show_summary(result)
    raise typer.Exit(result.exit_code)
