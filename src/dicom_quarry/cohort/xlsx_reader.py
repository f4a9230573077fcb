"""Reader of an Excel workbook (XLSX, ISO/IEC 29500-1), run as a process of its own with limits.

A workbook is a ZIP file of XML: a small file can be made to need any amount of memory and time. This module
turns it into records, each a line of JSON on standard output: :func:`read_records` has their form.

Rows are streamed with the standard library. python-calamine turns an error such as #N/A into an empty cell,
so that a row would be queried without that key; it drops leading zeros of a number format; and it ends the
whole process at a lone cell in the last row and column.
"""

from __future__ import annotations

import json
import os
import posixpath
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Any, BinaryIO, NamedTuple
from xml.parsers.expat import ExpatError, errors

from dicom_quarry.cohort.cell_values import UnreadableCell, WorkbookDate
from dicom_quarry.cohort.headers import replace_unprintable
from dicom_quarry.cohort.xlsx_sheet import (
    CellDecoder,
    read_elements,
    read_number_formats,
    read_sheet_layout,
    read_sheet_rows,
    read_strings,
)
from dicom_quarry.system.limited_process import limited

#: Maximum bytes of a part that is kept in memory: a list of sheets, formats, shared strings.
_MAX_PART_BYTES = 32 << 20
_MAX_STRINGS_BYTES = 512 << 20
#: A workbook is much smaller than its parts, but not by this factor: it would be made to fill the memory.
_MAX_RATIO = 100
_ALWAYS_ALLOWED_BYTES = 16 << 20

Record = dict[str, Any] | list[Any]

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


def read_records(stream: BinaryIO, hidden_rows: str = "") -> Iterator[Record]:
    """Yield the records of a workbook; the last one is ``{"end": True}``, or names an error.

    The first one has the ``sheets``, each with its name, True if it is hidden, True if it has values, and the
    damage that the search for values met. It also has the number of the ``sheet`` that is read, which is the
    first visible one with values, or None, and its ``layout``. With ``hidden_rows`` as ``skip`` values in
    hidden rows do not count. Then come the rows that are not blank: line, cells, True for a hidden row. A
    cell is a text; a list with the text of a date; or a list with the text of a cell that cannot be used, and
    its problem. Errors are ``{"damage": ...}``, ``{"other": ...}`` for another kind of file, and
    ``{"limit": ...}`` for a workbook that needs too much.
    """
    try:
        size = stream.seek(0, os.SEEK_END)
        with zipfile.ZipFile(stream) as book:
            package = Package(book)
            _check_size(book, size)
            yield from _read_package(package, hidden_rows)
    except _OtherKind as error:
        yield {"other": str(error)}
    except (MemoryError, _TooLarge, OSError) as error:
        yield {"limit": _describe_limit(error)}
    except _DAMAGE_ERRORS as error:
        if isinstance(error, ExpatError) and error.code == errors.codes[errors.XML_ERROR_NO_MEMORY]:
            yield {"limit": _describe_limit(MemoryError())}
        else:
            yield {"damage": _error_text(error)}


class _TooLarge(Exception):
    """The workbook would need too much; the message is the reason."""


class _OtherKind(Exception):
    """The file is no workbook; the message is its kind and the remedy."""


def _describe_limit(error: Exception) -> str:
    if isinstance(error, _TooLarge):
        return str(error)
    if isinstance(error, OSError):
        return f"its rows do not fit on the disk, or below the limit for them ({error.strerror})"
    return "it takes too much memory"


def _check_size(book: zipfile.ZipFile, file_size: int) -> None:
    """Raise _TooLarge for parts that are out of proportion to the file."""
    size = sum(one.file_size for one in book.infolist())
    if size > max(_ALWAYS_ALLOWED_BYTES, _MAX_RATIO * file_size):
        raise _TooLarge(f"its parts are {size >> 20:,} MB, more than {_MAX_RATIO} times the file")


