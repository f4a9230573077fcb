"""The forms of a value in a path pattern, after dcm4che's language.

Each function here takes the argument of the pattern and returns a function from the value (None if the
attribute is missing or empty) to text for the path. Text from the data is made safe; text from the pattern,
such as the slashes of ``yyyy/MM/dd``, stays as the user wrote it.
"""

from __future__ import annotations

import calendar
import hashlib
import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Final
from urllib.parse import quote_plus

from dicom_quarry.errors import ConfigError
from dicom_quarry.store import safe_names
from dicom_quarry.store.safe_names import NameRule

TemplateFunction = Callable[[str | None], str]

_NULL: Final = "null"  # Java's text for a missing object, which existing trees have
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuv"
_SLICE: Final = re.compile(r"(-?\d{1,9})(?:,(-?\d{1,9}))?")
_DECIMAL_FORMAT: Final = re.compile(r"([^#0,.;%'‰¤E]*)([#,]*[0,]*)(?:(\.)(0*)(#*))?([^#0,.;%'‰¤E]*)")
_CHOICE: Final = re.compile(r"\s*([+-]?\d+(?:\.\d*)?)([#<≤])(.*)", re.DOTALL)
_DATE_LETTERS: Final = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+")
_PERIOD: Final = re.compile(r"P(?=\d)(?:(\d{1,4})Y)?(?:(\d{1,5})M)?(?:(\d{1,5})W)?(?:(\d{1,6})D)?")
_DURATION: Final = re.compile(r"P(?:(\d{1,5})D)?(?:T(?=\d)(?:(\d{1,6})H)?(?:(\d{1,7})M)?(?:(\d{1,9})S)?)?")
_DATE: Final = re.compile(r"(\d{4})([.-]?)(\d\d)\2(\d\d)")
_TIME: Final = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6}))?)?)?")
_DATE_TIME: Final = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?)?)?)?(?:[+-]\d{4})?"
)


def distinct_value(argument: str, names: NameRule) -> TemplateFunction:
    """Write the value as a name that no other value has."""
    _check_no_argument("a plain attribute", argument)
    return lambda value: safe_names.distinct(value or "", names)


def upper(argument: str) -> TemplateFunction:
    """Write the value in capitals."""
    _check_no_argument("upper", argument)
    return lambda value: safe_names.plain((value or "").upper())


def url_encoded(argument: str) -> TemplateFunction:
    """Write the value as it is encoded in an HTML form."""
    _check_no_argument("urlencoded", argument)

    def apply(value: str | None) -> str:
        return (
            _NULL
            if value is None
            else safe_names.plain(quote_plus(value, safe="*", errors="replace").replace("~", "%7E"))
        )

    return apply


def slice_(argument: str) -> TemplateFunction:
    """Write the characters from BEGIN to before END; negative numbers count from the end."""
    found = _SLICE.fullmatch(argument.replace(" ", ""))
    if not found:
        raise ConfigError(f"'slice,{argument}': write slice,BEGIN or slice,BEGIN,END")
    begin, end = int(found[1]), found[2]

    def apply(value: str | None) -> str:
        text = value or ""
        first = max(0, len(text) + begin) if begin < 0 else begin
        last = len(text) if end is None else int(end) if int(end) >= 0 else len(text) + int(end)
        return safe_names.plain(text[first:last] if last > first else "")

    return apply


def offset(argument: str) -> TemplateFunction:
    """Write the value, an integer, plus the argument."""
    if not re.fullmatch(r"\s*[+-]?\d{1,18}\s*", argument):
        raise ConfigError(f"'offset,{argument}': an offset is an integer")
    shift = int(argument)

    def apply(value: str | None) -> str:
        return str((int(value) if value and re.fullmatch(r"[+-]?\d{1,18}", value, re.ASCII) else 0) + shift)

    return apply


