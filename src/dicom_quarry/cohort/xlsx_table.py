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
from typing import IO
from xml.parsers.expat import ExpatError

from dicom_quarry.cohort.columns import replace_unprintable
from dicom_quarry.cohort.input_source import InputSource
from dicom_quarry.cohort.xlsx_sheet import (
    CellDecoder,
    NumberFormats,
    read_elements,
    read_number_formats,
    read_sheet_rows,
    read_strings,
)
from dicom_quarry.errors import InputError

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


@dataclass(frozen=True, slots=True)
class XlsxTable:
    """A sheet as a table; its lines are the sheet's rows."""

    source: InputSource
    sheet: str
    part: str
    decoder: CellDecoder
    header: tuple[str, ...]
    header_line: int
    other_sheets: int
    delimiter: str = ","

    @property
    def name(self) -> str:
        """The file and the sheet, for messages."""
        return f"{self.source.name}, sheet '{self.sheet}'"

    @property
    def notes(self) -> tuple[str, ...]:
        """A note on the sheet that is read, if there are several."""
        if not self.other_sheets:
            return ()
        return (
            f"read from the sheet '{self.sheet}', the first of {self.other_sheets + 1} that is not empty",
        )

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield every row below the header that is not blank, without cells to the right of the header."""
        width = len(self.header)
        with _open_zip(self.source) as book:
            for line, cells in _read_sheet(book, self.part, self.decoder):
                if line > self.header_line and any(cell.strip() for cell in cells[:width]):
                    cells = cells[:width]
                    cells.extend([""] * (width - len(cells)))
                    yield line, cells


def open_xlsx(source: InputSource) -> XlsxTable:
    """Find the sheet and its header; raises InputError if there is none."""
    with _open_zip(source) as book:
        root = _find_related_part(book, "", "/officeDocument")
        sheets, epoch_1904 = _list_sheets(book, root)
        texts = read_strings(
            _open_part(book, _find_related_part(book, root, "/sharedStrings", required=False))
        )
        number_formats: NumberFormats = read_number_formats(
            _open_part(book, _find_related_part(book, root, "/styles", required=False))
        )
        decoder = CellDecoder(texts, number_formats, epoch_1904)
        for name, part in sheets:
            for line, row in _read_sheet(book, part, decoder):
                while row and not row[-1].strip():
                    row.pop()
                return XlsxTable(source, name, part, decoder, tuple(row), line, len(sheets) - 1)
    raise InputError(
        f"{source.name}: every sheet is empty; add a header row such as EMPI and Accession, and rows"
    )


@contextmanager
def _open_zip(source: InputSource) -> Iterator[zipfile.ZipFile]:
    with source.open() as stream:
        try:
            with zipfile.ZipFile(stream) as book:
                yield book
        except _DAMAGE_ERRORS as error:
            raise InputError(
                f"{source.name}: the workbook cannot be read ({_error_text(error)}); open it in Excel and "
                "save it as XLSX, or as 'CSV UTF-8'"
            ) from error


def _error_text(error: Exception) -> str:
    return replace_unprintable(str(error.args[0]) if error.args else type(error).__name__)[:100]


def _open_part(book: zipfile.ZipFile, name: str) -> IO[bytes] | None:
    if not name:
        return None
    if book.getinfo(name).file_size > _MAX_PART_BYTES:
        raise ValueError(f"its part {name} is too large for a table")
    return book.open(name)


def _read_sheet(book: zipfile.ZipFile, part: str, decoder: CellDecoder) -> Iterator[tuple[int, list[str]]]:
    with book.open(part) as stream:
        for line, row in read_sheet_rows(stream, decoder):
            if any(cell.strip() for cell in row):
                yield line, row


def _find_related_part(book: zipfile.ZipFile, part: str, kind: str, *, required: bool = True) -> str:
    """Return the part with this kind of relationship to another; empty if it is optional and absent."""
    found = [target for _, type_, target in _read_relations(book, part) if type_.endswith(kind)]
    if not found and required:
        raise ValueError("it has no sheets")
    return found[0] if found else ""


def _read_relations(book: zipfile.ZipFile, part: str) -> list[tuple[str, str, str]]:
    """Read the relationships of a part: identifier, type, name of the other part (ISO/IEC 29500-2)."""
    folder, name = posixpath.split(part)
    with book.open(posixpath.join(folder, "_rels", f"{name}.rels")) as stream:
        return [
            (
                attributes.get("Id", ""),
                attributes.get("Type", ""),
                posixpath.normpath(posixpath.join("/", folder, attributes.get("Target", ""))).lstrip("/"),
            )
            for element, attributes in read_elements(stream)
            if element == "Relationship"
        ]


def _list_sheets(book: zipfile.ZipFile, root: str) -> tuple[list[tuple[str, str]], bool]:
    """Return the visible sheets with the names of their parts, and True if days are counted from 1904."""
    parts = {
        identifier: target
        for identifier, kind, target in _read_relations(book, root)
        if kind.endswith("/worksheet")
    }
    sheets: list[tuple[str, str]] = []
    epoch_1904 = False
    with book.open(root) as stream:
        for name, attributes in read_elements(stream):
            if name == "workbookPr":
                epoch_1904 = attributes.get("date1904", "") in ("1", "true")
            identifier = next((value for key, value in attributes.items() if key.endswith(":id")), "")
            if name == "sheet" and attributes.get("state", "visible") == "visible" and identifier in parts:
                sheets.append((replace_unprintable(attributes.get("name", "")), parts[identifier]))
    return sheets, epoch_1904