def _read_package(book: Package, hidden_rows: str) -> Iterator[Record]:
    _refuse_other_kinds(book)
    root = _find_related_part(book, "", "/officeDocument")
    sheets, epoch_1904, is_computed = _list_sheets(book, root)
    strings = _find_related_part(book, root, "/sharedStrings", required=False)
    styles = _find_related_part(book, root, "/styles", required=False)
    decoder = CellDecoder(
        read_strings(_open_part(book, strings, _MAX_STRINGS_BYTES) if strings else None),
        read_number_formats(_open_part(book, styles) if styles else None),
        epoch_1904,
        is_computed,
    )
    at = next(
        (
            number
            for number, one in enumerate(sheets)
            if not one.is_hidden and _has_values(book, one.part, decoder, skip_hidden=hidden_rows == "skip")
        ),
        None,
    )
    if at is None:
        yield {"sheets": [], "sheet": None, "layout": {}}
        yield {"end": True}
        return
    part = sheets[at].part
    described = [
        [
            one.name,
            one.is_hidden,
            *((True, "") if one.part == part else _search_values(book, one.part, decoder)),
        ]
        for one in sheets
    ]
    yield {"sheets": described, "sheet": at, "layout": asdict(read_sheet_layout(book.open(part)))}
    for line, row, is_hidden in _read_rows(book, part, decoder):
        yield [line, [_encode_cell(cell) for cell in row], is_hidden]
    yield {"end": True}


def _encode_cell(cell: str) -> str | list[str]:
    if isinstance(cell, UnreadableCell):
        return [cell, cell.problem]
    return [cell] if isinstance(cell, WorkbookDate) else cell


def _read_rows(book: Package, part: str, decoder: CellDecoder) -> Iterator[tuple[int, list[str], bool]]:
    """Yield the rows of a sheet that are not blank."""
    with book.open(part) as stream:
        for line, row, is_hidden in read_sheet_rows(stream, decoder):
            if any(cell.strip() for cell in row):
                yield line, row, is_hidden


def _has_values(book: Package, part: str, decoder: CellDecoder, *, skip_hidden: bool = False) -> bool:
    return any(not (is_hidden and skip_hidden) for _, _, is_hidden in _read_rows(book, part, decoder))


def _search_values(book: Package, part: str, decoder: CellDecoder) -> tuple[bool, str]:
    """Return True for a sheet with values, and the damage that the search met."""
    try:
        return _has_values(book, part, decoder), ""
    except _DAMAGE_ERRORS as error:
        return False, _error_text(error)


def _refuse_other_kinds(book: Package) -> None:
    """Refuse a ZIP file that is no XLSX workbook, with the remedy."""
    for part, what in _OTHER_KINDS:
        if part in book:
            raise _OtherKind(f"this is {what}")
    if not any(one.startswith(("xl/", "_rels/")) for one in book.names):
        raise _OtherKind("this is a ZIP archive, not a workbook: unpack it, and use the table in it")


def _error_text(error: Exception) -> str:
    return replace_unprintable(str(error.args[0]) if error.args else type(error).__name__)[:100]


def _open_part(book: Package, name: str, limit: int = _MAX_PART_BYTES) -> IO[bytes]:
    if book.size(name) > limit:
        raise _TooLarge(f"its part {replace_unprintable(name)[:100]} is {book.size(name) >> 20:,} MB")
    return book.open(name)


def _find_related_part(book: Package, part: str, kind: str, *, required: bool = True) -> str:
    """Return the part with this kind of relationship to another; empty if it is optional and absent."""
    found = [target for _, type_, target in _read_relations(book, part) if type_.endswith(kind)]
    if not found and required:
        raise ValueError("it has no sheets")
    return found[0] if found else ""


def _read_relations(book: Package, part: str) -> list[tuple[str, str, str]]:
    """Read the relationships of a part: identifier, type, name of the other part (ISO/IEC 29500-2)."""
    folder, name = posixpath.split(part)
    with _open_part(book, posixpath.join(folder, "_rels", f"{name}.rels")) as stream:
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
    with _open_part(book, root) as stream:
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


def main(arguments: list[str]) -> None:
    """Read the workbook on standard input under the limits of the arguments; write its records."""
    with limited(arguments):
        for record in read_records(sys.stdin.buffer, arguments[3]):
            sys.stdout.write(json.dumps(record, separators=(",", ":")) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
