"""Studies and series from the attributes of query results, for all adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dicom_quarry.archive.base import QueryRows, StudyQueryResult
from dicom_quarry.archive.dimse.identifier import is_uid
from dicom_quarry.archive.instance_listing import describe_missing_uids, get_count, get_text
from dicom_quarry.errors import QueryFailed
from dicom_quarry.model import SeriesInfo, Study

#: The attributes that a query requests of a patient, to tell one from another and to count the studies.
PATIENT_RETURN_KEYS = ("PatientID", "IssuerOfPatientID", "PatientName", "NumberOfPatientRelatedStudies")

#: The attributes that every query requests of a study, and of a series.
STUDY_RETURN_KEYS = (
    "StudyInstanceUID",
    "PatientID",
    "AccessionNumber",
    "StudyDate",
    "ModalitiesInStudy",
    "StudyDescription",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
    "InstanceAvailability",
)
#: Those that an archive computes from the series and instances of a study.
STUDY_COUNT_KEYS = frozenset(
    {
        "ModalitiesInStudy",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
        "NumberOfPatientRelatedStudies",
        "InstanceAvailability",
    }
)
SERIES_RETURN_KEYS = ("SeriesInstanceUID", "Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances")


def parse_studies(query_rows: QueryRows, extra_keywords: Sequence[str]) -> StudyQueryResult:
    """Return the studies of results at STUDY level, each Study UID once, with these further keywords."""
    studies: dict[str, Study] = {}
    unidentified: list[Study] = []
    for row in query_rows.rows:
        study = _study_from_row(row, extra_keywords)
        if is_uid(study.study_uid):
            known = studies.get(study.study_uid)
            studies[study.study_uid] = _join_answers(known, study) if known else study
        elif any(row.values()):
            unidentified.append(study)
    reason = query_rows.incomplete_reason or describe_missing_uids(query_rows.rows, "StudyInstanceUID")
    return StudyQueryResult(
        tuple(studies.values()),
        complete=not reason,
        incomplete_reason=reason,
        splittable=query_rows.splittable and not unidentified,
        answer_count=query_rows.answer_count,
        unidentified=() if query_rows.incomplete_reason else tuple(unidentified),
    )


def _join_answers(first: Study, second: Study) -> Study:
    """Join two answers for one study: its identifiers are those of both, its other attributes the first's."""
    return replace(
        first,
        patient_id=_join_values(first.patient_id, second.patient_id),
        accession=_join_values(first.accession, second.accession),
    )


def _join_values(first: str, second: str) -> str:
    values = dict.fromkeys(one.strip(" \0") for one in (*first.split("\\"), *second.split("\\")))
    return "\\".join(one for one in values if one)


def parse_study_count(query_rows: QueryRows, patient_id: str) -> int | None:
    """Return the number of studies of all patients with this ID; None if a result gives none.

    A result that comes twice counts once; two patients may have one ID, by different issuers.
    """
    patients = {tuple(sorted(row.items())): row for row in query_rows.rows if any(row.values())}
    counts = [
        get_count(row, "NumberOfPatientRelatedStudies")
        for row in patients.values()
        if get_text(row, "PatientID") == patient_id
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) and not query_rows.incomplete_reason else None


def parse_series(query_rows: QueryRows) -> tuple[SeriesInfo, ...]:
    """Return the series of results at SERIES level, each once; raises QueryFailed if incomplete."""
    reason = query_rows.incomplete_reason or describe_missing_uids(query_rows.rows, "SeriesInstanceUID")
    if reason:
        raise QueryFailed(f"the series of the study cannot be listed: {reason}", status=0)
    found = (_series_from_row(row) for row in query_rows.rows)
    return tuple({one.series_uid: one for one in found if is_uid(one.series_uid)}.values())


def _series_from_row(row: Mapping[int, str]) -> SeriesInfo:
    return SeriesInfo(
        series_uid=get_text(row, "SeriesInstanceUID"),
        modality=get_text(row, "Modality"),
        description=get_text(row, "SeriesDescription"),
        instance_count=get_count(row, "NumberOfSeriesRelatedInstances"),
    )


def _study_from_row(row: Mapping[int, str], extra_keywords: Sequence[str]) -> Study:
    return Study(
        study_uid=get_text(row, "StudyInstanceUID"),
        patient_id=get_text(row, "PatientID"),
        accession=get_text(row, "AccessionNumber"),
        study_date=get_text(row, "StudyDate"),
        modalities=get_text(row, "ModalitiesInStudy"),
        description=get_text(row, "StudyDescription"),
        series_count=get_count(row, "NumberOfStudyRelatedSeries"),
        instance_count=get_count(row, "NumberOfStudyRelatedInstances"),
        availability=get_text(row, "InstanceAvailability"),
        extra_attributes=tuple((keyword, get_text(row, keyword)) for keyword in extra_keywords),
    )
