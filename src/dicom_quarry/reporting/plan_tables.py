"""The tables of a plan for a DataFrame: rows with what was found for them, and studies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from dicom_quarry.ledger.plan_reader import PlannedRow, PlanReader
from dicom_quarry.ledger.views import StudyView
from dicom_quarry.reporting.arrow_table import ArrowTable
from dicom_quarry.reporting.csv_reports import MANIFEST_COLUMNS, join_numbers, join_texts, own_columns
from dicom_quarry.reporting.job_tables import common_date, make_columns, own_text_columns, parse_date
from dicom_quarry.reporting.plan_files import FOUND

_ROW_COLUMNS = (
    "quarry_row",
    "quarry_line",
    "quarry_outcome",
    "quarry_reason",
    "quarry_what_to_do",
    "quarry_study_date",
    "quarry_modality",
    "quarry_description",
    "quarry_same_as_row",
    "quarry_studies_found",
    "quarry_instances_expected",
    "quarry_code",
    "quarry_study_uids",
)
_STUDY_COLUMNS = (
    "rows",
    "patient_id",
    "accession",
    "study_date",
    "modality",
    "description",
    "study_uid",
    "archive",
    "series",
    "instances",
    "availability",
)

_Values = Sequence[object]


def plan_rows_table(ledger: Path) -> ArrowTable:
    """Return the user's table with what a plan found for every row."""
    with closing(PlanReader(ledger)) as reader:
        columns = reader.columns()
    own = own_columns(columns)

    def read() -> Iterator[_Values]:
        with closing(PlanReader(ledger)) as reader:
            for row in reader.planned_rows():
                yield *(row.cells[at] for at in own), *_planned_values(row)

    return ArrowTable(
        "Rows of the plan", [*own_text_columns(columns, own), *make_columns(_ROW_COLUMNS)], read
    )


def plan_studies_table(ledger: Path) -> ArrowTable:
    """Return every study that a plan found, with the rows that request it."""

    def read() -> Iterator[_Values]:
        with closing(PlanReader(ledger)) as reader:
            yield from map(_found_values, reader.studies())

    return ArrowTable("Studies of the plan", make_columns(_STUDY_COLUMNS), read)


def no_instances_table() -> ArrowTable:
    """Return the table of the instances of a plan, which has none: it queries for studies alone."""
    return ArrowTable("Instances", make_columns(MANIFEST_COLUMNS), lambda: iter(()))


def _planned_values(row: PlannedRow) -> tuple[object, ...]:
    outcome, studies = row.outcome, [study for _, study in row.studies]
    counts = [study.instance_count for study in studies]
    reason = row.note if outcome is None else outcome.reason
    return (
        row.row,
        row.line,
        FOUND if outcome is None else outcome.status,
        f"{reason} ({row.note})" if row.note and outcome is not None else reason,
        "" if outcome is None else outcome.next_step,
        common_date([study.study_date for study in studies]),
        join_texts([study.modalities for study in studies]),
        join_texts([study.description for study in studies]),
        row.same_as_row,
        len(studies),
        sum(count or 0 for count in counts) if counts and None not in counts else None,
        FOUND if outcome is None else outcome.code,
        " ".join(study.study_uid for study in studies),
    )


def _found_values(view: StudyView) -> tuple[object, ...]:
    study = view.study
    return (
        join_numbers(view.rows),
        study.patient_id,
        study.accession,
        parse_date(study.study_date),
        study.modalities,
        study.description,
        study.study_uid,
        view.archive,
        study.series_count,
        study.instance_count,
        study.availability,
    )
