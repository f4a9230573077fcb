"""One cell becomes the value of a DICOM key: repaired where that is certain, refused where it is not.

Values are text, leading zeros stay. What a spreadsheet did to a value is undone where nothing was lost
(``12345.0``, ``="00123"``, ``'00123``) and told to the user; where digits were lost (``1.23E+10``) the cell
is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from dicom_quarry.cohort.dates import Day, is_day, read_day, read_days, read_month

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
_NOTHING = frozenset({"null", "none", "nan", "na", "n/a", "<na>", "nat", "(null)"})
_WILDCARD = re.compile(r"[*?\\]")
_MATCHES_ALL = re.compile(r"[*?\\\s]+")
_PLAIN = re.compile(r"[A-Za-z]{0,4}[0-9]{1,12}")
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_PLAIN_UID = re.compile(r"(?=.{3,64}\Z)[0-9]+(?:\.[0-9]+)+")
_CODE = re.compile(r"[A-Z0-9_ *?]+")

#: Keys of studies (PS3.4 C.6.2.1), by keyword: representation and length in characters (PS3.5 6.2).
#: StudyMonth and the two ends of a range are ways to write StudyDate. A series is named within its study.
FIELDS: dict[str, tuple[str, int]] = {
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
_NUMBERED = frozenset({"PatientID", "AccessionNumber", "StudyID"})
_AS_TEXT = "format the column as text and export it again"


@dataclass(frozen=True, slots=True)
class Value:
    """What a cell gave: a value to ask for (empty for an empty cell), a repair to tell of, or a problem."""

    text: str = ""
    note: str = ""
    problem: str = ""


def visible(text: str, limit: int = 60) -> str:
    """Text from outside made safe for a terminal or a message: escapes in place of control characters."""
    short = text if len(text) <= limit else f"{text[:limit]}…"
    if short.isprintable():
        return short
    return "".join(char if char.isprintable() else _escape(char) for char in short)


def _escape(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def read_value(
    keyword: str, cell: str, *, allow_wildcards: bool = False, date_format: str = "", any_length: bool = False
) -> Value:
    """Read a cell of a column that stands for a DICOM keyword.

    ``date_format`` is the declared form of its dates. ``any_length`` is for a value that is to be rewritten.
    """
    text = cell.strip()
    if keyword in _NUMBERED and _PLAIN.fullmatch(text):
        return Value(text)
    bare = unwrapped(text)
    if not bare or bare.casefold() in _NOTHING:
        return Value(note=_repair(text, "nothing") if text else "")
    problem = _damage(bare, keyword) or _forbidden(bare, allow_wildcards)
    if not problem:
        value, problem = _typed(keyword, bare, "" if isinstance(cell, Day) else date_format)
    vr, limit = FIELDS[keyword]
    if not problem and len(value) > limit and not any_length:
        problem = f"has {len(value)} characters; DICOM allows {limit} in {keyword} ({vr})"
    if problem:
        return Value(problem=f'"{visible(text)}" {problem}')
    return Value(value, _repair(text, visible(value)) if _differs(vr, text, bare, value) else "")


def plain(keyword: str) -> Callable[[str], object]:
    """A quick test for cells that ``read_value`` takes as they stand, under any options but a date's form."""
    if keyword in _NUMBERED:
        return _PLAIN.fullmatch
    return (
        is_day if keyword == "StudyDate" else _PLAIN_UID.fullmatch if FIELDS[keyword][0] == "UI" else _never
    )


def _never(_: str) -> bool:
    return False


def _repair(text: str, read_as: str) -> str:
    return f'"{visible(text)}" read as {read_as}'


def _differs(vr: str, text: str, bare: str, value: str) -> bool:
    """Whether a repair is worth telling; the accepted forms of a date and of a code are not repairs."""
    return text != bare if vr in ("DA", "CS") and not _FLOAT.fullmatch(bare) else text != value


def unwrapped(text: str) -> str:
    """A value without what surrounds it: invisible characters, a text formula, quotes, an apostrophe."""
    text = _INVISIBLE.sub("", text).replace("\xa0", " ").strip()
    if match := _FORMULA_TEXT.fullmatch(text):
        text = match[1].replace('""', '"')
    elif match := _QUOTED.fullmatch(text):
        text = match[1]
    elif text.startswith("'"):
        text = text[1:]
    return text.strip()


def _damage(text: str, keyword: str) -> str:
    """What a spreadsheet did that cannot be undone."""
    if _SCIENTIFIC.fullmatch(text):
        return f"is a number that a spreadsheet has rounded, so digits are lost; {_AS_TEXT}"
    if _SHEET_ERROR.fullmatch(text):
        return "is a spreadsheet's error, not a value; correct the formula, or widen the column"
    match = _FLOAT.fullmatch(text)
    if match and len(match[1]) > _FLOAT_DIGITS and FIELDS[keyword][0] != "UI":
        return f"went through a number with decimals that keeps {_FLOAT_DIGITS} digits only; {_AS_TEXT}"
    return ""


def _forbidden(text: str, allow_wildcards: bool) -> str:
    if _CONTROL.search(text):
        return "has control characters or line breaks inside; remove them"
    if _MATCHES_ALL.fullmatch(text):
        return "would match everything in the archive; write a value"
    if not allow_wildcards and (match := _WILDCARD.search(text)):
        return (
            f"has '{match[0]}', which DICOM takes as a wildcard; write the whole value, or --allow-wildcards"
        )
    return ""


def _typed(keyword: str, text: str, date_format: str) -> tuple[str, str]:
    """The value under the rules of its value representation, or the problem."""
    vr = FIELDS[keyword][0]
    if vr == "DA":
        return _dated(keyword, text, date_format)
    if vr == "UI" and not _UID.fullmatch(text):
        return "", "is not a UID; a UID has digits and dots only"
    if vr == "CS":
        text = text.upper()
        return (text, "") if _CODE.fullmatch(text) else ("", "is not one code, such as CT or MR")
    if vr == "PN" and "," in text:
        return "", "has a comma; DICOM writes a name as FAMILY^GIVEN"
    if keyword in _NUMBERED and (match := _FLOAT.fullmatch(text)):
        text = match[1]
    return text, ""


def _dated(keyword: str, text: str, date_format: str) -> tuple[str, str]:
    if keyword == "StudyMonth":
        day, not_a_day = read_day(text, date_format)
        # A spreadsheet makes the first of the month of what was typed as one.
        return read_month(day[:6] if not not_a_day and day.endswith("01") else text)
    return read_days(text, date_format) if keyword == "StudyDate" else read_day(text, date_format)
