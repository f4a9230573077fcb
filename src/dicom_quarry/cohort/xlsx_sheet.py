"""The parts of an XLSX workbook: strings, number formats, and rows of text as the user sees them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import IO
from xml.parsers import expat

from dicom_quarry.cohort.cell_values import WorkbookDate

_CHUNK = 1 << 16
#: Excel's limit, and more than any table has: a wider row is damage.
_MAX_COLUMNS = 16_384
#: Characters in a cell, as in a CSV; Excel allows 32,767.
_MAX_CELL_CHARS = 131_072
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
class NumberFormat:
    """How a number is shown: as a date, or with so many digits."""

    is_date: bool = False
    min_digits: int = 0


NumberFormats = tuple[NumberFormat, ...]
_GENERAL_FORMAT = NumberFormat()


@dataclass(frozen=True, slots=True)
class CellDecoder:
    """What a cell's text needs: the strings that cells share, the looks of numbers, where days begin."""

    strings: list[str]
    number_formats: NumberFormats
    epoch_1904: bool

    def decode(self, kind: str, style: int, value: str) -> str:
        """The text of a cell from its type, style and stored value."""
        if kind == "s":
            return self.strings[int(value)]
        if kind == "b":
            return "TRUE" if value.strip() == "1" else "FALSE"
        if kind == "d" and _ISO_DAY.fullmatch(value):
            return WorkbookDate(value)
        if kind in ("", "n"):
            return _format_number(
                value.strip(),
                self.number_formats[style] if style < len(self.number_formats) else _GENERAL_FORMAT,
                self.epoch_1904,
            )
        return _ESCAPED.sub(_unescape, value) if "_x" in value else value


