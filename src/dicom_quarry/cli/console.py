"""Where commands write: colour and identifiers on a terminal alone."""

from __future__ import annotations

import sys

from rich.console import Console

from dicom_quarry.api import Result
from dicom_quarry.report import render_summary, summary_lines

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(error: BaseException | str) -> None:
    """Say what is wrong."""
    err.print("[red]quarry:[/red] ", end="")
    err.print(str(error), markup=False)


def show_summary(result: Result) -> None:
    """The end of a job: whole on a terminal, by row numbers alone elsewhere."""
    if sys.stdout.isatty():
        out.print(render_summary(result.summary, result.report))
    else:
        for line in summary_lines(result.summary, result.report):
            print(line)
