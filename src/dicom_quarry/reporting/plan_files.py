"""A plan as a file: a line for each row and study, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dicom_quarry.ledger.plan_reader import PlannedRow
from dicom_quarry.model import Study
from dicom_quarry.reporting.csv_reports import write_table
from dicom_quarry.reporting.formatting import harmless
from dicom_quarry.reporting.plan_summary import PlanSummary
from dicom_quarry.system.atomic_file import replacing_text

#: The columns of the extractor whose place Quarry takes, short and long, in its order.
SHORT = ("PatientID", "StudyInstanceUID", "AccessionNumber", "StudyDescription")
LONG = (
    *SHORT,
    "StudyDate",
    "StudyTime",
    "DeviceSerialNumber",
    "ProtocolName",
    "PerformedProcedureStepDescription",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
    "AcquisitionDate",
)
#: What they lack. None of these is the name of a key: a plan can be the next job's table.
OURS = (
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


def write_plan(path: Path, rows: Iterable[PlannedRow], *, detailed: bool) -> int:
    """Write one line for each row and study, and one for a row without; returns their number."""
    former = LONG if detailed else SHORT
    lines = (line for row in rows for line in _lines(row, former))
    return write_table(path, (*former, *OURS), lines)


def _lines(row: PlannedRow, former: Sequence[str]) -> Iterator[Sequence[object]]:
    told = _told(row)
    for archive, study in row.studies:
        values = _values(study)
        yield (
            *(harmless(values.get(keyword, "")) for keyword in former),
            *told,
            harmless(archive),
            harmless(study.study_date),
            harmless(study.modalities),
            _number(study.series_count),
            _number(study.instance_count),
            harmless(study.availability),
        )
    if not row.studies:
        yield (*("" for _ in former), *told, *("" for _ in OURS[len(told) :]))


def _told(row: PlannedRow) -> tuple[object, ...]:
    same = "" if row.same_as_row is None else row.same_as_row
    if row.outcome is None:
        return row.row, row.line, FOUND, FOUND, harmless(row.note), same
    reason = f"{row.outcome.reason} ({row.note})" if row.note else row.outcome.reason
    return row.row, row.line, row.outcome.word, row.outcome.code, harmless(reason), same


def _values(study: Study) -> dict[str, str]:
    return {
        **dict(study.others),
        "PatientID": study.patient_id,
        "StudyInstanceUID": study.study_uid,
        "AccessionNumber": study.accession,
        "StudyDescription": study.description,
        "StudyDate": study.study_date,
        "NumberOfStudyRelatedSeries": _number(study.series_count),
        "NumberOfStudyRelatedInstances": _number(study.instance_count),
    }


def _number(count: int | None) -> str:
    return "" if count is None else str(count)


def write_plan_json(path: Path, summary: PlanSummary, rows: Iterable[PlannedRow], *, detailed: bool) -> None:
    """Write the plan with all that is known of its studies."""
    keywords = LONG if detailed else SHORT
    with replacing_text(path) as stream:
        for piece in plan_json(summary, rows, keywords):
            stream.write(piece)


def plan_json(
    summary: PlanSummary, rows: Iterable[PlannedRow], keywords: Sequence[str] = ()
) -> Iterator[str]:
    """The plan as JSON, in pieces; without ``keywords`` nothing in it could name a patient."""
    yield f'{{"summary": {json.dumps(_facts(summary), indent=2)},\n"rows": ['
    separator = "\n"
    for row in rows:
        yield f"{separator}{json.dumps(_row(row, keywords))}"
        separator = ",\n"
    yield "\n]}\n"


def _facts(summary: PlanSummary) -> dict[str, object]:
    return {
        "rows": summary.counts.rows,
        "rows_found": summary.counts.found,
        "rows_repeated": summary.counts.repeated,
        "rows_by_code": {group.code: group.count for group in summary.counts.exceptions},
        "studies": summary.studies,
        "instances": summary.instances,
        "bytes_estimated": summary.size,
        "bytes_free": summary.free,
        "archives": [
            {
                "archive": one.archive,
                "studies": one.amount.studies,
                "studies_not_counted": one.amount.uncounted,
                "instances": one.amount.instances,
                "bytes_estimated": one.amount.estimated,
                "seconds_estimated": round(one.seconds),
                "pace": one.pace,
                "windows": one.windows,
                "ends": None if one.ends is None else one.ends.isoformat(timespec="seconds"),
            }
            for one in summary.forecasts
        ],
        "exit_code": summary.exit_code,
    }


def _row(row: PlannedRow, keywords: Sequence[str]) -> dict[str, object]:
    outcome = row.outcome
    told: dict[str, object] = {
        "row": row.row,
        "line": row.line,
        "outcome": outcome.word if outcome else FOUND,
        "code": outcome.code if outcome else FOUND,
        "same_as_row": row.same_as_row,
    }
    if keywords:
        told |= {"reason": outcome.reason if outcome else "", "note": row.note}
    return {**told, "studies": [_study(archive, study, keywords) for archive, study in row.studies]}


def _study(archive: str, study: Study, keywords: Sequence[str]) -> dict[str, object]:
    values = _values(study)
    return {
        "archive": archive,
        "modality": study.modalities,
        "series": study.series_count,
        "instances": study.instance_count,
        "availability": study.availability,
        **({"date": study.study_date} if keywords else {}),
        **{keyword: values.get(keyword, "") for keyword in keywords},
    }
