"""The XML parts of an XLSX workbook (ISO/IEC 29500-1): strings, number formats, and rows as text.

Cells become the text that a user sees in Excel: dates as YYYY-MM-DD, numbers with their leading zeros. Parts
are streamed through expat, so that memory does not grow with the rows.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any
from xml.parsers import expat

from dicom_quarry.cohort.cell_values import UnreadableCell, WorkbookDate
from dicom_quarry.cohort.number_format import GENERAL, NumberFormat
from dicom_quarry.cohort.sheet_layout import MergedCells, SheetLayout
from dicom_quarry.system.numbers import parse_number

_CHUNK = 1 << 16
#: Excel's limit; a wider row means that the file is damaged.
_MAX_COLUMNS = 16_384
#: Excel's limit, too.
_MAX_ROWS = 1_048_576
#: Characters in a cell; Excel allows 32,767.
_MAX_CELL_CHARS = 1 << 17
#: Characters in a row, as in a line of a CSV.
_MAX_ROW_CHARS = 1 << 25
#: Merged ranges of cells, and ranges of hidden columns.
_MAX_RANGES = 20_000

#: Maximum number of a row, a column, a style or a shared string.
_MAX_INDEX = 1 << 31
#: Signs that a sheet has something hidden or merged.
_LAYOUT_MARKS = re.compile(rb"hidden|mergeCell|[ \t\r\n](?:ht|width)\s*=\s*.0")
_LONGEST_MARK = 32
#: Hidden rows that a message names.
_SHOWN_ROWS = 5
_NOT_COMPUTED = "is a formula that has not been computed; open the workbook in Excel, and save it"
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_ISO_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_Attributes = dict[str, str]


NumberFormats = tuple[NumberFormat, ...]


@dataclass(frozen=True, slots=True)
class CellDecoder:
    """A decoder for cells: shared strings, number formats, and the first day (in 1900 or 1904).

    ``is_computed``: the workbook has the results of its formulas.
    """

    strings: list[str]
    number_formats: NumberFormats
    epoch_1904: bool
    is_computed: bool = True

    def decode(self, kind: str, style: int, value: str) -> str:
        """Return the text of a cell from its type, style and stored value."""
        number_format = self.number_formats[style] if style < len(self.number_formats) else GENERAL
        if kind == "s":
            return number_format.format_text(self.strings[_index(value)])
        if kind == "b":
            return "TRUE" if value.strip() == "1" else "FALSE"
        if kind == "d" and _ISO_DAY.fullmatch(value):
            return WorkbookDate(value)
        if kind in ("", "n"):
            return number_format.format_number(value, self.epoch_1904)
        text = _ESCAPED.sub(_unescape, value) if "_x" in value else value
        return text if kind == "e" else number_format.format_text(text)


def _unescape(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    return match[0] if "\ud800" <= char <= "\udfff" else char


def read_number_formats(stream: IO[bytes] | None) -> NumberFormats:
    """Read the number formats, by the style index of a cell."""
    codes: dict[int, str] = {}
    formats: list[NumberFormat] = []
    inside = False
    for name, attributes in read_elements(stream) if stream else ():
        if name == "numFmt":
            codes[_index(attributes["numFmtId"])] = attributes.get("formatCode", "")
        if name in ("cellXfs", "cellStyleXfs", "cellStyles", "dxfs"):
            inside = name == "cellXfs"
        elif name == "xf" and inside:
            number = _index(attributes.get("numFmtId", "0"))
            formats.append(NumberFormat.parse(number, codes.get(number, "")))
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


def read_sheet_layout(stream: IO[bytes]) -> SheetLayout:
    """Read what is hidden or merged; most sheets have nothing of it, and are not parsed."""
    with stream:
        end, found = b"", False
        while not found and (chunk := stream.read(_CHUNK)):
            found = bool(_LAYOUT_MARKS.search(end + chunk)) or chunk.startswith((BOM_UTF16_BE, BOM_UTF16_LE))
            end = chunk[-_LONGEST_MARK:]
        if not found:
            return SheetLayout()
        stream.seek(0)
        reader = _LayoutCollector()
        for _ in _parse_part(stream, reader):
            pass
    return reader.layout


def read_sheet_rows(stream: IO[bytes], decoder: CellDecoder) -> Iterator[tuple[int, list[str], bool]]:
    """Yield the rows of a sheet: number, cells, and True if the row itself is hidden."""
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
        self._size = 0

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
            self._size = 0

    def text(self, data: str) -> None:
        if self._in_text:
            self._pieces.append(data)
            self._size += len(data)
            if self._size > _MAX_CELL_CHARS:
                raise ValueError("the text of a cell is too long")


@lru_cache(maxsize=1 << 14)
def _index(text: str) -> int:
    """Return the number of a row, a column, a style or a string; raises ValueError."""
    number = parse_number(text.strip(), _MAX_INDEX)
    if number is None:
        raise ValueError(f"{text[:20]!r} is not a number of a row, a column, a style or a string")
    return number


def _is_true(value: str | None) -> bool:
    return value in ("1", "true")


def _is_zero(value: str | None) -> bool:
    return value is not None and float(value) == 0


def _is_hidden_row(attributes: _Attributes) -> bool:
    return _is_true(attributes.get("hidden")) or _is_zero(attributes.get("ht"))


class _LayoutCollector(_XmlHandler):
    """A collector of the rows, columns and cells that are hidden or merged."""

    def __init__(self) -> None:
        self.layout = SheetLayout()
        self._line = 0
        self._is_hidden = False

    def start(self, name: str, attributes: _Attributes) -> None:
        name = _local_name(name)
        if name == "row":
            self._line = _index(attributes.get("r", str(self._line + 1)))
            self._is_hidden = _is_hidden_row(attributes)
        elif name in ("v", "t", "f") and self._is_hidden:
            self._is_hidden = False
            self.layout.hidden_row_count += 1
            if len(self.layout.hidden_rows) < _SHOWN_ROWS:
                self.layout.hidden_rows.append(self._line)
        elif name == "col" and (_is_true(attributes.get("hidden")) or _is_zero(attributes.get("width"))):
            self.layout.hidden_columns.append((_index(attributes["min"]) - 1, _index(attributes["max"]) - 1))
            _check_ranges(self.layout.hidden_columns)
        elif name == "mergeCell":
            self.layout.merges.append(_parse_range(attributes["ref"]))
            _check_ranges(self.layout.merges)


def _check_ranges(ranges: list[Any]) -> None:
    if len(ranges) > _MAX_RANGES:
        raise ValueError(f"more than {_MAX_RANGES:,} ranges of cells are merged or hidden")


def _parse_range(reference: str) -> MergedCells:
    """Return first and last column, first and last row of a range such as A2:B4."""
    first, _, last = reference.replace("$", "").partition(":")
    ends = []
    for cell in (first, last or first):
        letters = cell.rstrip("0123456789")
        ends.append((_column_index(letters), _index(cell[len(letters) :])))
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


class _RowCollector(_XmlHandler):
    """A collector of rows, with gaps filled; ``finished_rows`` are those that have ended."""

    def __init__(self, decoder: CellDecoder) -> None:
        self.finished_rows: list[tuple[int, list[str], bool]] = []
        self._decode: Callable[[str, int, str], str] = decoder.decode
        self._is_computed = decoder.is_computed
        self._line = 0
        self._is_hidden = False
        self._row: list[str] = []
        self._column = -1
        self._kind, self._style = "", 0
        self._value: list[str] = []
        self._size = self._row_size = 0
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
            line = _index(attributes.get("r", str(self._line + 1)))
            if line <= self._line:
                raise ValueError(f"row {line} comes after row {self._line}")
            if line > _MAX_ROWS:
                raise ValueError(f"there is no row {line} in Excel")
            self._line, self._is_hidden = line, _is_hidden_row(attributes)
            self._row, self._column, self._row_size = [], -1, 0

    def _begin_cell(self, attributes: _Attributes) -> None:
        reference = attributes.get("r", "")
        self._column = _column_index(reference.rstrip("0123456789")) if reference else self._column + 1
        if self._column >= _MAX_COLUMNS:
            raise ValueError(f"row {self._line} has more than {_MAX_COLUMNS:,} cells")
        if self._column < len(self._row):
            raise ValueError(f"the cells of row {self._line} are out of order")
        self._kind = attributes.get("t", "")
        self._style = _index(attributes.get("s", "0"))
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
            self.finished_rows.append((self._line, self._row, self._is_hidden))

    def _end_cell(self) -> None:
        value = "".join(self._value)
        if self._has_formula and not value and not (self._has_value and self._kind == "str"):
            text: str = UnreadableCell("#VALUE!", _NOT_COMPUTED)  # not an empty cell
        elif not value:
            text = ""
        else:
            text = self._decode(self._kind, self._style, value)
        if self._has_formula and not self._is_computed:
            text = UnreadableCell(f"{text} (not computed)", _NOT_COMPUTED)
        if text:
            self._row.extend([""] * (self._column - len(self._row)))
            self._row.append(text)
            self._row_size += len(text)
            if self._row_size > _MAX_ROW_CHARS:
                raise ValueError(f"row {self._line} is too long")

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
