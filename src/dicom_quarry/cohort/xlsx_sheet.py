"""The parts of an XLSX workbook: strings, number formats, and rows of text as the user sees them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import IO
from xml.parsers import expat

from dicom_quarry.cohort.dates import Day

_CHUNK = 1 << 16
#: Excel's limit, and more than any table has: a wider row is damage.
_WIDEST = 16_384
#: Characters in a cell, as in a CSV; Excel allows 32,767.
_LONGEST = 131_072
#: Formats of dates that have numbers only (ISO/IEC 29500-1, 18.8.30); those of East Asia are among them.
_DATE_FORMATS = frozenset({14, 15, 16, 17, 22, *range(27, 32), 36, *range(50, 55), 57, 58})
#: What is said literally in a format, or decides on a colour or locale.
_LITERAL = re.compile(r'"[^"]*"|\[[^\]]*\]|\\.|_.|\*.')
_ZEROS = re.compile(r"0{2,64}(?:;.*)?")
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_ISO_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
#: Excel takes 1900 for a leap year: before March 1900 its dates are in doubt.
_FIRST_SURE, _DAYS_TO_1904, _LAST = 61, 1462, 2_958_465

_Attributes = dict[str, str]


@dataclass(frozen=True, slots=True)
class Look:
    """How a number is shown: as a date, or with so many digits."""

    is_date: bool = False
    digits: int = 0


Styles = tuple[Look, ...]
_PLAIN = Look()


@dataclass(frozen=True, slots=True)
class Cells:
    """What a cell's text needs: the strings that cells share, the looks of numbers, where days begin."""

    strings: list[str]
    looks: Styles
    epoch_1904: bool

    def text(self, kind: str, look: int, value: str) -> str:
        """The text of a cell from its type, style and stored value."""
        if kind == "s":
            return self.strings[int(value)]
        if kind == "b":
            return "TRUE" if value.strip() == "1" else "FALSE"
        if kind == "d" and _ISO_DAY.fullmatch(value):
            return Day(value)
        if kind in ("", "n"):
            return _number(
                value.strip(), self.looks[look] if look < len(self.looks) else _PLAIN, self.epoch_1904
            )
        return _ESCAPED.sub(_unescaped, value) if "_x" in value else value