def number(argument: str) -> TemplateFunction:
    """Write the value as Java's DecimalFormat does: ``000``, ``#,##0.00`` and the like."""
    found = _DECIMAL_FORMAT.fullmatch(argument or "#,##0.###")
    if not found or not (found[2].strip(",") or found[4] or found[5]):
        raise ConfigError(f"'number,{argument}': a number format is made of 0, #, ',' and '.', such as 000")
    before, whole_part, point, zeros, hashes, after = (part or "" for part in found.groups())
    group = len(whole_part) - whole_part.rfind(",") - 1 if "," in whole_part else 0
    least, places = whole_part.count("0"), len(zeros + hashes)

    def apply(value: str | None) -> str:
        amount = _parse_decimal(value).quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)
        digits, _, fraction = f"{abs(amount):f}".partition(".")
        digits = digits.lstrip("0").rjust(least, "0")
        fraction = fraction[: len(zeros)] + fraction[len(zeros) :].rstrip("0")
        if group:
            digits = re.sub(rf"(?<=\d)(?=(?:\d{{{group}}})+$)", ",", digits)
        sign = "-" if amount.is_signed() else ""
        dot = point if fraction or not places else ""
        return f"{sign}{before}{digits or ('' if fraction else '0')}{dot}{fraction}{after}"

    return apply


def choice(argument: str) -> TemplateFunction:
    """Write the text of the highest limit that the value, a number, reaches: ``0#none|1#one|1<many``."""
    choices: list[tuple[float, str]] = []
    for text in argument.split("|"):
        found = _CHOICE.fullmatch(text)
        if not found:
            raise ConfigError(f"'choice,{argument}': write choices such as 0#none|1#one|1<many")
        limit = float(found[1])
        choices.append(
            (math.nextafter(limit, math.inf) if found[2] == "<" else limit, found[3].replace("'", ""))
        )
    if sorted(limit for limit, _ in choices) != [limit for limit, _ in choices]:
        raise ConfigError(f"'choice,{argument}': the limits must rise")

    def apply(value: str | None) -> str:
        amount = float(_parse_decimal(value))
        reached = [text for limit, text in choices if limit <= amount]
        return reached[-1] if reached else choices[0][1]

    return apply


def java_hash(argument: str) -> TemplateFunction:
    """Write Java's ``String.hashCode`` in eight hexadecimal digits."""
    _check_no_argument("hash", argument)

    def apply(value: str | None) -> str:
        if value is None:
            return _NULL
        units = value.encode("utf-16-be", "surrogatepass")
        code = 0
        for high, low in zip(units[::2], units[1::2], strict=True):
            code = (31 * code + (high << 8 | low)) & 0xFFFFFFFF
        return f"{code:08X}"

    return apply


