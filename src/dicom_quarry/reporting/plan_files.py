"""A plan as a file: CSV with a line for each row and study, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dicom_quarry.ledger.plan_reader import PlannedRow
from dicom_quarry.model import Study
from dicom_quarry.reporting.csv_reports import write_csv
from dicom_quarry.reporting.formatting import escape_cell
from dicom_quarry.reporting.plan_summary import PlanSummary
from dicom_quarry.system.atomic_file import atomic_write_text

#: The columns of the former extractor, short and detailed, in its order.
BASIC_COLUMNS = ("PatientID", "StudyInstanceUID", "AccessionNumber", "StudyDescription")
DETAILED_COLUMNS = (
    *BASIC_COLUMNS,
    "StudyDate",
    "StudyTime",
    "DeviceSerialNumber",
    "ProtocolName",
    "PerformedProcedureStepDescription",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
    "AcquisitionDate",
)
#: Further columns. None has the name of a key, so that a plan can be the next job's table.
QUARRY_COLUMNS = (
    "row",
    "line",
    "outcome",
    "code",
    "reason",
    "same_as_row",
    "archive",
    "date",
    "modality",
    "series",
    "instances",
    "availability",
)
#: Outcome and code of a row that has studies to fetch.
FOUND = "found"


def write_plan_csv(path: Path, rows: Iterable[PlannedRow], *, detailed: bool) -> int:
    """Write one line for each row and study, and one for a row without a study; returns their number."""
    dicom_columns = DETAILED_COLUMNS if detailed else BASIC_COLUMNS
    lines = (line for row in rows for line in _csv_lines(row, dicom_columns))
    return write_csv(path, (*dicom_columns, *QUARRY_COLUMNS), lines)


def is_plan_file(path: Path) -> bool:
    """Return True if a file begins as a plan does, in CSV or JSON."""
    try:
        with path.open("rb") as file:
            start = file.read(80)
    except OSError:
        return False
    return start.startswith((",".join(BASIC_COLUMNS).encode(), b'{"summary": '))


def _csv_lines(row: PlannedRow, dicom_columns: Sequence[str]) -> Iterator[Sequence[object]]:
    row_cells = _row_cells(row)
    for archive, study in row.studies:
        values = _study_values(study)
        yield (
            *(escape_cell(values.get(keyword, "")) for keyword in dicom_columns),
            *row_cells,
            escape_cell(archive),
            escape_cell(study.study_date),
            escape_cell(study.modalities),
            _count_or_empty(study.series_count),
            _count_or_empty(study.instance_count),
            escape_cell(study.availability),
        )
    if not row.studies:
        # The keys of the row, so that the line can be found, and corrected, in the user's table.
        yield (
            *(escape_cell(row.key(name)) for name in dicom_columns),
            *row_cells,
            *("" for _ in QUARRY_COLUMNS[len(row_cells) :]),
        )


def _row_cells(row: PlannedRow) -> tuple[object, ...]:
    same = "" if row.same_as_row is None else row.same_as_row
    if row.outcome is None:
        return row.row, row.line, FOUND, FOUND, escape_cell(row.note), same
    reason = f"{row.outcome.reason} ({row.note})" if row.note else row.outcome.reason
    return row.row, row.line, row.outcome.status, row.outcome.code, escape_cell(reason), same


def _study_values(study: Study) -> dict[str, str]:
    return {
        **dict(study.extra_attributes),
        "PatientID": study.patient_id,
        "StudyInstanceUID": study.study_uid,
        "AccessionNumber": study.accession,
        "StudyDescription": study.description,
        "StudyDate": study.study_date,
        "NumberOfStudyRelatedSeries": _count_or_empty(study.series_count),
        "NumberOfStudyRelatedInstances": _count_or_empty(study.instance_count),
    }


def _count_or_empty(count: int | None) -> str:
    return "" if count is None else str(count)


def write_plan_json(path: Path, summary: PlanSummary, rows: Iterable[PlannedRow], *, detailed: bool) -> None:
    """Write the plan with all attributes of its studies."""
    keywords = DETAILED_COLUMNS if detailed else BASIC_COLUMNS
    with atomic_write_text(path) as stream:
        for piece in plan_json(summary, rows, keywords):
            stream.write(piece)


def plan_json(
    summary: PlanSummary, rows: Iterable[PlannedRow], keywords: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the plan as JSON, in pieces; without ``keywords`` it has nothing that could name a patient."""
    yield f'{{"summary": {json.dumps(_summary_with_content(summary), indent=2)},\n"rows": ['
    separator = "\n"
    for row in rows:
        yield f"{separator}{json.dumps(_row_json(row, keywords))}"
        separator = ",\n"
    yield "\n]}\n"


def _summary_with_content(summary: PlanSummary) -> dict[str, object]:
    content = dict(summary.content.descriptions.most_common())
    return {**plan_dict(summary), "studies_by_description": content}


def plan_dict(summary: PlanSummary) -> dict[str, object]:
    """Return the numbers of a plan, as ``json`` can write them, without descriptions of studies."""
    return {
        "rows": summary.counts.rows,
        "rows_found": summary.counts.found,
        "rows_repeated": summary.counts.repeated,
        "rows_by_code": {group.code: group.count for group in summary.counts.unresolved_groups},
        "studies": summary.studies,
        "studies_by_modality": dict(summary.content.modalities.most_common()),
        "instances": summary.instances,
        "bytes_estimated": summary.size,
        "bytes_free": summary.free_bytes,
        "archives": [
            {
                "archive": one.archive,
                "studies": one.volume.studies,
                "studies_not_counted": one.volume.uncounted,
                "instances": one.volume.instances if one.volume.is_counted else None,
                "bytes_estimated": one.volume.estimated_size,
                "seconds_estimated": None if one.seconds is None else round(one.seconds),
                "rate_note": one.rate_note,
                "windows": one.windows,
                "ends": None if one.ends_at is None else one.ends_at.isoformat(timespec="seconds"),
            }
            for one in summary.forecasts
        ],
        "exit_code": summary.exit_code,
    }


def _row_json(row: PlannedRow, keywords: Sequence[str]) -> dict[str, object]:
    outcome = row.outcome
    fields: dict[str, object] = {
        "row": row.row,
        "line": row.line,
        "outcome": outcome.status if outcome else FOUND,
        "code": outcome.code if outcome else FOUND,
        "same_as_row": row.same_as_row,
    }
    if keywords:
        fields |= {"reason": outcome.reason if outcome else "", "note": row.note, "keys": dict(row.keys)}
    return {**fields, "studies": [_study_json(archive, study, keywords) for archive, study in row.studies]}


def _study_json(archive: str, study: Study, keywords: Sequence[str]) -> dict[str, object]:
    values = _study_values(study)
    return {
        "archive": archive,
        "modality": study.modalities,
        "series": study.series_count,
        "instances": study.instance_count,
        "availability": study.availability,
        **({"date": study.study_date} if keywords else {}),
        **{keyword: values.get(keyword, "") for keyword in keywords},
    }
