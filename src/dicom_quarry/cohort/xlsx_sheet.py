"""The XML parts of an XLSX workbook (ISO/IEC 29500-1): strings, number formats, and rows as text.

Cells become the text that a user sees in Excel: dates as YYYY-MM-DD, numbers with their leading zeros. Parts
are streamed through expat, so that memory does not grow with the rows.
"""

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
#: Excel's limit; a wider row means that the file is damaged.
_MAX_COLUMNS = 16_384
#: Characters in a cell, as in a CSV; Excel allows 32,767.
_MAX_CELL_CHARS = 131_072
#: Built-in number formats of dates (ISO/IEC 29500-1, 18.8.30), with those of East Asia.
_DATE_FORMATS = frozenset({14, 15, 16, 17, 22, *range(27, 32), 36, *range(50, 55), 57, 58})
#: Parts of a format that are literal text, a colour or a locale.
_LITERAL = re.compile(r'"[^"]*"|\[[^\]]*\]|\\.|_.|\*.')
_ZEROS = re.compile(r"0{2,64}(?:;.*)?")
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_ISO_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
#: Excel treats 1900 as a leap year, so its dates are certain only from March 1900.
_FIRST_SURE, _DAYS_TO_1904, _LAST = 61, 1462, 2_958_465

_Attributes = dict[str, str]


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """The format of a number: a date, or a minimum of digits."""

    is_date: bool = False
    min_digits: int = 0


NumberFormats = tuple[NumberFormat, ...]
_GENERAL_FORMAT = NumberFormat()


@dataclass(frozen=True, slots=True)
class CellDecoder:
    """A decoder for cells: shared strings, number formats, and the first day (in 1900 or 1904)."""

    strings: list[str]
    number_formats: NumberFormats
    epoch_1904: bool

    def decode(self, kind: str, style: int, value: str) -> str:
        """Return the text of a cell from its type, style and stored value."""
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
    # A number of more than 15 digits may be rounded; with decimals, it is refused as a key.
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
    """Read the number formats, by the style index of a cell."""
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
    """Read the shared strings, by their index."""
    reader = _StringCollector()
    for _ in _parse_part(stream, reader) if stream else ():
        pass
    return reader.found


def read_elements(stream: IO[bytes]) -> list[tuple[str, _Attributes]]:
    """Read the elements of a small part, in the order of their start tags."""
    reader = _ElementCollector()
    for _ in _parse_part(stream, reader):
        pass
    return reader.found


def read_sheet_rows(stream: IO[bytes], decoder: CellDecoder) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a sheet, each with its number."""
    reader = _RowCollector(decoder)
    for _ in _parse_part(stream, reader):
        yield from reader.finished_rows
        reader.finished_rows.clear()


def _parse_part(stream: IO[bytes], reader: _XmlHandler) -> Iterator[None]:
    """Parse a part in pieces; after each piece the caller can take finished items from the reader."""
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
    raise ValueError("it contains a document type declaration, which is not allowed in a workbook")


class _XmlHandler:
    """The handlers of an XML parser; the default does nothing."""

    def start(self, name: str, attributes: _Attributes) -> None:
        """Handle a start tag."""

    def end(self, name: str) -> None:
        """Handle an end tag."""

    def text(self, data: str) -> None:
        """Handle text inside an element."""


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

    def start(self, name: str, attributes: _Attributes) -> None:  # noqa: ARG002 (the interface)
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
    """A collector of rows, with gaps filled; ``finished_rows`` are those that have ended."""

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
            raise ValueError(f"the cells of row {self._line} are out of order")
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
            text = "#VALUE!"  # a formula without a result is not an empty cell
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
                raise ValueError(f"a cell in row {self._line} is too long")


@lru_cache(maxsize=1 << 14)
def _column_index(letters: str) -> int:
    """Return the position of a column; A is 0."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    if not 0 < number <= _MAX_COLUMNS:
        raise ValueError(f"there is no column '{letters}' in Excel")
    return number - 1
