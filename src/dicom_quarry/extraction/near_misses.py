"""Why a row matched nothing: a few further questions, put for such rows alone. Nothing of it is moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime

from dicom_quarry.archive.base import Found
from dicom_quarry.model import Study

Find = Callable[[Mapping[str, str]], Found]

#: Questions for one row, at most.
_MOST = 4

#: Days of a patient that are told, nearest first.
_SHOWN = 3


def diagnose(find: Find, keys: Mapping[str, str]) -> str:
    """What is near what was asked for, as a sentence; empty if nothing was found. Asks a few questions."""
    asked = 0

    def bounded(question: Mapping[str, str]) -> tuple[Study, ...]:
        nonlocal asked
        asked += 1
        return find(question).studies if asked <= _MOST else ()

    if "AccessionNumber" in keys:
        return _about_accession(bounded, keys)
    if "PatientID" in keys:
        return _about_patient(bounded, keys)
    return ""


def _about_accession(find: Callable[[Mapping[str, str]], tuple[Study, ...]], keys: Mapping[str, str]) -> str:
    accession = keys["AccessionNumber"]
    if len(keys) > 1:
        same = [one for one in find({"AccessionNumber": accession}) if one.accession == accession]
        if same:
            return _which_differs(same[0], keys)
    for other in spellings(accession):
        if any(one.accession == other for one in find({"AccessionNumber": other})):
            return f"the archive has the accession as {other}"
    return ""


def _which_differs(study: Study, keys: Mapping[str, str]) -> str:
    if keys.get("PatientID", study.patient_id) != study.patient_id:
        return f"the accession exists under another patient ID, {study.patient_id}"
    if keys.get("StudyDate", study.study_date) != study.study_date:
        return f"the accession exists on another date, {study.study_date}"
    return "the accession exists in another study"


def spellings(accession: str) -> Iterator[str]:
    """How else an accession may be written: without dashes and spaces, with or without a leading zero."""
    told = {accession}
    plain = "".join(char for char in accession if char not in "- ")
    for other in (plain, accession.lstrip("0"), f"0{accession}"):
        if other and other not in told and len(other) <= 16:
            told.add(other)
            yield other


def _about_patient(find: Callable[[Mapping[str, str]], tuple[Study, ...]], keys: Mapping[str, str]) -> str:
    patient_id = keys["PatientID"]
    days = {one.study_date for one in find({"PatientID": patient_id}) if one.patient_id == patient_id}
    wanted = _day(keys.get("StudyDate", ""))
    if not days:
        return ""
    known = [day for day in map(_day, days) if day]
    if wanted is None or not known:
        return f"the patient has studies, {len(days)} in all"
    nearest = sorted(known, key=lambda day: (abs(day - wanted), day))[:_SHOWN]
    return "the patient has studies on " + ", ".join(_spoken(day, wanted) for day in nearest)


def _day(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def _spoken(day: date, wanted: date) -> str:
    days = (day - wanted).days
    near = f" ({abs(days)} day{'s' if abs(days) > 1 else ''} {'later' if days > 0 else 'before'})"
    return f"{day:%Y%m%d}{near if abs(days) <= 1 else ''}"
