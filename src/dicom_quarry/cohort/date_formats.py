"""Formats of dates: those that the user declares, and the one that fits a column as a whole.

A single ``02/03/2018`` has two meanings. In a column that has ``12/24/2018``, too, it has one: no other
format fits every row. Such a format is taken if it has a year of four digits and no time; otherwise the
formats that fit are suggested.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime

from dicom_quarry.cohort.dates import EXCEL_SERIAL, parse_day
from dicom_quarry.cohort.headers import quote_option
from dicom_quarry.errors import ConfigError

#: Spellings of the parts of a date, as spreadsheets and databases write them in English, German, French and
#: Spanish; the longest come first.
_SPELLINGS = {
    "yyyy": "%Y",
    "jjjj": "%Y",
    "aaaa": "%Y",
    "month": "%B",
    "mmmm": "%B",
    "mmm": "%b",
    "mon": "%b",
    "hh24": "%H",
    "hh12": "%I",
    "am/pm": "%p",
    "yy": "%y",
    "jj": "%y",
    "aa": "%y",
    "mm": "%m",
    "mi": "%M",
    "dd": "%d",
    "tt": "%d",
    "hh": "%H",
    "ss": "%S",
    "m": "%m",
    "d": "%d",
    "t": "%d",
    "h": "%H",
    "s": "%S",
}
_SPELLED_PART = re.compile("|".join([*map(re.escape, _SPELLINGS), "."]), re.IGNORECASE | re.DOTALL)
_HOURS = ("%H", "%I")

_DAY = "[0-9]{1,2}"
_NAME = r"[^\W\d_]{3,9}"
#: Shapes of dates, and the formats of each: ``{0}`` and ``{1}`` are the separators of the text.
_SHAPES = tuple(
    (re.compile(pattern), formats)
    for pattern, formats in (
        (rf"{_DAY}([-./ ]){_DAY}\1[0-9]{{4}}", ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y")),
        (rf"{_DAY}([-./ ]){_DAY}\1[0-9]{{2}}", ("%d{0}%m{0}%y", "%m{0}%d{0}%y", "%y{0}%m{0}%d")),
        (rf"[0-9]{{4}}([-./ ]){_DAY}\1{_DAY}", ("%Y{0}%m{0}%d",)),
        (rf"{_DAY}([-./ ]){_NAME}\1[0-9]{{4}}", ("%d{0}%b{0}%Y", "%d{0}%B{0}%Y")),
        (
            rf"{_DAY}([-./ ]){_NAME}\1[0-9]{{2}}",
            ("%d{0}%b{0}%y", "%d{0}%B{0}%y", "%y{0}%b{0}%d", "%y{0}%B{0}%d"),
        ),
        (rf"[0-9]{{4}}([-./ ]){_NAME}\1{_DAY}", ("%Y{0}%b{0}%d", "%Y{0}%B{0}%d")),
        (rf"{_NAME}([-./ ]){_DAY}(, ?|[-./ ])[0-9]{{4}}", ("%b{0}%d{1}%Y", "%B{0}%d{1}%Y")),
        (rf"{_NAME}([-./ ]){_DAY}(, ?|[-./ ])[0-9]{{2}}", ("%b{0}%d{1}%y", "%B{0}%d{1}%y")),
        (rf"{_DAY}{_NAME}[0-9]{{4}}", ("%d%b%Y", "%d%B%Y")),
        (rf"[0-9]{{2}}{_NAME}[0-9]{{2}}", ("%d%b%y", "%y%b%d")),
        ("[0-9]{8}", ("%d%m%Y", "%m%d%Y")),
        ("[0-9]{6}", ("%y%m%d", "%d%m%y", "%m%d%y")),
        ("[0-9]{5}", (EXCEL_SERIAL,)),
    )
)
_WITH_TIME = re.compile(
    rf"(.*[0-9])([ T])({_DAY}):[0-9]{{2}}(:[0-9]{{2}})?(\.[0-9]{{1,6}})?( ?)([AaPp][Mm])?", re.DOTALL
)
#: Years of images, and of people who were examined: other numbers are not meant as years.
_YEARS = range(1850, 2100)


def check_date_format(date_format: str) -> str:
    """Return a format that determines a day: ``excel``, or strptime's with year, month and day.

    ``mm/dd/yyyy`` and similar spellings are translated. Raises ConfigError for any other text.
    """
    form = date_format.strip()
    if form.casefold() == EXCEL_SERIAL:
        return EXCEL_SERIAL
    if "%" not in form:
        form = _translate_spelling(form)
    probe = datetime(2018, 7, 23, 13, 45)
    try:
        if datetime.strptime(probe.strftime(form), form).date() == probe.date():
            return form
    except (ValueError, re.error):  # strptime makes a pattern of the format, in which a part may be twice
        pass
    raise ConfigError(
        f"--date-format '{date_format}' does not contain year, month and day; write them as in %d/%m/%Y or "
        "dd/mm/yyyy, or write excel"
    )


def _translate_spelling(text: str) -> str:
    """Translate ``mm/dd/yyyy`` to strptime's format; text that is no part of a date stays."""
    parts: list[str] = []
    french = "aa" in text.casefold()
    for match in _SPELLED_PART.finditer(text):
        part = match[0].casefold()
        code = _SPELLINGS.get(part, match[0])
        if part == "jj" and french:
            code = "%d"
        elif part == "t" and text[match.end() : match.end() + 1].casefold() == "h":
            code = match[0]  # the letter between a date and a time
        elif part in ("mm", "m") and any(hour in parts for hour in _HOURS) and "%M" not in parts:
            code = "%M"
        parts.append(code)
    form = "".join(parts)
    return form.replace("%H", "%I") if "%p" in parts else form


