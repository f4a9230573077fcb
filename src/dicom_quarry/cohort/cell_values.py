"""Values of cells: reading one cell as the value of a DICOM key, and all forms of a date.

Values are text, so leading zeros stay. A change that a spreadsheet made is undone if nothing was lost
(``12345.0``, ``12345,0``, ``="00123"``, ``'00123``), and reported to the user; a cell that lost digits
(``1.23E+10``), or is probably not one identifier (``4,711``, ``A1; A2``), is refused. A date is accepted only
in a form that has one meaning, or in the form that the user declares; days, months and ranges become one
StudyDate key (range matching, PS3.4 C.2.2.2.5).
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache

from dicom_quarry.cohort.cell_doubts import find_damage, find_doubt
from dicom_quarry.errors import ConfigError
from dicom_quarry.system.text_safety import escape_text

#: Characters without a glyph, which copying from mail, web pages or Windows dialogs leaves around a value.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb]"
)
#: Spaces of other widths, and those that do not break a line.
_ODD_SPACE = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FORMULA_TEXT = re.compile(r'="(.*)"', re.DOTALL)
_QUOTED = re.compile(
    r'"([^"]*)"'
    "|[\u201c\u201d\u201e\u201f]([^\u201c\u201d\u201e\u201f]*)[\u201c\u201d\u201e\u201f]"
    "|[\u2018\u2019\u201a\u201b\u2039`\u00b4']([^\u2018\u2019\u201a\u201b\u2039\u203a`\u00b4']*)[\u2018\u2019\u201b\u203a`\u00b4']"
    "|\u00ab([^\u00ab\u00bb]*)\u00bb"
    "|\u00bb([^\u00ab\u00bb]*)\u00ab"
)
_APOSTROPHES = ("'", "\N{RIGHT SINGLE QUOTATION MARK}", "\N{LEFT SINGLE QUOTATION MARK}")
_FLOAT = re.compile(r"([0-9]+)[.,]0+")
#: More digits than a 64-bit float keeps.
_FLOAT_DIGITS = 15
_NULL_WORDS = frozenset({"null", "none", "nan", "na", "n/a", "<na>", "nat", "(null)"})
_WILDCARD = re.compile(r"[*?\\]")
_MATCHES_ALL = re.compile(r"[*?\\\s]+")
_PLAIN = re.compile(r"[A-Za-z]{0,4}[0-9]{1,12}")
#: Digits and dots (PS3.5 9.1); some archives have UIDs with letters, too.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+|[0-9]+(?:\.[0-9A-Za-z_-]+){3,}")
_PLAIN_UID = re.compile(r"(?=.{3,64}\Z)[0-9]+(?:\.[0-9]+)+")
_CODE = re.compile(r"[A-Z0-9_ *?]+")

#: Keys of studies (PS3.4 C.6.2.1), by keyword: value representation and length in characters (PS3.5 6.2).
#: StudyMonth and the two ends of a range become StudyDate. A series is found only within its study.
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
#: Keys that a spreadsheet may read as numbers.
_NUMERIC_KEYS = frozenset({"PatientID", "AccessionNumber", "StudyID"})
#: Keys that name one patient, study or series, and their characters under --long-identifiers.
_IDENTIFIERS = _NUMERIC_KEYS | {"StudyInstanceUID", "SeriesInstanceUID"}
_LONG_IDENTIFIER = 1024
_TEXT_REMEDY = "format the column as text and export it again"


@dataclass(frozen=True, slots=True)
class CellValue:
    """The result of reading a cell: a value to query (empty if none), a repair note, or a problem.

    ``is_doubt``: the problem is a doubt on which the user can decide, with ``verbatim``.
    """

    text: str = ""
    note: str = ""
    problem: str = ""
    is_doubt: bool = False


class WorkbookDate(str):
    """A cell that its workbook shows as a date, as YYYY-MM-DD: certain, under any ``--date-format``."""

    __slots__ = ()


class UnreadableCell(str):
    """A cell of a workbook whose value cannot be used, as text for the report, with the ``problem``."""

    __slots__ = ("problem",)

    def __new__(cls, text: str, problem: str) -> UnreadableCell:
        """Return the cell; its text must not be mistaken for a value."""
        cell = super().__new__(cls, text)
        cell.problem = problem
        return cell

    problem: str


def parse_value(
    keyword: str,
    cell: str,
    *,
    allow_wildcards: bool = False,
    date_format: str = "",
    any_length: bool = False,
    long_identifiers: bool = False,
    verbatim: bool = False,
) -> CellValue:
    """Read a cell of a column that is mapped to a DICOM keyword.

    ``date_format`` is the declared form of its dates. ``any_length`` skips the check of the length, for a
    value that is rewritten afterwards. ``long_identifiers``: identifiers may be longer than DICOM allows.
    ``verbatim``: the user states that every cell is one identifier.
    """
    text = cell.strip()
    if isinstance(cell, UnreadableCell):
        return CellValue(problem=f'"{escape_text(text)}" {cell.problem}')
    if keyword in _NUMERIC_KEYS and _PLAIN.fullmatch(text):
        return CellValue(text)
    bare = unwrap(text)
    if not bare or bare.casefold() in _NULL_WORDS:
        return CellValue(note=_repair_note(text, "an empty cell") if text else "")
    problem = find_damage(bare) or _find_lost_digits(bare, keyword) or _find_forbidden(bare, allow_wildcards)
    if not problem and keyword in _NUMERIC_KEYS:
        problem = _find_date(cell)
        if not problem and not verbatim and not _is_marked_text(text) and (problem := find_doubt(bare)):
            return CellValue(problem=f'"{escape_text(text)}" {problem}', is_doubt=True)
    if not problem:
        value, problem = _parse_typed(keyword, bare, "" if isinstance(cell, WorkbookDate) else date_format)
    vr, limit = QUERY_KEYS[keyword]
    if not problem and not any_length:
        problem = _find_excess(keyword, len(value), limit, long_identifiers)
    if problem:
        return CellValue(problem=f'"{escape_text(text)}" {problem}')
    return CellValue(
        value, _repair_note(text, escape_text(value)) if _is_repair(vr, text, bare, value) else ""
    )


def _find_excess(keyword: str, length: int, limit: int, long_identifiers: bool) -> str:
    """Describe a value with too many characters; empty if there are not."""
    if length <= limit or (long_identifiers and keyword in _IDENTIFIERS and length <= _LONG_IDENTIFIER):
        return ""
    problem = f"has {length} characters, but {keyword} has at most {limit} in DICOM; correct the value"
    if long_identifiers or keyword not in _IDENTIFIERS or length > _LONG_IDENTIFIER:
        return problem
    return f"{problem}, or use --long-identifiers if the archive has such values"


def make_plain_check(keyword: str) -> Callable[[str], object]:
    """Return a quick test for cells that ``parse_value`` leaves unchanged, unless ``date_format`` is set."""
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
    """True if the user should know of the change; the accepted forms of a date or a code are not repairs."""
    return text != bare if vr in ("DA", "CS") and not _FLOAT.fullmatch(bare) else text != value


def unwrap(text: str) -> str:
    """Remove what surrounds a value: invisible characters, a text formula, quotes, an apostrophe."""
    text = _remove_invisible(text)
    if match := _FORMULA_TEXT.fullmatch(text):
        text = match[1].replace('""', '"')
    elif match := _QUOTED.fullmatch(text):
        text = match[match.lastindex or 0]
    elif text.startswith(_APOSTROPHES):
        text = text[1:]
    return text.strip()


def _remove_invisible(text: str) -> str:
    return text if text.isascii() else _ODD_SPACE.sub(" ", _INVISIBLE.sub("", text)).strip()


def _is_marked_text(text: str) -> bool:
    """Return whether a cell is marked as text, by a formula or an apostrophe."""
    text = _remove_invisible(text)
    return bool(_FORMULA_TEXT.fullmatch(text)) or (text.startswith("'") and not text.endswith("'"))


def _find_date(cell: str) -> str:
    if not isinstance(cell, WorkbookDate):
        return ""
    return f"is a date in the workbook, not an identifier; {_TEXT_REMEDY}"


def _find_lost_digits(text: str, keyword: str) -> str:
    match = _FLOAT.fullmatch(text)
    if match and len(match[1]) > _FLOAT_DIGITS and QUERY_KEYS[keyword][0] != "UI":
        return (
            f"has more digits than a spreadsheet keeps ({_FLOAT_DIGITS}), so it may be wrong; {_TEXT_REMEDY}"
        )
    return ""


def _find_forbidden(text: str, allow_wildcards: bool) -> str:
    if _CONTROL.search(text):
        return "contains control characters or line breaks; remove them"
    if _MATCHES_ALL.fullmatch(text):
        return "would match everything in the archive; write a value"
    if not allow_wildcards and (match := _WILDCARD.search(text)):
        return (
            f"contains the wildcard '{match[0]}'; write the whole value, or allow it with --allow-wildcards"
        )
    return ""


def _parse_typed(keyword: str, text: str, date_format: str) -> tuple[str, str]:
    """Return the value under the rules of its value representation (PS3.5 6.2), or else the problem."""
    vr = QUERY_KEYS[keyword][0]
    if vr == "DA":
        return _parse_date(keyword, text, date_format)
    if vr == "UI" and not _UID.fullmatch(text):
        return "", "is not a UID; write digits and dots only"
    if vr == "CS":
        text = text.upper()
        return (
            (text, "") if _CODE.fullmatch(text) else ("", "is not a code; write one code, such as CT or MR")
        )
    if vr == "PN" and "," in text:
        return "", "contains a comma; write the name as FAMILY^GIVEN"
    if keyword in _NUMERIC_KEYS and (match := _FLOAT.fullmatch(text)):
        text = match[1]
    return text, ""


def _parse_date(keyword: str, text: str, date_format: str) -> tuple[str, str]:
    if keyword == "StudyMonth":
        day, not_a_day = parse_day(text, date_format)
        # A spreadsheet turns a month that was typed into the first day of that month.
        return parse_month(day[:6] if not not_a_day and day.endswith("01") else text)
    return parse_day_or_range(text, date_format) if keyword == "StudyDate" else parse_day(text, date_format)


#: The ``--date-format`` for numbers of days, as Excel stores dates.
EXCEL_SERIAL = "excel"

_DATE = re.compile(r"([0-9]{4})(?:([0-9]{2})([0-9]{2})|([-/])([0-9]{1,2})\4([0-9]{1,2}))")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BEFORE_MIDNIGHT = re.compile(r"(.{8,10})[ T]00:00(?::00(?:\.0+)?)?")
_MONTH = re.compile(r"([0-9]{4})([-/]?)(0?[1-9]|1[0-2])")
_SERIAL = re.compile(r"([0-9]{2,7})(?:\.[0-9]+)?")
#: Excel treats 1900 as a leap year, so its numbers are certain only from March 1900.
_SERIALS = range(61, 2_958_466)
_SERIAL_ZERO = date(1899, 12, 30)
_COMPACT_RANGE = re.compile(r"([0-9]{8})?-([0-9]{8})?")
_WORDED_RANGE = re.compile(r"\s+(?:-|to|until)\s+|\s*(?:\.\.|\N{EN DASH})\s*")

#: Patterns of dates with more than one meaning, and the option that declares the meaning.
_HINTS = (
    (re.compile(r"[0-9]{5}"), "if it is an Excel date number, use --date-format excel"),
    (
        re.compile(r"[0-9]{1,2}([./-])[0-9]{1,2}\1[0-9]{4}"),
        "give the order of day and month, as in --date-format %d{0}%m{0}%Y",
    ),
    (
        re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T]).*"),
        "give the format, as in --date-format '%Y-%m-%d{0}%H:%M:%S'",
    ),
)


def check_date_format(date_format: str) -> str:
    """Return a format that determines a day: ``excel``, or strptime's with year, month and day.

    Raises ConfigError for any other.
    """
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
        f"--date-format '{date_format}' does not contain year, month and day; write them as in %d/%m/%Y, "
        "or write excel"
    )


@lru_cache(maxsize=1 << 15)
def parse_day(text: str, date_format: str = "") -> tuple[str, str]:
    """Read one day; returns it as YYYYMMDD, or else the problem."""
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
                f"is not a date in the format {date_format}; correct it, or give another --date-format",
            )
    if match := _BEFORE_MIDNIGHT.fullmatch(text) or _FLOAT.fullmatch(text):
        text = match[1]
    match = _DATE.fullmatch(text)
    if not match:
        return "", f"is not a clear date; write YYYYMMDD or YYYY-MM-DD{_hint(text)}"
    try:
        day = date(int(match[1]), int(match[2] or match[5]), int(match[3] or match[6]))
    except ValueError:
        return "", "is not a day of the calendar; correct the date"
    return _format_day(day), ""


def is_dicom_date(text: str) -> bool:
    """True if this is a day in the form of DICOM (DA, PS3.5 6.2)."""
    return len(text) == 8 and parse_day(text)[0] == text


def _format_day(day: date) -> str:
    return f"{day.year:04d}{day.month:02d}{day.day:02d}"


def _hint(text: str) -> str:
    for pattern, remedy in _HINTS:
        if match := pattern.fullmatch(text):
            return f", or {remedy.format(*match.groups())}"
    return ""


def parse_day_or_range(text: str, date_format: str = "") -> tuple[str, str]:
    """Read a day, or a range of days; returns it as one StudyDate key, or else the problem."""
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
    """Return the two ends of a text that looks like a range; one of them may be empty."""
    if match := _COMPACT_RANGE.fullmatch(text):
        ends = (match[1] or "", match[2] or "")
        return ends if any(ends) else None
    parts = _WORDED_RANGE.split(text)
    return (parts[0], parts[1]) if len(parts) == 2 and any(parts) else None


def parse_month(text: str) -> tuple[str, str]:
    """Read a month, YYYYMM; returns the range of its days, or else the problem."""
    if match := _FLOAT.fullmatch(text):
        text = match[1]
    match = _MONTH.fullmatch(text)
    if not match or not int(match[1]) or (not match[2] and len(text) != 6):
        return "", "is not a month; write YYYYMM"
    year, month = int(match[1]), int(match[3])
    return f"{year:04d}{month:02d}01-{year:04d}{month:02d}{monthrange(year, month)[1]}", ""


def join_range(first: str, last: str) -> tuple[str, str]:
    """Join two days, one of which may be empty, to one StudyDate key; or else return the problem."""
    if first and last and first > last:
        return "", f"ends ({last}) before it begins ({first}); exchange the two dates"
    return (first if first == last else f"{first}-{last}"), ""


def range_bounds(value: str) -> tuple[str, str]:
    """Return the first and the last day of a StudyDate key; empty for an open end."""
    first, dash, last = value.partition("-")
    return (first, last) if dash else (value, value)
