"""Tables in Excel workbooks (XLSX, ISO/IEC 29500-1): the first visible sheet that is not empty.

Rows are streamed with the standard library. python-calamine turns an error such as #N/A into an empty cell,
so that a row would be queried without that key; it drops leading zeros of a number format; and it ends the
whole process at a lone cell in the last row and column.
"""

from __future__ import annotations

import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, NamedTuple
from xml.parsers.expat import ExpatError

from dicom_quarry.cohort.columns import find_keyword, find_similar_keyword, replace_unprintable
from dicom_quarry.cohort.header_search import IsKey, SeveralHeaders, find_data_above, find_header
from dicom_quarry.cohort.input_source import InputSource
from dicom_quarry.cohort.xlsx_sheet import (
    CellDecoder,
    NumberFormats,
    SheetLayout,
    column_letters,
    read_elements,
    read_number_formats,
    read_sheet_layout,
    read_sheet_rows,
    read_strings,
)
from dicom_quarry.errors import InputError
from dicom_quarry.system.text_safety import escape_text

#: Maximum bytes of a part: shared strings are kept in memory.
_MAX_PART_BYTES = 512 << 20
_DAMAGE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    ExpatError,
    KeyError,
    LookupError,
    ValueError,
    EOFError,
    NotImplementedError,  # a compression that zipfile does not support
    RuntimeError,  # a part with a password
    struct.error,
    OverflowError,
)


#: A part that only another kind of file has.
_OTHER_KINDS = (
    ("mimetype", "an OpenDocument spreadsheet (.ods), or a document: save it as XLSX, or as 'CSV UTF-8'"),
    ("index/document.iwa", "a document of Apple Numbers: export it as XLSX, or as CSV"),
    ("xl/workbook.bin", "a binary Excel workbook (.xlsb): save it as XLSX, or as 'CSV UTF-8'"),
    ("word/document.xml", "a text document: save its table as XLSX, or as 'CSV UTF-8'"),
)


class Package:
    """The parts of a workbook in its ZIP file.

    Names have no case, and some programs write back-slashes (ISO/IEC 29500-2). Raises ValueError for two
    parts with one name.
    """

    def __init__(self, book: zipfile.ZipFile) -> None:
        self._book = book
        self._parts: dict[str, zipfile.ZipInfo] = {}
        for one in book.infolist():
            name = _normalize_part(one.filename)
            if name in self._parts:
                raise ValueError(f"it has two parts with the name {name}")
            self._parts[name] = one

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all parts, in lower case."""
        return tuple(self._parts)

    def size(self, name: str) -> int:
        """Return the bytes of a part; raises KeyError if it does not exist."""
        return self._find(name).file_size

    def open(self, name: str) -> IO[bytes]:
        """Open a part; raises KeyError if it does not exist."""
        return self._book.open(self._find(name))

    def _find(self, name: str) -> zipfile.ZipInfo:
        part = self._parts.get(_normalize_part(name))
        if part is None:
            raise KeyError(f"There is no item named {name!r} in the archive")
        return part


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _normalize_part(name: str) -> str:
    return _slashes(name).lstrip("/").casefold()


class _Sheet(NamedTuple):
    """A sheet of the workbook, and the name of its part."""

    name: str
    part: str
    is_hidden: bool


@dataclass(frozen=True, slots=True)
class XlsxTable:
    """A sheet as a table; its lines are the sheet's rows."""

    source: InputSource
    sheet: str
    part: str
    decoder: CellDecoder
    header: tuple[str, ...]
    header_line: int
    other_sheets: tuple[_Sheet, ...]
    layout: SheetLayout
    hidden_rows: str = ""
    header_notes: tuple[str, ...] = ()
    delimiter: str = ","

    @property
    def name(self) -> str:
        """The file and the sheet, for messages."""
        return f"{self.source.name}, sheet '{self.sheet}'"

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the sheet that is read, if there are several, on the header, and on hidden rows."""
        found = list(self.header_notes)
        if count := sum(not one.is_hidden for one in self.other_sheets):
            count += 1
            found.insert(0, f"read from the sheet '{self.sheet}', the first of {count} that is not empty")
        if self.layout.hidden_row_count:
            done = "read" if self.hidden_rows == "take" else "not read"
            found.append(f"{_describe_rows(self.layout)}: {done} (--hidden-rows {self.hidden_rows})")
        return tuple(found)

    @property
    def has_doubtful_cells(self) -> bool:
        """True if cells are merged: the cells below the first one only look filled."""
        return bool(self.layout.merges)

    @property
    def hidden_columns(self) -> frozenset[int]:
        """The positions of the columns that are not shown."""
        ranges = [range(first, last + 1) for first, last in self.layout.hidden_columns]
        return frozenset(at for at in range(len(self.header)) if any(at in one for one in ranges))

    def cell_label(self, line: int, position: int) -> str:
        """Return the cell, as B7, and its column, for messages."""
        return f"cell {column_letters(position)}{line}, column '{escape_text(self.header[position].strip())}'"

    def find_cell_problem(self, line: int, position: int, value: str) -> str:  # noqa: ARG002 (the protocol)
        """Refuse a cell that is merged with another one, which has the value of both."""
        merge = self.layout.find_merge(line, position)
        if merge is None:
            return ""
        return (
            f"is merged with {column_letters(merge[0])}{merge[2]}, so it has no value of its own; unmerge "
            "the cells, and write the value into each of them"
        )

    def unread_parts(self) -> Iterator[str]:
        """Yield hidden rows, other sheets, lines above the header, and cells to the right of the header."""
        if self.layout.hidden_row_count:
            yield f"{_describe_rows(self.layout)}, by a filter or by hand; show them, or delete them"
        with _open_zip(self.source) as book:
            for sheet in self.other_sheets:
                if any(True for _ in _read_sheet(book, sheet.part, self.decoder, "take")):
                    kind = "hidden sheet" if sheet.is_hidden else "sheet"
                    yield (
                        f"the {kind} '{sheet.name}' has values, too, and only one sheet is read; save each "
                        "sheet as a file of its own, or delete it"
                    )
            lines = _read_sheet(book, self.part, self.decoder, "take")
            yield from filter(None, [find_data_above(lines, self.header_line)])
            width = len(self.header)
            for line, cells in _read_sheet(book, self.part, self.decoder, "take"):
                beyond = (at for at, cell in enumerate(cells[width:], width) if cell.strip())
                if line > self.header_line and (position := next(beyond, None)) is not None:
                    yield (
                        f"cell {column_letters(position)}{line} has a value, but no header; write a header "
                        "above it, or clear the cell"
                    )
                    return

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield every row below the header that is not blank, without cells to the right of the header."""
        width = len(self.header)
        with _open_zip(self.source) as book:
            for line, cells in _read_sheet(book, self.part, self.decoder, self.hidden_rows):
                if line > self.header_line and any(cell.strip() for cell in cells[:width]):
                    cells = cells[:width]
                    cells.extend([""] * (width - len(cells)))
                    yield line, cells


