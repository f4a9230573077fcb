"""Matching of query results against every key of a row, and the search for similar studies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from dicom_quarry.archive.base import StudyQueryResult
from dicom_quarry.cohort.study_filter import differ_in_case_alone, matches
from dicom_quarry.extraction.lost_zeros import LostZeros
from dicom_quarry.extraction.partition import FindStudies
from dicom_quarry.extraction.row_conditions import NO_CONDITIONS, RowConditions
from dicom_quarry.model import Request, Study
from dicom_quarry.plurals import format_count

#: Names of the keys in messages.
_KEY_NAMES = {
    "PatientID": "patient ID",
    "AccessionNumber": "accession",
    "StudyDate": "study date",
    "StudyInstanceUID": "Study Instance UID",
}


@dataclass(frozen=True, slots=True)
class ResolveResult:
    """The studies to retrieve for a request; if there are none, the code and details of its outcome.

    ``filtered_count`` studies match the row, and not the conditions of ``--where``.
    """

    studies: tuple[Study, ...] = ()
    code: str = ""
    details: Mapping[str, object] = field(default_factory=dict)
    filtered_count: int = 0


@dataclass(frozen=True, slots=True)
class ResolveRules:
    """Limits for a row: may its studies belong to several patients, and how many studies may match.

    ``conditions`` are those of ``--where``, which select among the studies of a row.
    """

    allow_several_patients: bool = False
    max_studies: int = 10
    conditions: RowConditions = NO_CONDITIONS


def _count_patients(studies: Sequence[Study]) -> int:
    """Count the patients of studies; nothing shows that two studies without a patient ID are of one."""
    named = {one for study in studies for one in study.patient_id.split("\\") if one}
    return len(named) + sum(not study.patient_id for study in studies)


def classify(request: Request, found: StudyQueryResult, rules: ResolveRules) -> ResolveResult:
    """Classify a query result for a request.

    An archive may ignore a key and return everything, so only matching studies count. An incomplete result is
    never taken for a complete one, except where the request has the Study Instance UID.
    """
    keys = dict(request.keys)
    key_names = " and ".join(_KEY_NAMES.get(keyword, keyword) for keyword in keys)
    matching = tuple(study for study in found.studies if matches(study, keys))
    named = "StudyInstanceUID" in keys and matching
    if not found.complete and not named:
        if found.studies:
            # Of an answer that the archive cut, more is known only if it was queried in parts.
            why = {} if found.splittable else {"why": found.incomplete_reason}
            return ResolveResult(code="query_cut_short", details={"answers": len(found.studies), **why})
        return ResolveResult(code="query_failed", details={"status": found.incomplete_reason})
    for study in () if matching else found.studies:
        if keyword := differ_in_case_alone(study, keys):
            has = {"PatientID": study.patient_id, "AccessionNumber": study.accession}.get(keyword, "")
            name = _KEY_NAMES.get(keyword, keyword)
            hint = f"the archive has the {name} as {has}: upper and lower case differ"
            return ResolveResult(code="near_miss", details={"keys": key_names, "hint": hint})
    if not matching and found.studies:
        details = {"answers": len(found.studies), "keys": key_names}
        return ResolveResult(code="answers_do_not_match", details=details)
    if not matching:
        return ResolveResult(code="study_not_found", details={"keys": key_names})
    kept, code, unmet = rules.conditions.select(matching)
    filtered_count = len(matching) - len(kept)
    if not kept:
        return ResolveResult(code=code, details=unmet, filtered_count=filtered_count)
    matching = kept
    patients = _count_patients(matching)
    if patients > 1 and "PatientID" not in keys and not rules.allow_several_patients:
        if not all(study.patient_id for study in matching):
            key_names += " (each study without a patient ID counts as a patient)"
        return ResolveResult(code="several_patients", details={"keys": key_names, "patients": patients})
    if len(matching) > rules.max_studies:
        return ResolveResult(code="too_many_studies", details={"keys": key_names, "studies": len(matching)})
    return ResolveResult(studies=matching, filtered_count=filtered_count)


_Find = Callable[[Mapping[str, str]], tuple[Study, ...]]

#: Queries for the near misses of one row, at most.
_MAX_QUERIES = 4

#: Study dates of a patient that a hint contains, nearest first.
_MAX_DATES_SHOWN = 3


def find_near_miss(find: FindStudies, keys: Mapping[str, str], zeros: LostZeros) -> str:
    """Describe a study that is similar to the requested one, empty if none is found; sends a few queries."""
    query_count = 0

    def find_bounded(query_keys: Mapping[str, str]) -> tuple[Study, ...]:
        nonlocal query_count
        query_count += 1
        return find(query_keys).studies if query_count <= _MAX_QUERIES else ()

    if "AccessionNumber" in keys:
        return _explain_accession(find_bounded, keys, zeros)
    if "PatientID" in keys:
        return _explain_patient(find_bounded, keys, zeros)
    return ""


def _explain_accession(find: _Find, keys: Mapping[str, str], zeros: LostZeros) -> str:
    accession = keys["AccessionNumber"]
    if len(keys) > 1:
        same = [one for one in find({"AccessionNumber": accession}) if accession in one.accession.split("\\")]
        if same:
            lost = zeros.describe("PatientID", keys.get("PatientID", ""), same[0])
            return lost or _describe_difference(same[0], keys)
    for other in accession_spellings(accession):
        if same := [one for one in find({"AccessionNumber": other}) if one.accession == other]:
            lost = zeros.describe("AccessionNumber", accession, same[0])
            return lost or f"the archive has the accession as {other}"
    # One query for the accession alone, and one for another spelling, leave this number of queries.
    return _find_padded(find, "AccessionNumber", accession, zeros, 2 if len(keys) > 1 else 3)


def _find_padded(find: _Find, keyword: str, value: str, zeros: LostZeros, tries: int) -> str:
    """Describe a study with the same identifier, but with zeros in front; empty if none is found."""
    for padded in zeros.padded_values(keyword, value, tries):
        for study in find({keyword: padded}):
            if lost := zeros.describe(keyword, value, study):
                return lost
    return ""


def _describe_difference(study: Study, keys: Mapping[str, str]) -> str:
    if keys.get("PatientID", study.patient_id) != study.patient_id:
        return f"the accession exists under another patient ID, {study.patient_id}"
    if keys.get("StudyDate", study.study_date) != study.study_date:
        return f"the accession exists on another date, {study.study_date}"
    if "StudyInstanceUID" in keys:
        return "the accession exists in another study"
    others = " and ".join(
        keyword for keyword in keys if keyword not in ("AccessionNumber", "PatientID", "StudyDate")
    )
    return f"the archive has the accession, but does not find it together with {others}"


def accession_spellings(accession: str) -> Iterator[str]:
    """Yield other spellings of an accession: without dashes and spaces, a leading zero, in the other case."""
    seen = {accession}
    plain = "".join(char for char in accession if char not in "- ")
    for other in (plain, accession.lstrip("0"), f"0{accession}", accession.upper(), accession.lower()):
        if other and other not in seen and len(other) <= 16:
            seen.add(other)
            yield other


def _explain_patient(find: _Find, keys: Mapping[str, str], zeros: LostZeros) -> str:
    patient_id = keys["PatientID"]
    days = {one.study_date for one in find({"PatientID": patient_id}) if one.patient_id == patient_id}
    wanted = _parse_date(keys.get("StudyDate", ""))
    if not days:
        return _explain_case(find, patient_id) or _find_padded(find, "PatientID", patient_id, zeros, 3)
    known = [day for day in map(_parse_date, days) if day]
    if wanted is None or not known:
        return f"the patient has studies, {len(days)} in all"
    nearest = sorted(known, key=lambda day: (abs(day - wanted), day))[:_MAX_DATES_SHOWN]
    return "the patient has studies on " + ", ".join(_format_date(day, wanted) for day in nearest)


def _explain_case(find: _Find, patient_id: str) -> str:
    for other in {patient_id.upper(), patient_id.lower()} - {patient_id}:
        if any(one.patient_id == other for one in find({"PatientID": other})):
            return f"the archive has the patient ID as {other}: upper and lower case differ"
    return ""


def _parse_date(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def _format_date(day: date, wanted: date) -> str:
    days = (day - wanted).days
    near = f" ({format_count(abs(days), 'day')} {'later' if days > 0 else 'before'})"
    return f"{day:%Y%m%d}{near if abs(days) <= 1 else ''}"
