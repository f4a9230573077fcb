"""What answers to queries are made of, whoever asked: studies and series from attributes by tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dicom_quarry.archive.base import Answers, Found
from dicom_quarry.archive.dimse.identifier import is_uid
from dicom_quarry.archive.instance_listing import nameless, number, value
from dicom_quarry.errors import QueryFailed
from dicom_quarry.model import SeriesInfo, Study

#: What is asked of every study, and of every series.
STUDY = (
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
SERIES = ("SeriesInstanceUID", "Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances")


def studies_of(answers: Answers, more: Sequence[str]) -> Found:
    """The studies of answers at STUDY level, each Study UID once; ``more`` are further keywords."""
    studies: dict[str, Study] = {}
    for row in answers.rows:
        study = _study(row, more)
        if is_uid(study.study_uid):
            studies.setdefault(study.study_uid, study)
    why = answers.why or nameless(answers.rows, "StudyInstanceUID")
    return Found(tuple(studies.values()), complete=not why, why=why)


def series_of(answers: Answers) -> tuple[SeriesInfo, ...]:
    """The series of answers at SERIES level, each once; raises QueryFailed where they were cut short."""
    if answers.why:
        raise QueryFailed(f"the series of the study cannot be listed: {answers.why}", status=0)
    found = (_series(row) for row in answers.rows)
    return tuple({one.uid: one for one in found if is_uid(one.uid)}.values())


def _series(row: Mapping[int, str]) -> SeriesInfo:
    return SeriesInfo(
        uid=value(row, "SeriesInstanceUID"),
        modality=value(row, "Modality"),
        description=value(row, "SeriesDescription"),
        count=number(row, "NumberOfSeriesRelatedInstances"),
    )


def _study(row: Mapping[int, str], more: Sequence[str]) -> Study:
    return Study(
        study_uid=value(row, "StudyInstanceUID"),
        patient_id=value(row, "PatientID"),
        accession=value(row, "AccessionNumber"),
        study_date=value(row, "StudyDate"),
        modalities=value(row, "ModalitiesInStudy"),
        description=value(row, "StudyDescription"),
        series_count=number(row, "NumberOfStudyRelatedSeries"),
        instance_count=number(row, "NumberOfStudyRelatedInstances"),
        availability=value(row, "InstanceAvailability"),
        others=tuple((keyword, value(row, keyword)) for keyword in more),
    )