def md5(argument: str) -> TemplateFunction:
    """Write dcm4che's 26 characters of an MD5, which lose the first byte of each half as in dcm4che."""
    _check_no_argument("md5", argument)

    def apply(value: str | None) -> str:
        if value is None:
            return _NULL
        digest = hashlib.md5(value.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
        first, second = (int.from_bytes(half[1:] + b"\0", "big") for half in (digest[:8], digest[8:]))
        low = [first >> 5 * place & 31 for place in range(12)]
        low.append(first >> 60 | (second & 1) << 4)
        return "".join(
            _DIGITS[digit] for digit in [*low, *(second >> 1 >> 5 * place & 31 for place in range(13))]
        )

    return apply


def date_time(kind: str, argument: str, vr: str) -> TemplateFunction:
    """Write a date or time in Java's letters; ``date-P1M`` or ``time+PT30M`` shifts it."""
    at = datetime_formatter(kind, argument)

    def apply(value: str | None) -> str:
        found = _parse_datetime(value or "", vr)
        return at(found) if found else _NULL

    return apply


def datetime_formatter(kind: str, argument: str) -> Callable[[datetime], str]:
    """Make the function with which :func:`date_time` writes a datetime."""
    pieces = _parse_date_format(argument)
    shift = _parse_shift(kind)

    def write(when: datetime) -> str:
        try:
            when = shift(when)
        except (OverflowError, ValueError):
            return _NULL
        return "".join(piece if isinstance(piece, str) else piece(when) for piece in pieces)

    return write


def _check_no_argument(name: str, argument: str) -> None:
    if argument:
        raise ConfigError(f"{name} takes no argument, found '{argument}'")


def _parse_decimal(value: str | None) -> Decimal:
    """Read the value as a number; 0 if it is not a number, or too large for a name."""
    try:
        found = Decimal(value or "0")
    except InvalidOperation:
        return Decimal(0)
    return found if found.is_finite() and abs(found.adjusted()) < 20 else Decimal(0)


def _parse_shift(kind: str) -> Callable[[datetime], datetime]:
    name, sign, text = re.fullmatch(r"(date|time)(?:([+-])(.*))?", kind, re.DOTALL).groups()  # type: ignore[union-attr]
    if not sign:
        return lambda when: when
    factor = -1 if sign == "-" else 1
    found = (_PERIOD if name == "date" else _DURATION).fullmatch(text)
    if not found or not any(found.groups()):
        raise ConfigError(f"'{kind}': a shift is a period such as date-P1M, or a duration such as time+PT30M")
    one, two, three, four = (factor * int(part or 0) for part in found.groups())
    if name == "time":
        return lambda when: when + timedelta(days=one, hours=two, minutes=three, seconds=four)
    return lambda when: _add_months(when, 12 * one + two) + timedelta(weeks=three, days=four)


def _add_months(when: datetime, months: int) -> datetime:
    year, month = divmod(when.year * 12 + when.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1] if 0 < year < 10000 else 28
    return when.replace(year=year, month=month + 1, day=min(when.day, last))


def _parse_date_format(argument: str) -> list[str | Callable[[datetime], str]]:
    pieces: list[str | Callable[[datetime], str]] = []
    at = 0
    while at < len(argument):
        found = _DATE_LETTERS.match(argument, at)
        if not found:
            raise ConfigError(f"'{argument}': a quote is not closed")
        at = found.end()
        if found[1] is not None:
            pieces.append(found[1].replace("''", "'") or "'")
        else:
            pieces.append(_make_date_field(found[0], argument) if found[2] else found[0])
    if not pieces:
        raise ConfigError("a date or time needs a format, such as yyyyMMdd")
    return pieces


def _make_date_field(letters: str, argument: str) -> Callable[[datetime], str]:
    width = len(letters)
    if letters == "yy":
        return lambda when: f"{when.year % 100:02d}"
    if letters[0] not in _FIELDS or (letters[0] == "M" and width > 2):
        raise ConfigError(
            f"'{argument}': '{letters}' is not known; the letters are y M d D H m s S, all in figures"
        )
    field = _FIELDS[letters[0]]
    return lambda when: f"{field(when):0{width}d}"


_FIELDS: Final[dict[str, Callable[[datetime], int]]] = {
    "y": lambda when: when.year,
    "M": lambda when: when.month,
    "d": lambda when: when.day,
    "D": lambda when: when.timetuple().tm_yday,
    "H": lambda when: when.hour,
    "m": lambda when: when.minute,
    "s": lambda when: when.second,
    "S": lambda when: when.microsecond // 1000,
}


def _parse_datetime(value: str, vr: str) -> datetime | None:
    """Read a DA, TM or DT value, in the forms of PS3.5 6.2 and of ACR-NEMA."""
    if vr == "TM":
        found = _TIME.fullmatch(value)
        parts = ["1970", "1", "1", *found.groups()] if found else []
    elif found := _DATE.fullmatch(value):
        parts = [found[1], found[3], found[4], "0", "0", "0", "0"]
    else:
        found = _DATE_TIME.fullmatch(value)
        parts = [*found.groups()] if found else []
    if not parts:
        return None
    year, month, day, hour, minute, second, fraction = parts
    try:
        return datetime(
            int(year or 0),
            int(month or 1),
            int(day or 1),
            int(hour or 0),
            int(minute or 0),
            min(int(second or 0), 59),  # 60 is a leap second
            int((fraction or "").ljust(6, "0")),
        )
    except ValueError:
        return None
