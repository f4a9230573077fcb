"""Dates as people write them become DICOM dates (DA) and ranges of them (PS3.4 C.2.2.2.5).

Only forms that begin with the year are beyond doubt; any other is refused until its form is declared. A range
is one value, ``20180101-20180131``, either end of which may be left open: one query, not one a day.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date, datetime, timedelta
from functools import lru_cache

from dicom_quarry.errors import ConfigError

#: The declared form of numbers that count days, as Excel stores dates.
EXCEL_SERIAL = "excel"

_DATE = re.compile(r"([0-9]{4})(?:([0-9]{2})([0-9]{2})|([-/])([0-9]{1,2})\4([0-9]{1,2}))")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BEFORE_MIDNIGHT = re.compile(r"(.{8,10})[ T]00:00(?::00(?:\.0+)?)?")
_FLOAT = re.compile(r"([0-9]+)\.0+")
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