def _unescape(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    return match[0] if "\ud800" <= char <= "\udfff" else char


@lru_cache(maxsize=1 << 14)
def _format_number(value: str, number_format: NumberFormat, epoch_1904: bool) -> str:
    try:
        number = float(value)
        whole = int(number)
    except (ValueError, OverflowError):
        return value
    if number_format.is_date:
        days = number + (_DAYS_TO_1904 if epoch_1904 else 0)
        if _FIRST_SURE <= days < _LAST:
            return _format_day(days)
    if number != whole:
        return repr(number)
    digits = str(whole)
    # Beyond 15 digits they may be rounded: with decimals, the rules of values refuse it as a key.
    return f"{digits}.0" if len(digits) > 15 else digits.zfill(number_format.min_digits)


def _format_day(days: float) -> str:
    moment = datetime(1899, 12, 30) + timedelta(seconds=round(days * 86_400))
    return moment.strftime("%Y-%m-%d %H:%M:%S") if days % 1 else WorkbookDate(moment.strftime("%Y-%m-%d"))


def _parse_number_format(number: int, code: str) -> NumberFormat:
    if number in _DATE_FORMATS:
        return NumberFormat(is_date=True)
    bare = _LITERAL.sub("", code).casefold()
    if _ZEROS.fullmatch(bare):
        return NumberFormat(min_digits=len(bare.split(";")[0]))
    return NumberFormat(is_date=bare != "general" and ("y" in bare or "d" in bare))


def read_number_formats(stream: IO[bytes] | None) -> NumberFormats:
    """The looks of numbers, by the index that a cell gives."""
    codes: dict[int, str] = {}
    formats: list[NumberFormat] = []
    inside = False
    for name, attributes in read_elements(stream) if stream else ():
        if name == "numFmt":
            codes[int(attributes["numFmtId"])] = attributes.get("formatCode", "")
        if name in ("cellXfs", "cellStyleXfs", "cellStyles", "dxfs"):
            inside = name == "cellXfs"
        elif name == "xf" and inside:
            number = int(attributes.get("numFmtId", "0"))
            formats.append(_parse_number_format(number, codes.get(number, "")))
    return tuple(formats)


def read_strings(stream: IO[bytes] | None) -> list[str]:
    """The strings that cells share, by the index that a cell gives."""
    reader = _StringCollector()
    for _ in _parse_part(stream, reader) if stream else ():
        pass
    return reader.found


def read_elements(stream: IO[bytes]) -> list[tuple[str, _Attributes]]:
    """The elements of a small part, in the order in which they begin."""
    reader = _ElementCollector()
    for _ in _parse_part(stream, reader):
        pass
    return reader.found


def read_sheet_rows(stream: IO[bytes], decoder: CellDecoder) -> Iterator[tuple[int, list[str]]]:
    """The rows of a sheet with their numbers."""
    reader = _RowCollector(decoder)
    for _ in _parse_part(stream, reader):
        yield from reader.finished_rows
        reader.finished_rows.clear()


def _parse_part(stream: IO[bytes], reader: _XmlHandler) -> Iterator[None]:
    """Parse a part piece by piece; between two pieces what is done can be taken from the reader."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _reject_doctype
    with stream:
        while chunk := stream.read(_CHUNK):
            parser.Parse(chunk, False)
            yield
    parser.Parse(b"", True)
    yield


def _reject_doctype(*_: object) -> None:
    raise ValueError("it declares a document type, as no workbook does")


class _XmlHandler:
    """Takes the events of a parser; names come without their prefix."""

    def start(self, name: str, attributes: _Attributes) -> None:
        """An element begins."""

    def end(self, name: str) -> None:
        """An element ends."""

    def text(self, data: str) -> None:
        """Text inside an element."""


@lru_cache(maxsize=256)
def _local_name(name: str) -> str:
    return name.rpartition(":")[2]


class _ElementCollector(_XmlHandler):
    def __init__(self) -> None:
        self.found: list[tuple[str, _Attributes]] = []

    def start(self, name: str, attributes: _Attributes) -> None:
        self.found.append((_local_name(name), attributes))


class _StringCollector(_XmlHandler):
    def __init__(self) -> None:
        self.found: list[str] = []
        self._pieces: list[str] = []
        self._in_text = self._in_phonetic = False

    def start(self, name: str, attributes: _Attributes) -> None:  # noqa: ARG002 (a string's look)
        name = _local_name(name)
        self._in_phonetic = self._in_phonetic or name == "rPh"
        self._in_text = name == "t" and not self._in_phonetic

    def end(self, name: str) -> None:
        name = _local_name(name)
        self._in_text = False
        if name == "rPh":
            self._in_phonetic = False
        elif name == "si":
            text = "".join(self._pieces)
            self.found.append(_ESCAPED.sub(_unescape, text) if "_x" in text else text)
            self._pieces.clear()

    def text(self, data: str) -> None:
        if self._in_text:
            self._pieces.append(data)


class _RowCollector(_XmlHandler):
    """Rows with gaps filled; ``done`` are those that have ended."""

    def __init__(self, decoder: CellDecoder) -> None:
        self.finished_rows: list[tuple[int, list[str]]] = []
        self._decode: Callable[[str, int, str], str] = decoder.decode
        self._line = 0
        self._row: list[str] = []
        self._column = -1
        self._kind, self._style = "", 0
        self._value: list[str] = []
        self._size = 0
        self._in_text = self._has_value = self._has_formula = self._in_phonetic = False

    def start(self, name: str, attributes: _Attributes) -> None:
        name = _local_name(name)
        if name == "c":
            self._begin_cell(attributes)
        elif name == "v":
            self._in_text = self._has_value = True
        elif name == "t":
            self._in_text = not self._in_phonetic
            self._has_value = True
        elif name == "f":
            self._has_formula = True
        elif name == "rPh":
            self._in_phonetic = True
        elif name == "row":
            self._line = int(attributes.get("r", self._line + 1))
            self._row, self._column = [], -1

    def _begin_cell(self, attributes: _Attributes) -> None:
        reference = attributes.get("r", "")
        self._column = _column_index(reference.rstrip("0123456789")) if reference else self._column + 1
        if self._column < len(self._row):
            raise ValueError(f"its cells are out of order in row {self._line}")
        self._kind = attributes.get("t", "")
        self._style = int(attributes.get("s", "0"))
        self._value.clear()
        self._size = 0
        self._has_value = self._has_formula = False

    def end(self, name: str) -> None:
        name = _local_name(name)
        if name in ("v", "t"):
            self._in_text = False
        elif name == "c":
            self._end_cell()
        elif name == "rPh":
            self._in_phonetic = False
        elif name == "row":
            self.finished_rows.append((self._line, self._row))

    def _end_cell(self) -> None:
        value = "".join(self._value)
        if self._has_formula and not self._has_value:
            text = "#VALUE!"  # never computed: not the same as nothing
        elif not value:
            text = ""
        else:
            text = self._decode(self._kind, self._style, value)
        if text:
            self._row.extend([""] * (self._column - len(self._row)))
            self._row.append(text)

    def text(self, data: str) -> None:
        if self._in_text:
            self._value.append(data)
            self._size += len(data)
            if self._size > _MAX_CELL_CHARS:
                raise ValueError(f"it has a cell that is too long in row {self._line}")


@lru_cache(maxsize=1 << 14)
def _column_index(letters: str) -> int:
    """The position of a column: A is 0."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    if not 0 < number <= _MAX_COLUMNS:
        raise ValueError(f"it has a column '{letters}'")
    return number - 1
