"""``quarry explain``: everything that is known of one row, or of one study, in words."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.errors import InputError
from dicom_quarry.reporting.row_history import explain_json, explain_lines


def explain(
    folder: Annotated[Path, typer.Argument(help="The folder of a job (its --to).")],
    row: Annotated[int | None, typer.Option(help="The number of a row, as report and log have it.")] = None,
    study: Annotated[str | None, typer.Option(help="A Study Instance UID.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: JSON without identifiers.")] = False,
) -> None:
    """Tell what happened to a row: every query, answer, retrieval and pause, and what to do next.

    On a terminal with the values of the row; redirected without anything that names a patient.

    Example:  quarry explain out/ --row 4711
    """
    if (row is None) is (study is None):
        raise InputError("which row? give its number with --row, or a study with --study UID")
    with closing(api.open_history(folder)) as reader:
        numbers = [row] if row is not None else reader.rows_of(study or "")
        rows = [found for number in numbers if (found := reader.row_history(number))]
        studies = list(
            reader.study_histories_of_row(row) if row is not None else reader.study_histories(study or "")
        )
    if not rows and not studies:
        raise InputError(
            f"{folder}: no row {row}" if row is not None else f"{folder}: nobody asked for {study}"
        )
    if as_json:
        print(explain_json(rows, studies))
    else:
        print("\n".join(explain_lines(rows, studies, with_identifiers=sys.stdout.isatty())))