def quote_format(date_format: str) -> str:
    """Return an option with a format, as a user can type it."""
    plain = re.fullmatch(r"[\w%/.:-]+", date_format)
    return f"--date-format {date_format if plain else quote_option(date_format)}"


def find_formats(text: str) -> dict[str, date]:
    """Return every format that a date may have, with the day that it means, if its form is not clear."""
    if match := _WITH_TIME.fullmatch(text):
        day, separator, _, seconds, fraction, space, half = match.groups()
        clock = f"{'%I' if half else '%H'}:%M{':%S' if seconds else ''}{'.%f' if fraction else ''}"
        time = f"{separator}{clock}{space}{'%p' if half else ''}"
        return {f"{form}{time}": meant for form, meant in _find_day_formats(day).items()}
    return _find_day_formats(text)


def _find_day_formats(text: str) -> dict[str, date]:
    found: dict[str, date] = {}
    for pattern, formats in _SHAPES:
        if match := pattern.fullmatch(text):
            for one in formats:
                form = one.format(*match.groups())
                value, problem = parse_day(text, form)
                if not problem and int(value[:4]) in _YEARS:
                    found[form] = date(int(value[:4]), int(value[4:6]), int(value[6:]))
    return found


@dataclass(slots=True)
class DateFormats:
    """The formats that fit every date of a column whose form is not clear, found date by date.

    ``fitting`` is empty if no format fits all; ``contradiction`` then names two lines. ``decisive_line`` is
    the first line after which one format was left. ``has_clear_dates``: other dates of the column are clear.
    """

    fitting: tuple[str, ...] = ()
    contradiction: str = ""
    decisive_line: int = 0
    has_clear_dates: bool = False
    _excluded: dict[str, int] = field(default_factory=dict)
    _days: dict[str, dict[str, date]] = field(default_factory=dict)
    _first_line: int = 0

    @property
    def settled(self) -> str:
        """The format that the column has; empty if the user must decide.

        Formats that mean the same days, as those of ``05/05/2018``, are one. A year of two digits, and a
        time, are left to the user; so is a column with clear dates as well: a spreadsheet makes such a column
        of dates in another order than its own, and exchanges day and month of some.
        """
        if self.has_clear_dates or not self.fitting:
            return ""
        first, *others = self.fitting
        same = all(all(days[one] == days[first] for days in self._days.values()) for one in others)
        return first if same and "%Y" in first and not re.search("%[HI]", first) else ""

    def add(self, line: int, text: str) -> None:
        """Add a date of the column whose form is not clear."""
        if self.contradiction or text in self._days or not (formats := find_formats(text)):
            return
        if not self._days:
            self.fitting, self._first_line = tuple(formats), line
        fitting = tuple(one for one in self.fitting if one in formats)
        if not fitting:
            other = max(self._excluded.get(one, self.decisive_line or self._first_line) for one in formats)
            self.contradiction = (
                f"line {other} can only be {' or '.join(self.fitting)}, line {line} only "
                f"{' or '.join(formats)}"
            )
        for one in {*self.fitting, *formats} - set(fitting):
            self._excluded.setdefault(one, line if one in self.fitting else self._first_line)
        if len(fitting) == 1:
            self.decisive_line = self.decisive_line or line
        self.fitting = fitting
        self._days[text] = formats

    def describe_problem(self, text: str) -> str:
        """Describe why a date cannot be read, with the formats that fit; empty if its form is unknown."""
        if not (formats := find_formats(text)):
            return ""
        if self.contradiction:
            return f"is not a clear date, and {self.contradiction}; write all dates as YYYYMMDD"
        suggested: dict[date, str] = {}
        for form in self.fitting:
            suggested.setdefault(formats[form], f"{quote_format(form)} to read it as {formats[form]}")
        return f"is not a clear date; write YYYYMMDD or YYYY-MM-DD, or use {', or '.join(suggested.values())}"

    def describe_choice(self, header: str) -> str:
        """Describe the format that was taken, for the first lines of a command."""
        reason = f"line {self.decisive_line} fits" if self.decisive_line else "they fit"
        return f"Dates in '{header}' are read as {self.settled}, because {reason} no other format"
