"""Does a study have what was asked for? Looked at again on this side: an archive may ignore a key.

Pure matching as PS3.4 C.2.2.2 has it, but never wider: a key whose attribute the archive did not give is not
matched, since nothing says that it was heeded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from functools import lru_cache

from dicom_quarry.cohort.cell_values import QUERY_KEYS
from dicom_quarry.cohort.dates import range_bounds
from dicom_quarry.model import Study

#: Two patients' IDs may differ in case alone; descriptions and names are written as it comes.
_EXACT = frozenset({"PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID"})


def matches(study: Study, keys: Mapping[str, str]) -> bool:
    """True if a study has every value that was asked for. A series is not looked for here."""
    has = {
        **dict(study.extra_attributes),
        "PatientID": study.patient_id,
        "AccessionNumber": study.accession,
        "StudyDate": study.study_date,
        "StudyInstanceUID": study.study_uid,
        "ModalitiesInStudy": study.modalities,
        "StudyDescription": study.description,
    }
    return all(
        matches_value(keyword, query_value, has.get(keyword, ""))
        for keyword, query_value in keys.items()
        if keyword != "SeriesInstanceUID"
    )


def matches_value(keyword: str, query_value: str, study_value: str) -> bool:
    """True if what an archive holds is what was asked for: a value, one of a list, a range, a pattern."""
    if query_value == study_value:
        return True
    vr = QUERY_KEYS[keyword][0]
    if vr == "DA":
        return _in_date_range(query_value, study_value.strip().replace(".", ""))
    values = [one.strip(" \0") for one in study_value.split("\\")]
    wanted = [one.strip(" \0") for one in query_value.split("\\")]
    if vr == "PN":
        values = [name.split("=")[0].rstrip("^ ") for name in values]
        wanted = [name.rstrip("^ ") for name in wanted]
    return any(_matches_one(keyword, vr, each, value) for each in wanted if each for value in values if value)


def _in_date_range(query_value: str, study_value: str) -> bool:
    first, last = range_bounds(query_value)
    # Until 1993 dates were written with dots (PS3.5 6.2); what is no date is in no range.
    return (
        bool(re.fullmatch(r"[0-9]{8}", study_value))
        and first <= study_value
        and (not last or study_value <= last)
    )


def _matches_one(keyword: str, vr: str, query_value: str, study_value: str) -> bool:
    if vr == "UI":
        return query_value == study_value
    if keyword in _EXACT and not ("*" in query_value or "?" in query_value):
        return query_value == study_value
    return matches_text(query_value, study_value)


def matches_text(pattern: str, text: str) -> bool:
    """True if a text fits, whatever its case; ``*`` stands for any text and ``?`` for one character."""
    if "*" in pattern or "?" in pattern:
        return _compile_pattern(pattern).fullmatch(text) is not None
    return pattern.casefold() == text.casefold()


@lru_cache(maxsize=256)
def _compile_pattern(pattern: str) -> re.Pattern[str]:
    # translate() gives an expression without backtracking; a bracket is no wildcard in DICOM.
    return re.compile(translate(pattern.replace("[", "[[]")), re.IGNORECASE)
