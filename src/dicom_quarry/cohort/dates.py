"""Dates in cells: days, months and ranges become one StudyDate key (range matching, PS3.4 C.2.2.2.5).

A date is accepted only in a form that has one meaning, or in the format that is given.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date, datetime, timedelta
from functools import lru_cache

#: A number that a spreadsheet wrote with decimals.
FLOAT = re.compile(r"([0-9]+)[.,]0+")
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


@lru_cache(maxsize=1 << 15)
def parse_day(text: str, date_format: str = "") -> tuple[str, str]:
    """Read one day; returns it as YYYYMMDD, or else the problem."""
    if date_format == EXCEL_SERIAL and (match := _SERIAL.fullmatch(text)):
        number = int(match[1])
        if number in _SERIALS:
            return format_day(_SERIAL_ZERO + timedelta(days=number)), ""
    elif (
        date_format
        and date_format != EXCEL_SERIAL
        and not (_ISO.fullmatch(text) and not date_format.startswith("%Y"))
    ):
        try:
            return format_day(datetime.strptime(text, date_format).date()), ""
        except ValueError:
            return (
                "",
                f"is not a date in the format {date_format}; correct it, or give another --date-format",
            )
    if match := _BEFORE_MIDNIGHT.fullmatch(text) or FLOAT.fullmatch(text):
        text = match[1]
    match = _DATE.fullmatch(text)
    if not match:
        return "", "is not a clear date; write YYYYMMDD or YYYY-MM-DD"
    try:
        day = date(int(match[1]), int(match[2] or match[5]), int(match[3] or match[6]))
    except ValueError:
        return "", "is not a day of the calendar; correct the date"
    return format_day(day), ""


def is_dicom_date(text: str) -> bool:
    """True if this is a day in the form of DICOM (DA, PS3.5 6.2)."""
    return len(text) == 8 and parse_day(text)[0] == text


def format_day(day: date) -> str:
    """Return a day in the form of DICOM."""
    return f"{day.year:04d}{day.month:02d}{day.day:02d}"


def parse_day_or_range(text: str, date_format: str = "") -> tuple[str, str]:
    """Read a day, or a range of days; returns it as one StudyDate key, or else the problem."""
    value, problem = parse_day(text, date_format)
    ends = split_range(text) if problem else None
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


def split_range(text: str) -> tuple[str, str] | None:
    """Return the two ends of a text that looks like a range; one of them may be empty."""
    if match := _COMPACT_RANGE.fullmatch(text):
        ends = (match[1] or "", match[2] or "")
        return ends if any(ends) else None
    parts = _WORDED_RANGE.split(text)
    return (parts[0], parts[1]) if len(parts) == 2 and any(parts) else None


def parse_month(text: str) -> tuple[str, str]:
    """Read a month, YYYYMM; returns the range of its days, or else the problem."""
    if match := FLOAT.fullmatch(text):
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


def parse_date_key(keyword: str, text: str, date_format: str = "") -> tuple[str, str]:
    """Read the value of a key that is a date; returns it as a key, or else the problem."""
    if keyword == "StudyMonth":
        day, not_a_day = parse_day(text, date_format)
        # A spreadsheet turns a month that was typed into the first day of that month.
        return parse_month(day[:6] if not not_a_day and day.endswith("01") else text)
    return parse_day_or_range(text, date_format) if keyword == "StudyDate" else parse_day(text, date_format)
