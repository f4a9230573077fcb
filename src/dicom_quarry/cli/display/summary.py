"""The end of a job, as a person sees it."""

from __future__ import annotations

import sys

from dicom_quarry.api import Result
from dicom_quarry.cli.console import out
from dicom_quarry.reporting.summary import render_summary, summary_lines


def show_summary(result: Result) -> None:
    """Show how a job ended: whole on a terminal, by row numbers alone elsewhere."""
    if sys.stdout.isatty():
        out.print(render_summary(result.summary, result.report))
    else:
        for line in summary_lines(result.summary, result.report):
            print(line)