def open_xlsx(source: InputSource, is_key: IsKey = find_keyword, hidden_rows: str = "") -> XlsxTable:
    """Find the sheet and its header; raises InputError if there is none.

    ``is_key`` is true for headers that are keys; ``hidden_rows`` is ``take``, ``skip``, or empty to refuse.
    """
    with _open_zip(source) as book:
        _refuse_other_kinds(source.name, book)
        root = _find_related_part(book, "", "/officeDocument")
        sheets, epoch_1904, is_computed = _list_sheets(book, root)
        texts = read_strings(
            _open_part(book, _find_related_part(book, root, "/sharedStrings", required=False))
        )
        number_formats: NumberFormats = read_number_formats(
            _open_part(book, _find_related_part(book, root, "/styles", required=False))
        )
        decoder = CellDecoder(texts, number_formats, epoch_1904, is_computed)
        for name, part, is_hidden in sheets:
            if is_hidden:
                continue
            try:
                found = find_header(_read_sheet(book, part, decoder, hidden_rows), is_key)
            except SeveralHeaders as error:
                raise InputError(f"{source.name}, sheet '{name}': {error}") from error
            if found is None:
                continue
            (line, row), notes = found
            while row and not row[-1].strip():
                row.pop()
            layout = read_sheet_layout(book.open(part))
            others = tuple(one for one in sheets if one.part != part)
            table = XlsxTable(
                source, name, part, decoder, tuple(row), line, others, layout, hidden_rows, notes
            )
            _check_layout(table, is_key)
            return table
    raise InputError(
        f"{source.name}: every sheet is empty; add a header row such as EMPI and Accession, and rows"
    )


def _check_layout(table: XlsxTable, is_key: IsKey) -> None:
    """Refuse hidden rows on which no option decides, and a header that is merged over several columns."""
    layout = table.layout
    if layout.hidden_row_count and not table.hidden_rows:
        raise InputError(
            f"{table.name}: {_describe_rows(layout)}, by a filter or by hand; show them, or use "
            "--hidden-rows take to read them, or --hidden-rows skip to leave them out"
        )
    for left, right, top, bottom in layout.merges:
        if not top <= table.header_line <= bottom or left >= len(table.header):
            continue
        name = table.header[left]
        if top == table.header_line and right > left and (is_key(name) or find_similar_keyword(name)):
            raise InputError(
                f"{table.name}: the header cell {column_letters(left)}{top} is merged with "
                f"{column_letters(right)}{bottom}; unmerge the cells, and write a header above each column"
            )
        if top < table.header_line:
            raise InputError(
                f"{table.name}: the cell {column_letters(left)}{table.header_line} of the header is merged "
                f"with {column_letters(left)}{top}; unmerge the cells, and write each header into line "
                f"{table.header_line}"
            )


