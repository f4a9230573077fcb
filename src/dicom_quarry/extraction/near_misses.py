"""Why a row matched nothing: a few further questions, put for such rows alone. Nothing of it is moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime

from dicom_quarry.archive.base import StudyQueryResult
from dicom_quarry.model import Study

FindStudies = Callable[[Mapping[str, str]], StudyQueryResult]

#: Questions for one row, at most.
_MAX_QUERIES = 4

#: Days of a patient that are told, nearest first.
_MAX_DATES_SHOWN = 3


def find_near_miss(find: FindStudies, keys: Mapping[str, str]) -> str:
    """What is near what was asked for, as a sentence; empty if nothing was found. Asks a few questions."""
    query_count = 0

    def find_bounded(query_keys: Mapping[str, str]) -> tuple[Study, ...]:
        nonlocal query_count
        query_count += 1
        return find(query_keys).studies if query_count <= _MAX_QUERIES else ()

    if "AccessionNumber" in keys:
        return _explain_accession(find_bounded, keys)
    if "PatientID" in keys:
        return _explain_patient(find_bounded, keys)
    return ""


def _explain_accession(
    find: Callable[[Mapping[str, str]], tuple[Study, ...]], keys: Mapping[str, str]
) -> str:
    accession = keys["AccessionNumber"]
    if len(keys) > 1:
        same = [one for one in find({"AccessionNumber": accession}) if one.accession == accession]
        if same:
            return _describe_difference(same[0], keys)
    for other in accession_spellings(accession):
        if any(one.accession == other for one in find({"AccessionNumber": other})):
            return f"the archive has the accession as {other}"
    return ""


def _describe_difference(study: Study, keys: Mapping[str, str]) -> str:
    if keys.get("PatientID", study.patient_id) != study.patient_id:
        return f"the accession exists under another patient ID, {study.patient_id}"
    if keys.get("StudyDate", study.study_date) != study.study_date:
        return f"the accession exists on another date, {study.study_date}"
    return "the accession exists in another study"


def accession_spellings(accession: str) -> Iterator[str]:
    """How else an accession may be written: without dashes and spaces, with or without a leading zero."""
    seen = {accession}
    plain = "".join(char for char in accession if char not in "- ")
    for other in (plain, accession.lstrip("0"), f"0{accession}"):
        if other and other not in seen and len(other) <= 16:
            seen.add(other)
            yield other


def _explain_patient(find: Callable[[Mapping[str, str]], tuple[Study, ...]], keys: Mapping[str, str]) -> str:
    patient_id = keys["PatientID"]
    days = {one.study_date for one in find({"PatientID": patient_id}) if one.patient_id == patient_id}
    wanted = _parse_date(keys.get("StudyDate", ""))
    if not days:
        return ""
    known = [day for day in map(_parse_date, days) if day]
    if wanted is None or not known:
        return f"the patient has studies, {len(days)} in all"
    nearest = sorted(known, key=lambda day: (abs(day - wanted), day))[:_MAX_DATES_SHOWN]
    return "the patient has studies on " + ", ".join(_format_date(day, wanted) for day in nearest)


def _parse_date(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def _format_date(day: date, wanted: date) -> str:
    days = (day - wanted).days
    near = f" ({abs(days)} day{'s' if abs(days) > 1 else ''} {'later' if days > 0 else 'before'})"
    return f"{day:%Y%m%d}{near if abs(days) <= 1 else ''}"
