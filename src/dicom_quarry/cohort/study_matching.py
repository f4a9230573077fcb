"""Does a study have what was asked for? Looked at again on this side: an archive may ignore a key.

Pure matching as PS3.4 C.2.2.2 has it, but never wider: a key whose attribute the archive did not give is not
matched, since nothing says that it was heeded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from functools import lru_cache

from dicom_quarry.cohort.cell_values import FIELDS
from dicom_quarry.cohort.dates import bounds
from dicom_quarry.model import Study

#: Two patients' IDs may differ in case alone; descriptions and names are written as it comes.
_EXACT = frozenset({"PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID"})


def matches(study: Study, keys: Mapping[str, str]) -> bool:
    """True if a study has every value that was asked for. A series is not looked for here."""
    has = {
        **dict(study.others),
        "PatientID": study.patient_id,
        "AccessionNumber": study.accession,
        "StudyDate": study.study_date,
        "StudyInstanceUID": study.study_uid,
        "ModalitiesInStudy": study.modalities,
        "StudyDescription": study.description,
    }
    return all(
        matches_value(keyword, asked, has.get(keyword, ""))
        for keyword, asked in keys.items()
        if keyword != "SeriesInstanceUID"
    )


def matches_value(keyword: str, asked: str, held: str) -> bool:
    """True if what an archive holds is what was asked for: a value, one of a list, a range, a pattern."""
    if asked == held:
        return True
    vr = FIELDS[keyword][0]
    if vr == "DA":
        return _within(asked, held.strip().replace(".", ""))
    values = [one.strip(" \0") for one in held.split("\\")]
    wanted = [one.strip(" \0") for one in asked.split("\\")]
    if vr == "PN":
        values = [name.split("=")[0].rstrip("^ ") for name in values]
        wanted = [name.rstrip("^ ") for name in wanted]
    return any(_one(keyword, vr, each, value) for each in wanted if each for value in values if value)


def _within(asked: str, held: str) -> bool:
    first, last = bounds(asked)
    # Until 1993 dates were written with dots (PS3.5 6.2); what is no date is in no range.
    return bool(re.fullmatch(r"[0-9]{8}", held)) and first <= held and (not last or held <= last)


def _one(keyword: str, vr: str, asked: str, held: str) -> bool:
    if vr == "UI":
        return asked == held
    if keyword in _EXACT and not ("*" in asked or "?" in asked):
        return asked == held
    return matches_text(asked, held)


def matches_text(asked: str, held: str) -> bool:
    """True if a text fits, whatever its case; ``*`` stands for any text and ``?`` for one character."""
    if "*" in asked or "?" in asked:
        return _pattern(asked).fullmatch(held) is not None
    return asked.casefold() == held.casefold()


@lru_cache(maxsize=256)
def _pattern(asked: str) -> re.Pattern[str]:
    # translate() gives an expression without backtracking; a bracket is no wildcard in DICOM.
    return re.compile(translate(asked.replace("[", "[[]")), re.IGNORECASE)