def _unescaped(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    return match[0] if "\ud800" <= char <= "\udfff" else char


@lru_cache(maxsize=1 << 14)
def _number(value: str, look: Look, epoch_1904: bool) -> str:
    try:
        number = float(value)
        whole = int(number)
    except (ValueError, OverflowError):
        return value
    if look.is_date:
        days = number + (_DAYS_TO_1904 if epoch_1904 else 0)
        if _FIRST_SURE <= days < _LAST:
            return _day(days)
    if number != whole:
        return repr(number)
    digits = str(whole)
    # Beyond 15 digits they may be rounded: with decimals, the rules of values refuse it as a key.
    return f"{digits}.0" if len(digits) > 15 else digits.zfill(look.digits)


def _day(days: float) -> str:
    moment = datetime(1899, 12, 30) + timedelta(seconds=round(days * 86_400))
    return moment.strftime("%Y-%m-%d %H:%M:%S") if days % 1 else Day(moment.strftime("%Y-%m-%d"))


def _look_of(number: int, code: str) -> Look:
    if number in _DATE_FORMATS:
        return Look(is_date=True)
    bare = _LITERAL.sub("", code).casefold()
    if _ZEROS.fullmatch(bare):
        return Look(digits=len(bare.split(";")[0]))
    return Look(is_date=bare != "general" and ("y" in bare or "d" in bare))


def styles(stream: IO[bytes] | None) -> Styles:
    """The looks of numbers, by the index that a cell gives."""
    codes: dict[int, str] = {}
    looks: list[Look] = []
    inside = False
    for name, attributes in parsed(stream) if stream else ():
        if name == "numFmt":
            codes[int(attributes["numFmtId"])] = attributes.get("formatCode", "")
        if name in ("cellXfs", "cellStyleXfs", "cellStyles", "dxfs"):
            inside = name == "cellXfs"
        elif name == "xf" and inside:
            number = int(attributes.get("numFmtId", "0"))
            looks.append(_look_of(number, codes.get(number, "")))
    return tuple(looks)


def strings(stream: IO[bytes] | None) -> list[str]:
    """The strings that cells share, by the index that a cell gives."""
    reader = _Strings()
    for _ in _fed(stream, reader) if stream else ():
        pass
    return reader.found


def parsed(stream: IO[bytes]) -> list[tuple[str, _Attributes]]:
    """The elements of a small part, in the order in which they begin."""
    reader = _Elements()
    for _ in _fed(stream, reader):
        pass
    return reader.found


def sheet_rows(stream: IO[bytes], cells: Cells) -> Iterator[tuple[int, list[str]]]:
    """The rows of a sheet with their numbers."""
    reader = _Rows(cells)
    for _ in _fed(stream, reader):
        yield from reader.done
        reader.done.clear()


def _fed(stream: IO[bytes], reader: _Reader) -> Iterator[None]:
    """Parse a part piece by piece; between two pieces what is done can be taken from the reader."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _no_doctype
    with stream:
        while chunk := stream.read(_CHUNK):
            parser.Parse(chunk, False)
            yield
    parser.Parse(b"", True)
    yield


def _no_doctype(*_: object) -> None:
    raise ValueError("it declares a document type, as no workbook does")


class _Reader:
    """Takes the events of a parser; names come without their prefix."""

    def start(self, name: str, attributes: _Attributes) -> None:
        """An element begins."""

    def end(self, name: str) -> None:
        """An element ends."""

    def text(self, data: str) -> None:
        """Text inside an element."""


@lru_cache(maxsize=256)
def _local(name: str) -> str:
    return name.rpartition(":")[2]


class _Elements(_Reader):
    def __init__(self) -> None:
        self.found: list[tuple[str, _Attributes]] = []

    def start(self, name: str, attributes: _Attributes) -> None:
        self.found.append((_local(name), attributes))


class _Strings(_Reader):
    def __init__(self) -> None:
        self.found: list[str] = []
        self._pieces: list[str] = []
        self._taken = self._phonetic = False

    def start(self, name: str, attributes: _Attributes) -> None:  # noqa: ARG002 (a string's look)
        name = _local(name)
        self._phonetic = self._phonetic or name == "rPh"
        self._taken = name == "t" and not self._phonetic

    def end(self, name: str) -> None:
        name = _local(name)
        self._taken = False
        if name == "rPh":
            self._phonetic = False
        elif name == "si":
            text = "".join(self._pieces)
            self.found.append(_ESCAPED.sub(_unescaped, text) if "_x" in text else text)
            self._pieces.clear()

    def text(self, data: str) -> None:
        if self._taken:
            self._pieces.append(data)


class _Rows(_Reader):
    """Rows with gaps filled; ``done`` are those that have ended."""

    def __init__(self, cells: Cells) -> None:
        self.done: list[tuple[int, list[str]]] = []
        self._text_of: Callable[[str, int, str], str] = cells.text
        self._line = 0
        self._row: list[str] = []
        self._column = -1
        self._kind, self._style = "", 0
        self._value: list[str] = []
        self._size = 0
        self._taken = self._stored = self._formula = self._phonetic = False

    def start(self, name: str, attributes: _Attributes) -> None:
        name = _local(name)
        if name == "c":
            self._begin(attributes)
        elif name == "v":
            self._taken = self._stored = True
        elif name == "t":
            self._taken = not self._phonetic
            self._stored = True
        elif name == "f":
            self._formula = True
        elif name == "rPh":
            self._phonetic = True
        elif name == "row":
            self._line = int(attributes.get("r", self._line + 1))
            self._row, self._column = [], -1

    def _begin(self, attributes: _Attributes) -> None:
        reference = attributes.get("r", "")
        self._column = _column(reference.rstrip("0123456789")) if reference else self._column + 1
        if self._column < len(self._row):
            raise ValueError(f"its cells are out of order in row {self._line}")
        self._kind = attributes.get("t", "")
        self._style = int(attributes.get("s", "0"))
        self._value.clear()
        self._size = 0
        self._stored = self._formula = False

    def end(self, name: str) -> None:
        name = _local(name)
        if name in ("v", "t"):
            self._taken = False
        elif name == "c":
            self._end()
        elif name == "rPh":
            self._phonetic = False
        elif name == "row":
            self.done.append((self._line, self._row))

    def _end(self) -> None:
        value = "".join(self._value)
        if self._formula and not self._stored:
            text = "#VALUE!"  # never computed: not the same as nothing
        elif not value:
            text = ""
        else:
            text = self._text_of(self._kind, self._style, value)
        if text:
            self._row.extend([""] * (self._column - len(self._row)))
            self._row.append(text)

    def text(self, data: str) -> None:
        if self._taken:
            self._value.append(data)
            self._size += len(data)
            if self._size > _LONGEST:
                raise ValueError(f"it has a cell that is too long in row {self._line}")


@lru_cache(maxsize=1 << 14)
def _column(letters: str) -> int:
    """The position of a column: A is 0."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    if not 0 < number <= _WIDEST:
        raise ValueError(f"it has a column '{letters}'")
    return number - 1
