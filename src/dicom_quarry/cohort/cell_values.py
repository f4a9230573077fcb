"""Values of cells: reading one cell as the value of a DICOM key.

Values are text, so leading zeros stay. A change that a spreadsheet made is undone if nothing was lost
(``12345.0``, ``12345,0``, ``="00123"``, ``'00123``), and reported to the user; a cell that lost digits
(``1.23E+10``), or is probably not one identifier (``4,711``, ``A1; A2``), is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from dicom_quarry.cohort.cell_doubts import find_damage, find_doubt
from dicom_quarry.cohort.dates import FLOAT as _FLOAT
from dicom_quarry.cohort.dates import is_dicom_date, parse_date_key
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
        return parse_date_key(keyword, text, date_format)
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