def _describe_rows(layout: SheetLayout) -> str:
    shown = ", ".join(map(str, layout.hidden_rows))
    more = " and others" if layout.hidden_row_count > len(layout.hidden_rows) else ""
    if layout.hidden_row_count == 1:
        return f"1 row is hidden (row {shown})"
    return f"{layout.hidden_row_count:,} rows are hidden (rows {shown}{more})"


def _refuse_other_kinds(name: str, book: Package) -> None:
    """Refuse a ZIP file that is no XLSX workbook, with the remedy."""
    for part, what in _OTHER_KINDS:
        if part in book:
            raise InputError(f"{name}: this is {what}")
    if not any(one.startswith(("xl/", "_rels/")) for one in book.names):
        raise InputError(f"{name}: this is a ZIP archive, not a workbook: unpack it, and use the table in it")


@contextmanager
def _open_zip(source: InputSource) -> Iterator[Package]:
    with source.open() as stream:
        try:
            with zipfile.ZipFile(stream) as book:
                yield Package(book)
        except _DAMAGE_ERRORS as error:
            raise InputError(
                f"{source.name}: the workbook cannot be read ({_error_text(error)}); open it in Excel and "
                "save it as XLSX, or as 'CSV UTF-8'"
            ) from error


def _error_text(error: Exception) -> str:
    return replace_unprintable(str(error.args[0]) if error.args else type(error).__name__)[:100]


def _open_part(book: Package, name: str) -> IO[bytes] | None:
    if not name:
        return None
    if book.size(name) > _MAX_PART_BYTES:
        raise ValueError(f"its part {name} is too large for a table")
    return book.open(name)


def _read_sheet(
    book: Package, part: str, decoder: CellDecoder, hidden_rows: str
) -> Iterator[tuple[int, list[str]]]:
    with book.open(part) as stream:
        for line, row, is_hidden in read_sheet_rows(stream, decoder):
            if any(cell.strip() for cell in row) and not (is_hidden and hidden_rows == "skip"):
                yield line, row


def _find_related_part(book: Package, part: str, kind: str, *, required: bool = True) -> str:
    """Return the part with this kind of relationship to another; empty if it is optional and absent."""
    found = [target for _, type_, target in _read_relations(book, part) if type_.endswith(kind)]
    if not found and required:
        raise ValueError("it has no sheets")
    return found[0] if found else ""


def _read_relations(book: Package, part: str) -> list[tuple[str, str, str]]:
    """Read the relationships of a part: identifier, type, name of the other part (ISO/IEC 29500-2)."""
    folder, name = posixpath.split(part)
    with book.open(posixpath.join(folder, "_rels", f"{name}.rels")) as stream:
        return [
            (
                attributes.get("Id", ""),
                attributes.get("Type", ""),
                posixpath.normpath(
                    posixpath.join("/", folder, _slashes(attributes.get("Target", "")))
                ).lstrip("/"),
            )
            for element, attributes in read_elements(stream)
            if element == "Relationship"
        ]


def _list_sheets(book: Package, root: str) -> tuple[list[_Sheet], bool, bool]:
    """Return the sheets, and two properties of the workbook.

    These are True if days are counted from 1904, and True if the results of its formulas are final: a program
    that only writes workbooks leaves the computation to Excel.
    """
    parts = {
        identifier: target
        for identifier, kind, target in _read_relations(book, root)
        if kind.endswith("/worksheet")
    }
    sheets: list[_Sheet] = []
    epoch_1904, is_computed = False, True
    with book.open(root) as stream:
        for name, attributes in read_elements(stream):
            if name == "workbookPr":
                epoch_1904 = attributes.get("date1904", "") in ("1", "true")
            elif name == "calcPr":
                is_computed = attributes.get("fullCalcOnLoad", "") not in ("1", "true")
            identifier = next((value for key, value in attributes.items() if key.endswith(":id")), "")
            if name == "sheet" and identifier in parts:
                is_hidden = attributes.get("state", "visible") != "visible"
                label = replace_unprintable(attributes.get("name", ""))
                sheets.append(_Sheet(label, parts[identifier], is_hidden))
    return sheets, epoch_1904, is_computed
