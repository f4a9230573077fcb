"""Number formats of a workbook (ISO/IEC 29500-1, 18.8.31): the text that Excel shows for a stored number.

A cell whose text cannot be known exactly, or which does not show the whole number, becomes an
:class:`UnreadableCell`: an identifier is then refused, while other columns still have a text for the report.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from dicom_quarry.cohort.cell_values import UnreadableCell, WorkbookDate

#: The codes of built-in formats (ISO/IEC 29500-1, 18.8.30); those of East Asia are dates and times.
_BUILT_IN = {
    **{0: "General", 1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 9: "0%", 10: "0.00%", 11: "0.00E+00"},
    **{12: "# ?/?", 13: "# ??/??", 14: "mm-dd-yy", 15: "d-mmm-yy", 16: "d-mmm", 17: "mmm-yy"},
    **{18: "h:mm AM/PM", 19: "h:mm:ss AM/PM", 20: "h:mm", 21: "h:mm:ss", 22: "m/d/yy h:mm"},
    **{37: "#,##0 ;(#,##0)", 38: "#,##0 ;(#,##0)", 39: "#,##0.00;(#,##0.00)", 40: "#,##0.00;(#,##0.00)"},
    **{45: "mm:ss", 46: "[h]:mm:ss", 47: "mm:ss.0", 48: "##0.0E+0", 49: "@"},
    **dict.fromkeys([*range(27, 32), 36, *range(50, 55), 57, 58], "yyyy-mm-dd"),
    **dict.fromkeys([*range(32, 36), 55, 56], "h:mm"),
}
_UNKNOWN = "?"

_TOKEN = re.compile(
    r'"[^"]*"?|\\.|_.|\*.|\[[^\]]*\]?|general|am/pm|a/p|e[+-]|y+|m+|d+|h+|s+|[egb]+|.',
    re.IGNORECASE | re.DOTALL,
)
_COLOUR = re.compile(r"\[(?:black|blue|cyan|green|magenta|red|white|yellow|colou?r ?[0-9]+)\]", re.IGNORECASE)
_ELAPSED = re.compile(r"\[(h+|m+|s+)\]", re.IGNORECASE)
#: A currency or a text, then a locale; one of more than four digits may ask for other digits.
_LOCALE = re.compile(r"\[\$([^\]-]*)(?:-([0-9A-Fa-f]{1,4}))?\]")
_SYSTEM_DATE, _SYSTEM_TIME = ("F800", "F400")

#: Excel treats 1900 as a leap year, so its dates are certain only from March 1900.
_FIRST_SURE, _DAYS_TO_1904, _LAST = 61, 1462, 2_958_465
#: The digits that a 64-bit float keeps.
_MOST_DIGITS = 15
#: The largest power of ten that Excel has.
_MAX_EXPONENT = 308

_ROUNDED = "is shown by its number format with fewer digits than it has"


@dataclass(frozen=True, slots=True, eq=False)
class NumberFormat:
    """A number format: its code, and its sections as pairs of kind and text."""

    code: str
    sections: tuple[tuple[tuple[str, str], ...], ...]

    @classmethod
    def parse(cls, number: int, code: str = "") -> NumberFormat:
        """Parse a format from its number and its code, which a built-in format does not need."""
        code = code or _BUILT_IN.get(number, _UNKNOWN)
        sections: list[tuple[tuple[str, str], ...]] = []
        tokens: list[tuple[str, str]] = []
        for match in _TOKEN.finditer(code):
            if match[0] == ";":
                sections.append(tuple(tokens))
                tokens = []
            else:
                tokens.append(_classify(match[0], tokens))
        return cls(code, (*sections, tuple(tokens)))

    def format_number(self, value: str, epoch_1904: bool) -> str:
        """Return the text of a number from its stored form."""
        return _format_stored(self, value.strip(), epoch_1904)

    def format_text(self, value: str) -> str:
        """Return the text of a cell with text; a section with ``@`` may add to it."""
        last = self.sections[-1]
        if len(self.sections) < 4 and not _has(last, "@"):
            return value
        if not _has(last, "@", "general"):
            return self.unreadable(value, "is not shown by its number format")
        if _has(last, "unknown"):
            return self.unreadable(value, "has a number format that is not known")
        shown = "".join(value if kind in ("@", "general") else text for kind, text in last)
        return shown if shown != value else value

    def number_section(self, number: Decimal) -> tuple[tuple[str, str], ...]:
        """Return the section for a number: positive, negative or zero."""
        sections = self.sections[:-1] if self.has_text_section else self.sections
        if number < 0 and len(sections) > 1:
            return sections[1]
        return sections[2] if number == 0 and len(sections) > 2 else sections[0]

    @property
    def has_text_section(self) -> bool:
        """True if the last section is for text alone."""
        return len(self.sections) > 3 or (len(self.sections) > 1 and _has(self.sections[-1], "@"))

    def unreadable(self, text: object, problem: str) -> UnreadableCell:
        """Return the cell as one that no key can use; the code keeps its text apart from values."""
        return UnreadableCell(f"{text} [{self.code}]", f"{problem}; format the column as text")


def _has(section: tuple[tuple[str, str], ...], *kinds: str) -> bool:
    return any(kind in kinds for kind, _ in section)


def _classify(token: str, before: list[tuple[str, str]]) -> tuple[str, str]:
    """Return the kind of a token, and the text that it shows if it is literal."""
    lower = token.casefold()
    if token.startswith('"'):
        return "literal", token.strip('"')
    if token.startswith("\\"):
        return "literal", token[1:]
    if token.startswith("_"):
        return "literal", " "
    if token.startswith("*"):
        return ("literal", "") if token == "* " else ("unknown", token)
    if token.startswith("["):
        return _classify_bracket(token)
    if lower in ("general", "@", "%", "/", ".", ",", "?"):
        return lower, token
    if token in ("0", "#"):
        return token, token
    if lower in ("e+", "e-"):
        return ("exponent", token) if _has(tuple(before), "0", "#", "?") else ("unknown", token)
    if lower in ("am/pm", "a/p"):
        return "time", token
    if lower[0] in "ymdhs" or (lower[0] in "egb" and lower.isalpha()):
        return "date", lower
    return "literal", token


def _classify_bracket(token: str) -> tuple[str, str]:
    if _COLOUR.fullmatch(token):
        return "literal", ""
    if _ELAPSED.fullmatch(token):
        return "time", token
    match = _LOCALE.fullmatch(token)
    if match and (match[2] or "").upper() in (_SYSTEM_DATE, _SYSTEM_TIME):
        return "system", match[2].upper()
    return ("literal", match[1]) if match else ("unknown", token)


@lru_cache(maxsize=1 << 14)
def _format_stored(number_format: NumberFormat, value: str, epoch_1904: bool) -> str:
    try:
        number = Decimal(value)
    except InvalidOperation:
        return value
    if not number.is_finite() or abs(number.adjusted()) > _MAX_EXPONENT:
        return value
    return _format_number(number_format, number, epoch_1904)


def _format_number(number_format: NumberFormat, number: Decimal, epoch_1904: bool) -> str:
    stored = _plain(number)
    section = number_format.number_section(number)
    if _has(section, "unknown") or number_format.code == _UNKNOWN:
        return number_format.unreadable(stored, "has a number format that is not known")
    if _has(section, "date", "time", "system"):
        return _format_date(number_format, section, number, epoch_1904)
    if len(stored.lstrip("-")) > _MOST_DIGITS and "." not in stored:
        return UnreadableCell(
            stored,
            f"has more digits than a spreadsheet keeps ({_MOST_DIGITS}), so it may be wrong; format the "
            "column as text and export it again",
        )
    if _has(section, "general", "@"):
        return "".join(stored if kind in ("general", "@") else text for kind, text in section)
    if _has(section, "exponent"):
        return UnreadableCell(
            f"{number.normalize():E}",
            "is shown in powers of ten by its number format; format the column as text",
        )
    if _has(section, "%"):
        return f"{_plain(number * 100)}%"
    sign = "-" if number < 0 and section is number_format.sections[0] else ""
    shown = _fill_digits(section, abs(number))
    if shown == _ROUNDED:
        return UnreadableCell(
            _as_float(number), f"{_ROUNDED} ({number_format.code}); format the column as text"
        )
    if not shown:
        return number_format.unreadable(stored, "is not shown as a number by its number format")
    return f"{sign}{shown}"


def _plain(number: Decimal) -> str:
    """Return a number as Excel shows it in the format General, but never in powers of ten if it is whole."""
    return str(int(number)) if number == int(number) else _as_float(number)


def _as_float(number: Decimal) -> str:
    return repr(float(number))


def _fill_digits(section: tuple[tuple[str, str], ...], number: Decimal) -> str:
    """Put the digits of a number into the places of a section; empty if the section has none for them."""
    kinds = [kind for kind, _ in section]
    point = kinds.index(".") if "." in kinds else len(kinds)
    places = [at for at, kind in enumerate(kinds) if kind in ("0", "#", "?")]
    before, after = [at for at in places if at < point], [at for at in places if at > point]
    if not before or "/" in kinds or kinds.count(".") > 1:
        return ""
    if number != round(number, len(after)):
        return _ROUNDED
    whole, _, decimals = f"{number:.{len(after)}f}".partition(".")
    shown = [text for _, text in section]
    commas = [at for at, kind in enumerate(kinds) if kind == ","]
    if commas:
        if not all(before[0] < at < before[-1] for at in commas) or before[-1] - before[0] >= len(
            before
        ) + len(commas):
            return ""
        zeros = [at for at in before if kinds[at] == "0"]
        width = len([at for at in before if at >= zeros[0]]) if zeros else 0
        whole = whole.zfill(width) if number >= 1 or width else ""
        shown[before[0] : before[-1] + 1] = [_group(whole)] + [""] * (before[-1] - before[0])
    else:
        _fill_whole(shown, kinds, before, "" if whole == "0" else whole)
    for at, digit in zip(after, decimals, strict=True):
        shown[at] = digit
    for at in reversed(after):
        if shown[at] != "0" or kinds[at] == "0":
            break
        shown[at] = "" if kinds[at] == "#" else " "
    text = "".join(shown)
    return text if any(char.isdigit() for char in text) else ""


def _fill_whole(shown: list[str], kinds: list[str], places: list[int], digits: str) -> None:
    """Fill the places from the right; digits without a place go to the first one."""
    missing = max(0, len(places) - len(digits))
    extra = max(0, len(digits) - len(places))
    for at in places[:missing]:
        shown[at] = {"0": "0", "#": "", "?": " "}[kinds[at]]
    for index, at in enumerate(places[missing:]):
        shown[at] = digits[: extra + 1] if index == 0 and extra else digits[extra + index]


def _group(digits: str) -> str:
    first = len(digits) % 3
    parts = [digits[:first]] if first else []
    return ",".join([*parts, *(digits[at : at + 3] for at in range(first, len(digits), 3))])


def _format_date(
    number_format: NumberFormat,
    section: tuple[tuple[str, str], ...],
    number: Decimal,
    epoch_1904: bool,
) -> str:
    """Return the day, or the month, that a format shows; refuse what it shows of a date in part."""
    parts = _shown_parts(section)
    days = float(number) + (_DAYS_TO_1904 if epoch_1904 else 0)
    if not parts & {"year", "month", "day"}:
        return number_format.unreadable(_plain(number), "is shown as a time or a weekday")
    if not _FIRST_SURE <= days < _LAST:
        return number_format.unreadable(_plain(number), "has the format of a date, but is not one")
    moment = datetime(1899, 12, 30) + timedelta(seconds=round(days * 86_400))
    if "time" not in parts:
        moment = datetime(1899, 12, 30) + timedelta(days=int(days))
    if {"year", "month", "day"} <= parts:
        is_midnight = moment.time() == datetime.min.time()
        return WorkbookDate(f"{moment:%Y-%m-%d}") if is_midnight else f"{moment:%Y-%m-%d %H:%M:%S}"
    if {"year", "month"} <= parts:
        return WorkbookDate(f"{moment:%Y-%m}")
    return UnreadableCell(
        f"{moment:%Y-%m-%d}",
        f"is a date of which the number format {number_format.code} shows a part; choose a format with "
        "year, month and day",
    )


def _shown_parts(section: tuple[tuple[str, str], ...]) -> set[str]:
    """Return the parts of a date that a section shows; ``m`` after hours or before seconds means minutes."""
    if any(token == ("system", _SYSTEM_DATE) for token in section):
        return {"year", "month", "day"}
    letters = [text.strip("[]").casefold() for kind, text in section if kind in ("date", "time")]
    found = {"time"} if _has(section, "time", "system") else set()
    for at, text in enumerate(letters):
        is_minute = (at > 0 and letters[at - 1][0] == "h") or (
            at + 1 < len(letters) and letters[at + 1][0] == "s"
        )
        if text[0] in "hs" or (text[0] == "m" and is_minute):
            found.add("time")
        elif text[0] == "d":
            found.update(["day"] if len(text) < 3 else [])
        else:
            found.add({"y": "year", "e": "year", "b": "year", "m": "month"}.get(text[0], "era"))
    return found


GENERAL = NumberFormat.parse(0)
