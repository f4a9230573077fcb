"""One cell becomes the value of a DICOM key: repaired where that is certain, refused where it is not.

Values are text, leading zeros stay. What a spreadsheet did to a value is undone where nothing was lost
(``12345.0``, ``="00123"``, ``'00123``) and told to the user; where digits were lost (``1.23E+10``) the cell
is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from dicom_quarry.cohort.dates import WorkbookDate, is_dicom_date, parse_day, parse_day_or_range, parse_month

#: Characters without a glyph that copying from mail, web pages or Windows dialogs leaves around a value.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FORMULA_TEXT = re.compile(r'="(.*)"', re.DOTALL)
_QUOTED = re.compile(r'"([^"]*)"')
#: A number as a spreadsheet shows one of many digits; ``1E10`` without a sign may be an accession.
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+[eE][+-]?|[eE]\+)[0-9]+")
_FLOAT = re.compile(r"([0-9]+)\.0+")
#: More digits than a 64-bit float keeps.
_FLOAT_DIGITS = 15
_SHEET_ERROR = re.compile(r"#(?:N/A|[A-Z/0]+[!?]|GETTING_DATA|#+)")
_NULL_WORDS = frozenset({"null", "none", "nan", "na", "n/a", "<na>", "nat", "(null)"})
_WILDCARD = re.compile(r"[*?\\]")
_MATCHES_ALL = re.compile(r"[*?\\\s]+")
_PLAIN = re.compile(r"[A-Za-z]{0,4}[0-9]{1,12}")
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_PLAIN_UID = re.compile(r"(?=.{3,64}\Z)[0-9]+(?:\.[0-9]+)+")
_CODE = re.compile(r"[A-Z0-9_ *?]+")

#: Keys of studies (PS3.4 C.6.2.1), by keyword: representation and length in characters (PS3.5 6.2).
#: StudyMonth and the two ends of a range are ways to write StudyDate. A series is named within its study.
QUERY_KEYS: dict[str, tuple[str, int]] = {
    "PatientID": ("LO", 64),
    "AccessionNumber": ("SH", 16),
    "StudyInstanceUID": ("UI", 64),
    "SeriesInstanceUID": ("UI", 64),
    "StudyDate": ("DA", 17),
    "StudyMonth": ("DA", 17),
    "StudyDateFrom": ("DA", 8),
    "StudyDateUntil": ("DA", 8),
    "StudyID": ("SH", 16),
    "StudyDescription": ("LO", 64),
    "ModalitiesInStudy": ("CS", 16),
    "PatientName": ("PN", 64),
    "PatientBirthDate": ("DA", 8),
    "PatientSex": ("CS", 16),
    "IssuerOfPatientID": ("LO", 64),
    "ReferringPhysicianName": ("PN", 64),
    "InstitutionName": ("LO", 64),
}
#: Keys that spreadsheets take for numbers.
_NUMERIC_KEYS = frozenset({"PatientID", "AccessionNumber", "StudyID"})
_TEXT_REMEDY = "format the column as text and export it again"


@dataclass(frozen=True, slots=True)
class CellValue:
    """What a cell gave: a value to ask for (empty for an empty cell), a repair to tell of, or a problem."""

    text: str = ""
    note: str = ""
    problem: str = ""


def escape_text(text: str, limit: int = 60) -> str:
    """Text from outside made safe for a terminal or a message: escapes in place of control characters."""
    short = text if len(text) <= limit else f"{text[:limit]}…"
    if short.isprintable():
        return short
    return "".join(char if char.isprintable() else _escape_char(char) for char in short)


def _escape_char(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def parse_value(
    keyword: str, cell: str, *, allow_wildcards: bool = False, date_format: str = "", any_length: bool = False
) -> CellValue:
    """Read a cell of a column that stands for a DICOM keyword.

    ``date_format`` is the declared form of its dates. ``any_length`` is for a value that is to be rewritten.
    """
    text = cell.strip()
    if keyword in _NUMERIC_KEYS and _PLAIN.fullmatch(text):
        return CellValue(text)
    bare = unwrap(text)
    if not bare or bare.casefold() in _NULL_WORDS:
        return CellValue(note=_repair_note(text, "nothing") if text else "")
    problem = _find_damage(bare, keyword) or _find_forbidden(bare, allow_wildcards)
    if not problem:
        value, problem = _parse_typed(keyword, bare, "" if isinstance(cell, WorkbookDate) else date_format)
    vr, limit = QUERY_KEYS[keyword]
    if not problem and len(value) > limit and not any_length:
        problem = f"has {len(value)} characters; DICOM allows {limit} in {keyword} ({vr})"
    if problem:
        return CellValue(problem=f'"{escape_text(text)}" {problem}')
    return CellValue(
        value, _repair_note(text, escape_text(value)) if _is_repair(vr, text, bare, value) else ""
    )


def make_plain_check(keyword: str) -> Callable[[str], object]:
    """A quick test for cells that ``read_value`` takes as they stand, under any options but a date's form."""
    if keyword in _NUMERIC_KEYS:
        return _PLAIN.fullmatch
    return (
        is_dicom_date
        if keyword == "StudyDate"
        else _PLAIN_UID.fullmatch
        if QUERY_KEYS[keyword][0] == "UI"
        else _always_false
    )


