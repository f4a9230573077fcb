"""``quarry explain``: everything that is known of one row, or of one study, in words."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli import options
from dicom_quarry.cli.console import write_line
from dicom_quarry.errors import InputError


def explain(
    folder: options.Folder,
    row: Annotated[int | None, typer.Option(help="Number of a row, as in the report and the log.")] = None,
    study: Annotated[str | None, typer.Option(help="A Study Instance UID.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show everything that happened to a row, or to a study.

    Every query, answer, retrieval and pause, and what to do next. A terminal shows the values of the row.
    Redirected output contains nothing that identifies a patient.

    Example:  quarry explain out/ --row 4711
    """
    if (row is None) is (study is None):
        raise InputError("Name one row with --row NUMBER, or one study with --study UID")
    with closing(api.open_history(folder)) as reader:
        numbers = [row] if row is not None else reader.rows_of(study or "")
        rows = [found for number in numbers if (found := reader.row_history(number))]
        studies = list(
            reader.study_histories_of_row(row) if row is not None else reader.study_histories(study or "")
        )
    if not rows and not studies:
        raise InputError(
            f"{folder}: there is no row {row}"
            if row is not None
            else f"{folder}: no row of this job asks for study {study}"
        )
    if as_json:
        print(api.explain_json(rows, studies))
    else:
        write_line("\n".join(api.explain_lines(rows, studies, with_identifiers=sys.stdout.isatty())))
