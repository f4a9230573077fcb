"""``quarry explain``: everything that is known of one row, or of one study, in words."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli import options
from dicom_quarry.cli.chosen_folder import choose_folder
from dicom_quarry.cli.console import err, write_line
from dicom_quarry.errors import InputError

#: Rows of a patient that are explained at once.
_MAX_ROWS = 20


def explain(
    folder: options.FolderOrDefault = None,
    row: Annotated[int | None, typer.Option(help="Number of a row, as in the report and the log.")] = None,
    patient: Annotated[str | None, typer.Option(help="A patient ID: the rows that have it.")] = None,
    accession: Annotated[str | None, typer.Option(help="An accession number: the rows that have it.")] = None,
    study: Annotated[str | None, typer.Option(help="A Study Instance UID.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show everything that happened to a row or a study.

    Every query, answer, retrieval and pause, and what to do next. A terminal shows the values of the row.
    Redirected output contains nothing that identifies a patient.

    Examples:
      quarry explain out/ --row 4711
      quarry explain out/ --accession A1001
      quarry explain out/ --patient 0004711
    """
    if sum(one is not None for one in (row, patient, accession, study)) != 1:
        raise InputError(
            "Name one row with --row NUMBER, or with --accession or --patient; or one study with --study UID"
        )
    chosen = choose_folder(folder)
    with closing(api.open_history(chosen)) as reader:
        if row is not None:
            numbers = [row]
        elif study is not None:
            numbers = reader.rows_of(study)
        else:
            keyword = "AccessionNumber" if accession is not None else "PatientID"
            numbers = reader.rows_with(keyword, accession or patient or "")
        shown = numbers[:_MAX_ROWS]
        rows = [found for number in shown if (found := reader.row_history(number))]
        studies = list(
            reader.study_histories(study) if study is not None else reader.study_histories_of_rows(shown)
        )
    if not rows and not studies:
        raise InputError(f"{chosen}: {_describe_absent(row, accession, study)}")
    if len(numbers) > len(shown):
        more = ", ".join(map(str, numbers[len(shown) :][:_MAX_ROWS]))
        err.print(f"The first {len(shown)} of {len(numbers):,} rows. For one of the others use --row: {more}")
    if as_json:
        print(api.explain_json(rows, studies))
    else:
        write_line("\n".join(api.explain_lines(rows, studies, with_identifiers=sys.stdout.isatty())))


def _describe_absent(row: int | None, accession: str | None, study: str | None) -> str:
    """Describe that nothing was found, without the value: the message may be redirected to a log."""
    if row is not None:
        return f"there is no row {row}"
    if study is not None:
        return f"no row of this job asks for study {study}"
    kind = "accession" if accession is not None else "patient ID"
    return f"no row, and no study of this job, has this {kind}. report.csv lists all rows with their values"
