"""One cell becomes the value of a DICOM key: repaired where that is certain, refused where it is not.

Values are text, leading zeros stay. What a spreadsheet did to a value is undone where nothing was lost
(``12345.0``, ``="00123"``, ``'00123``) and told to the user; where digits were lost (``1.23E+10``) the cell
is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

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
_SHEET_ERROR = re.compile(r"#(?:N/A|REF!|VALUE!|NAME\?|DIV/0!|NUM!|NULL!|#+)")
_NOTHING = frozenset({"null", "none", "nan", "na", "n/a", "<na>", "nat", "(null)"})
_WILDCARD = re.compile(r"[*?\\]")
_MATCHES_ALL = re.compile(r"[*?\\\s]+")
_PLAIN = re.compile(r"[A-Za-z]{0,4}[0-9]{1,12}")

_DATE = re.compile(r"([0-9]{4})(?:([0-9]{2})([0-9]{2})|([-/])([0-9]{1,2})\4([0-9]{1,2}))")
_MIDNIGHT = re.compile(r"(.{8,10})[ T]00:00(?::00(?:\.0+)?)?")
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")

#: Maximum lengths in characters (PS3.5 6.2).
_LIMITS = {"AccessionNumber": ("SH", 16), "PatientID": ("LO", 64), "StudyInstanceUID": ("UI", 64)}
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
    return "".join(char if char.isprintable() else _escape(char) for char in short)


def _escape(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def read_value(keyword: str, cell: str, *, allow_wildcards: bool = False) -> Value:
    """Read a cell of a column that stands for a DICOM keyword."""
    text = cell.strip()
    if keyword in ("AccessionNumber", "PatientID") and _PLAIN.fullmatch(text):
        return Value(text)
    bare = _unwrapped(text)
    if not bare or bare.casefold() in _NOTHING:
        return Value(note=_repair(text, "nothing") if text else "")
    problem = _damage(bare, keyword) or _forbidden(bare, allow_wildcards)
    if problem:
        return Value(problem=f'"{visible(text)}" {problem}')
    value, problem = _typed(keyword, bare)
    if problem:
        return Value(problem=f'"{visible(text)}" {problem}')
    return Value(value, _repair(text, visible(value)) if _differs(keyword, text, value) else "")


def _repair(text: str, read_as: str) -> str:
    return f'"{visible(text)}" read as {read_as}'


def _differs(keyword: str, text: str, value: str) -> bool:
    """Whether a repair is worth telling; the accepted forms of a date are not repairs."""
    return text != value and not (keyword == "StudyDate" and _DATE.fullmatch(text))


def _unwrapped(text: str) -> str:
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
    if match and len(match[1]) > _FLOAT_DIGITS and keyword != "StudyInstanceUID":
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


def _typed(keyword: str, text: str) -> tuple[str, str]:
    """The value under the rules of its value representation, or the problem."""
    if keyword == "StudyDate":
        return _date(text)
    if keyword == "StudyInstanceUID" and not _UID.fullmatch(text):
        return "", "is not a UID; a UID has digits and dots only"
    if keyword != "StudyInstanceUID" and (match := _FLOAT.fullmatch(text)):
        text = match[1]
    vr, limit = _LIMITS[keyword]
    if len(text) > limit:
        return "", f"has {len(text)} characters; DICOM allows {limit} in {keyword} ({vr})"
    return text, ""


@lru_cache(maxsize=1 << 15)
def _date(text: str) -> tuple[str, str]:
    """A date as DICOM writes it (DA); only forms that begin with the year are beyond doubt."""
    if match := _MIDNIGHT.fullmatch(text) or _FLOAT.fullmatch(text):
        text = match[1]
    match = _DATE.fullmatch(text)
    if not match:
        return "", "is not a date beyond doubt; write YYYYMMDD or YYYY-MM-DD"
    year, month, day = int(match[1]), int(match[2] or match[5]), int(match[3] or match[6])
    try:
        return date(year, month, day).strftime("%Y%m%d").zfill(8), ""
    except ValueError:
        return "", "is not a day of the calendar; write YYYYMMDD"
