"""The tables of a job for a DataFrame: rows, studies and instances, streamed from its record.

The columns have the names of report.csv, studies.csv and manifest.csv.gz. Text is that of the
archive and of the user's table: what makes a cell safe for a spreadsheet is for the CSV files alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime

from dicom_quarry.cohort.dates import is_dicom_date
from dicom_quarry.jobs.opened_job import open_job
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.views import InstanceView, RowView, StudyView
from dicom_quarry.reporting.arrow_table import ArrowTable, Column, ColumnType
from dicom_quarry.reporting.csv_reports import (
    FOLDER_SEPARATOR,
    MANIFEST_COLUMNS,
    REPORT_COLUMNS,
    STUDY_COLUMNS,
    join_numbers,
    join_texts,
    own_columns,
)

_INTEGERS = frozenset(
    {
        "quarry_row",
        "quarry_line",
        "quarry_images",
        "quarry_same_as_row",
        "quarry_studies_found",
        "quarry_studies_complete",
        "quarry_instances_expected",
        "quarry_instances_stored",
        "quarry_bytes",
        "expected",
        "stored",
        "bytes",
        "attempts",
        "series",
        "instances",
    }
)
_TIMES = frozenset({"quarry_proved_at", "on_complete_at", "released_at"})
_DATES = frozenset({"quarry_study_date", "study_date"})

_Values = Sequence[object]


def rows_table(folder: JobPlace) -> ArrowTable:
    """Return the user's table with the present outcome of every row, as report.csv has it."""
    with open_job(folder) as job:
        columns = job.reader.columns()
    own = own_columns(columns)

    def read() -> Iterator[_Values]:
        with open_job(folder) as job:
            for row in job.reader.rows():
                yield *(row.cells[at] for at in own), *_row_values(row)

    return ArrowTable("Rows", [*own_text_columns(columns, own), *make_columns(REPORT_COLUMNS)], read)


def studies_table(folder: JobPlace) -> ArrowTable:
    """Return every study with its present outcome, as studies.csv has it."""

    def read() -> Iterator[_Values]:
        with open_job(folder) as job:
            yield from map(_study_values, job.reader.studies())

    return ArrowTable("Studies", make_columns(STUDY_COLUMNS), read)


def instances_table(folder: JobPlace) -> ArrowTable:
    """Return every stored instance on record, as manifest.csv.gz has it."""

    def read() -> Iterator[_Values]:
        with open_job(folder) as job:
            yield from map(_instance_values, job.reader.instances(job.path_function()))

    return ArrowTable("Instances", make_columns(MANIFEST_COLUMNS), read)


def own_text_columns(columns: Sequence[str], own: Iterable[int]) -> list[Column]:
    """Return the user's columns: text, so that leading zeros stay."""
    return [Column(columns[at]) for at in own]


def make_columns(names: Iterable[str]) -> list[Column]:
    """Return Quarry's columns with their types."""
    return [Column(name, _type_of(name)) for name in names]


def _type_of(name: str) -> ColumnType:
    if name in _INTEGERS:
        return ColumnType.INTEGER
    if name in _TIMES:
        return ColumnType.TIME
    return ColumnType.DATE if name in _DATES else ColumnType.TEXT


def _row_values(row: RowView) -> tuple[object, ...]:
    outcome, studies = row.outcome, row.studies
    return (
        row.row,
        row.line,
        outcome.status,
        outcome.reason,
        outcome.next_step,
        FOLDER_SEPARATOR.join(folder for folder in row.folders if folder),
        common_date([study.study_date for study in studies]),
        join_texts([study.modalities for study in studies]),
        join_texts([study.description for study in studies]),
        row.instances_stored,
        row.same_as_row,
        row.studies_found,
        row.studies_complete,
        row.instances_expected,
        row.instances_stored,
        row.size,
        row.proved_at,
        outcome.code,
        " ".join(row.study_uids),
    )


def _study_values(view: StudyView) -> tuple[object, ...]:
    study, outcome = view.study, view.outcome
    return (
        join_numbers(view.rows),
        study.patient_id,
        study.accession,
        parse_date(study.study_date),
        study.modalities,
        study.description,
        study.study_uid,
        outcome.status,
        outcome.code,
        outcome.reason,
        view.expected,
        view.stored,
        view.size,
        view.folder,
        view.attempts,
        view.on_complete_state,
        view.on_complete_at,
        view.on_complete_error,
        view.released_at,
    )


def _instance_values(view: InstanceView) -> tuple[object, ...]:
    ref = view.ref
    uids = (ref.study_uid, ref.series_uid, ref.sop_uid, ref.sop_class, view.transfer_syntax)
    return (str(view.path), *uids, view.size, view.digest.hex())


def parse_date(text: str) -> date | None:
    """Return a DICOM date (DA, PS3.5 6.2); None for any other text."""
    return datetime.strptime(text, "%Y%m%d").date() if is_dicom_date(text) else None


def common_date(texts: Sequence[str]) -> date | None:
    """Return the date of a row's studies, None if they have several."""
    return parse_date(texts[0]) if len(set(texts)) == 1 else None