def _always_false(_: str) -> bool:
    return False


def _repair_note(text: str, read_as: str) -> str:
    return f'"{escape_text(text)}" read as {read_as}'


def _is_repair(vr: str, text: str, bare: str, value: str) -> bool:
    """Whether a repair is worth telling; the accepted forms of a date and of a code are not repairs."""
    return text != bare if vr in ("DA", "CS") and not _FLOAT.fullmatch(bare) else text != value


def unwrap(text: str) -> str:
    """A value without what surrounds it: invisible characters, a text formula, quotes, an apostrophe."""
    text = _INVISIBLE.sub("", text).replace("\xa0", " ").strip()
    if match := _FORMULA_TEXT.fullmatch(text):
        text = match[1].replace('""', '"')
    elif match := _QUOTED.fullmatch(text):
        text = match[1]
    elif text.startswith("'"):
        text = text[1:]
    return text.strip()


def _find_damage(text: str, keyword: str) -> str:
    """What a spreadsheet did that cannot be undone."""
    if _SCIENTIFIC.fullmatch(text):
        return f"is a number that a spreadsheet has rounded, so digits are lost; {_TEXT_REMEDY}"
    if _SHEET_ERROR.fullmatch(text):
        return "is a spreadsheet's error, not a value; correct the formula, or widen the column"
    match = _FLOAT.fullmatch(text)
    if match and len(match[1]) > _FLOAT_DIGITS and QUERY_KEYS[keyword][0] != "UI":
        return f"went through a number with decimals that keeps {_FLOAT_DIGITS} digits only; {_TEXT_REMEDY}"
    return ""


def _find_forbidden(text: str, allow_wildcards: bool) -> str:
    if _CONTROL.search(text):
        return "has control characters or line breaks inside; remove them"
    if _MATCHES_ALL.fullmatch(text):
        return "would match everything in the archive; write a value"
    if not allow_wildcards and (match := _WILDCARD.search(text)):
        return (
            f"has '{match[0]}', which DICOM takes as a wildcard; write the whole value, or --allow-wildcards"
        )
    return ""


def _parse_typed(keyword: str, text: str, date_format: str) -> tuple[str, str]:
    """The value under the rules of its value representation, or the problem."""
    vr = QUERY_KEYS[keyword][0]
    if vr == "DA":
        return _parse_date(keyword, text, date_format)
    if vr == "UI" and not _UID.fullmatch(text):
        return "", "is not a UID; a UID has digits and dots only"
    if vr == "CS":
        text = text.upper()
        return (text, "") if _CODE.fullmatch(text) else ("", "is not one code, such as CT or MR")
    if vr == "PN" and "," in text:
        return "", "has a comma; DICOM writes a name as FAMILY^GIVEN"
    if keyword in _NUMERIC_KEYS and (match := _FLOAT.fullmatch(text)):
        text = match[1]
    return text, ""


def _parse_date(keyword: str, text: str, date_format: str) -> tuple[str, str]:
    if keyword == "StudyMonth":
        day, not_a_day = parse_day(text, date_format)
        # A spreadsheet makes the first of the month of what was typed as one.
        return parse_month(day[:6] if not not_a_day and day.endswith("01") else text)
    return parse_day_or_range(text, date_format) if keyword == "StudyDate" else parse_day(text, date_format)
