"""One cell becomes the value of a DICOM key: repaired where that is certain, refused where it is not.

Values are text, leading zeros stay. What a spreadsheet did to a value is undone where nothing was lost
(``12345.0``, ``="00123"``, ``'00123``) and told to the user; where digits were lost (``1.23E+10``) the cell
is refused.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache

from dicom_quarry.errors import ConfigError
from dicom_quarry.system.text_safety import escape_text

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


#: The declared form of numbers that count days, as Excel stores dates.
EXCEL_SERIAL = "excel"

_DATE = re.compile(r"([0-9]{4})(?:([0-9]{2})([0-9]{2})|([-/])([0-9]{1,2})\4([0-9]{1,2}))")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BEFORE_MIDNIGHT = re.compile(r"(.{8,10})[ T]00:00(?::00(?:\.0+)?)?")
_MONTH = re.compile(r"([0-9]{4})([-/]?)(0?[1-9]|1[0-2])")
_SERIAL = re.compile(r"([0-9]{2,7})(?:\.[0-9]+)?")
#: Excel takes 1900 for a leap year, so its count is right from March 1900 only: before, dates are in doubt.
_SERIALS = range(61, 2_958_466)
_SERIAL_ZERO = date(1899, 12, 30)
_COMPACT_RANGE = re.compile(r"([0-9]{8})?-([0-9]{8})?")
_WORDED_RANGE = re.compile(r"\s+(?:-|to|until)\s+|\s*(?:\.\.|\N{EN DASH})\s*")

#: What a date in doubt looks like, and the flag that would settle it.
_HINTS = (
    (re.compile(r"[0-9]{5}"), "--date-format excel if it is Excel's number of a day"),
    (re.compile(r"[0-9]{1,2}([./-])[0-9]{1,2}\1[0-9]{4}"), "its order, as in --date-format %d{0}%m{0}%Y"),
    (
        re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T]).*"),
        "its form, as in --date-format '%Y-%m-%d{0}%H:%M:%S'",
    ),
)


class WorkbookDate(str):
    """A cell that its workbook calls a date, as YYYY-MM-DD: in no doubt, whatever form is declared."""

    __slots__ = ()


def check_date_format(date_format: str) -> str:
    """A form that names a day for certain: ``excel``, or strptime's with year, month and day."""
    probe = datetime(2018, 7, 23)
    try:
        if (
            date_format == EXCEL_SERIAL
            or datetime.strptime(probe.strftime(date_format), date_format).date() == probe.date()
        ):
            return date_format
    except ValueError:
        pass
    raise ConfigError(
        f"--date-format '{date_format}' does not give a day; write its year, month and day as in %d/%m/%Y, or excel"
    )


@lru_cache(maxsize=1 << 15)
def parse_day(text: str, date_format: str = "") -> tuple[str, str]:
    """One day as YYYYMMDD; or what is wrong with it."""
    if date_format == EXCEL_SERIAL and (match := _SERIAL.fullmatch(text)):
        number = int(match[1])
        if number in _SERIALS:
            return _format_day(_SERIAL_ZERO + timedelta(days=number)), ""
    elif (
        date_format
        and date_format != EXCEL_SERIAL
        and not (_ISO.fullmatch(text) and not date_format.startswith("%Y"))
    ):
        try:
            return _format_day(datetime.strptime(text, date_format).date()), ""
        except ValueError:
            return (
                "",
                f"is not a date of the form {date_format}; correct it, or declare another --date-format",
            )
    if match := _BEFORE_MIDNIGHT.fullmatch(text) or _FLOAT.fullmatch(text):
        text = match[1]
    match = _DATE.fullmatch(text)
    if not match:
        return "", f"is not a date beyond doubt; write YYYYMMDD or YYYY-MM-DD{_hint(text)}"
    try:
        day = date(int(match[1]), int(match[2] or match[5]), int(match[3] or match[6]))
    except ValueError:
        return "", "is not a day of the calendar; write YYYYMMDD"
    return _format_day(day), ""


def is_dicom_date(text: str) -> bool:
    """Whether this is a day already as DICOM writes it."""
    return len(text) == 8 and parse_day(text)[0] == text


def _format_day(day: date) -> str:
    return f"{day.year:04d}{day.month:02d}{day.day:02d}"


def _hint(text: str) -> str:
    for pattern, remedy in _HINTS:
        if match := pattern.fullmatch(text):
            return f", or declare {remedy.format(*match.groups())}"
    return ""


def parse_day_or_range(text: str, date_format: str = "") -> tuple[str, str]:
    """A day, or a range of days, as one StudyDate key; or what is wrong with it."""
    value, problem = parse_day(text, date_format)
    ends = _split_range(text) if problem else None
    if ends is None:
        return value, problem
    first, last = ("", "")
    if ends[0]:
        first, problem = parse_day(ends[0], date_format)
    else:
        problem = ""
    if ends[1] and not problem:
        last, problem = parse_day(ends[1], date_format)
    return ("", problem) if problem else join_range(first, last)


def _split_range(text: str) -> tuple[str, str] | None:
    """The two ends of what looks like a range; one of them may be empty."""
    if match := _COMPACT_RANGE.fullmatch(text):
        ends = (match[1] or "", match[2] or "")
        return ends if any(ends) else None
    parts = _WORDED_RANGE.split(text)
    return (parts[0], parts[1]) if len(parts) == 2 and any(parts) else None


def parse_month(text: str) -> tuple[str, str]:
    """A month, YYYYMM, as the range of its days; or what is wrong with it."""
    if match := _FLOAT.fullmatch(text):
        text = match[1]
    match = _MONTH.fullmatch(text)
    if not match or not int(match[1]) or (not match[2] and len(text) != 6):
        return "", "is not a month; write YYYYMM"
    year, month = int(match[1]), int(match[3])
    return f"{year:04d}{month:02d}01-{year:04d}{month:02d}{monthrange(year, month)[1]}", ""


def join_range(first: str, last: str) -> tuple[str, str]:
    """Two days, either of which may be empty but not both, as one StudyDate key; or what is wrong."""
    if first and last and first > last:
        return "", f"is a range that ends ({last}) before it begins ({first}); exchange its ends"
    return (first if first == last else f"{first}-{last}"), ""


def range_bounds(value: str) -> tuple[str, str]:
    """The first and the last day that a StudyDate key asks for; empty where that end is open."""
    first, dash, last = value.partition("-")
    return (first, last) if dash else (value, value)
