"""A request becomes tasks: what the archive answers is matched again here, against every key asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dicom_quarry.archive.port import Found
from dicom_quarry.model import Request, Study

#: How the keys are called in sentences for the user.
_SPOKEN = {
    "PatientID": "patient ID",
    "AccessionNumber": "accession",
    "StudyDate": "study date",
    "StudyInstanceUID": "Study Instance UID",
}


@dataclass(frozen=True, slots=True)
class Resolution:
    """The studies to fetch for a request; or, where there are none, the code and details of its outcome."""

    studies: tuple[Study, ...] = ()
    code: str = ""
    details: Mapping[str, object] = field(default_factory=dict)


def judge(request: Request, found: Found, *, allow_several_patients: bool) -> Resolution:
    """What the archive's answer means for a request.

    An archive may ignore a key and answer with everything, so only studies that match count. An answer that
    was cut short is never taken for a full one, except where the request names the study itself.
    """
    keys = dict(request.keys)
    spoken = " and ".join(_SPOKEN.get(keyword, keyword) for keyword in keys)
    matching = tuple(study for study in found.studies if matches(study, keys))
    named = "StudyInstanceUID" in keys and matching
    if not found.complete and not named:
        if found.studies:
            return Resolution(code="query_cut_short", details={"answers": len(found.studies)})
        return Resolution(code="query_failed", details={"status": found.why})
    if not matching and found.studies:
        details = {"answers": len(found.studies), "keys": spoken}
        return Resolution(code="answers_do_not_match", details=details)
    if not matching:
        return Resolution(code="study_not_found", details={"keys": spoken})
    patients = {study.patient_id for study in matching}
    if len(patients) > 1 and "PatientID" not in keys and not allow_several_patients:
        return Resolution(code="several_patients", details={"keys": spoken, "patients": len(patients)})
    return Resolution(studies=matching)


def matches(study: Study, keys: Mapping[str, str]) -> bool:
    """True if the study has every value that was asked for."""
    has = {
        "PatientID": study.patient_id,
        "AccessionNumber": study.accession,
        "StudyDate": study.study_date,
        "StudyInstanceUID": study.study_uid,
    }
    return all(has[keyword] == value for keyword, value in keys.items())
