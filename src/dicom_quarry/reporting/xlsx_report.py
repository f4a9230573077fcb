"""The reports as an Excel workbook, for reading: widths, colours, links to folders.

Cells of the user and of the archive are text, so that leading zeros and long numbers stay. Quarry's own
counts are numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, count, islice
from pathlib import Path
from typing import IO, Final, cast

from xlsxwriter import Workbook
from xlsxwriter.exceptions import FileCreateError
from xlsxwriter.url import Url
from xlsxwriter.worksheet import Worksheet

from dicom_quarry.errors import InputError
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.reporting.csv_reports import FOLDER_SEPARATOR, ReportTable
from dicom_quarry.system.atomic_file import atomic_write, temporary_folder
from dicom_quarry.system.permissions import PRIVATE, Permissions

#: Excel's limits: lines of a sheet below the header, columns, characters (UTF-16 units) of a cell, and links.
_MAX_LINES, _MAX_COLUMNS, _MAX_CELL_CHARS, _MAX_LINKS = 1_048_575, 16_384, 32_767, 65_000
_TRUNCATION_NOTE = " … (cut at Excel's limit for a cell; the CSV file has the whole text)"

#: Quarry's columns, without their prefix, whose text is broken into lines; and those with folders.
_WRAPPED: Final = frozenset({"reason", "what_to_do", "description", "on_complete_error"})
_FOLDERS: Final = frozenset({"folders", "folder"})
#: Characters of a column: least, most, of wrapped text. The first lines decide.
_MIN_WIDTH, _MAX_WIDTH, _WRAPPED_WIDTH, _MEASURED_LINES = 8, 44, 50, 1000

#: Background by outcome, in the colours that Excel uses for good, bad and neutral; yellow for all others.
_COLOURS: Final = {
    OutcomeStatus.COMPLETE: "#C6EFCE",
    OutcomeStatus.FILTERED: "#E2EFDA",
    OutcomeStatus.PENDING: "#DDEBF7",
    OutcomeStatus.FAILED: "#FFC7CE",
}
_OTHER_COLOUR: Final = "#FFEB9C"

#: Characters of a path that a link may not contain as they are.
_UNSAFE_IN_LINK: Final = re.compile(r"[%# ^]")


def write_xlsx(path: Path, tables: Mapping[str, ReportTable], *, permissions: Permissions = PRIVATE) -> None:
    """Write an XLSX file atomically, with a sheet for each table, by its name.

    A table with more lines than a sheet can hold continues in ``NAME-2`` and so on. Memory does not grow with
    the lines. Raises InputError for more columns than a sheet can hold.
    """
    with atomic_write(path, permissions) as stream, _open_workbook(stream, path) as book:
        formats = _Formats(book)
        for name, table in tables.items():
            if len(table.header) > _MAX_COLUMNS:
                raise InputError(
                    f"{path.name}: the table has {len(table.header):,} columns, but an Excel sheet can have "
                    f"only {_MAX_COLUMNS:,}; use the CSV file, which has all of them"
                )
            _write_sheets(book, name, table, formats)


@contextmanager
def _open_workbook(stream: IO[bytes], path: Path) -> Iterator[Workbook]:
    try:
        # XlsxWriter's temporary files name patients, too: they are private, and next to the report.
        with temporary_folder(path) as folder:
            book = Workbook(cast("IO[str]", stream), {"constant_memory": True, "tmpdir": str(folder)})
            book.use_zip64()
            yield book
            book.close()
        return
    except FileCreateError as error:  # an error of the disk
        # A new error, as the traceback would keep the unfinished archive, which writes its end when deleted.
        failed = OSError(*error.args[0].args)
    raise failed


class _Formats:
    """The formats of the cells of a workbook."""

    def __init__(self, book: Workbook) -> None:
        as_text = {"num_format": "@", "valign": "top"}
        self.text: Final = book.add_format(as_text)
        self.header: Final = book.add_format({**as_text, "bold": True, "text_wrap": True})
        self.wrapped: Final = book.add_format({**as_text, "text_wrap": True})
        self.number: Final = book.add_format({"num_format": "0", "valign": "top"})
        self.link: Final = book.add_format({**as_text, "font_color": "#0563C1", "underline": 1})
        other = book.add_format({**as_text, "bg_color": _OTHER_COLOUR})
        self.outcomes: Final = {
            str(status): book.add_format({**as_text, "bg_color": _COLOURS[status]})
            if status in _COLOURS
            else other
            for status in OutcomeStatus
        }


def _write_sheets(book: Workbook, name: str, table: ReportTable, formats: _Formats) -> None:
    lines = iter(table.lines)
    for number in count(1):
        sheet = book.add_worksheet(name if number == 1 else f"{name}-{number}", _TextWorksheet)
        writer = _SheetWriter(cast("_TextWorksheet", sheet), table, formats)
        last = 0
        for last, cells in enumerate(islice(lines, _MAX_LINES), 1):
            writer.write_line(last, cells)
        writer.finish(last)
        following = list(islice(lines, 1))
        if not following:
            return
        lines = chain(following, lines)


class _SheetWriter:
    """Writes the lines of one sheet, its header first."""

    def __init__(self, sheet: _TextWorksheet, table: ReportTable, formats: _Formats) -> None:
        self._sheet = sheet
        self._formats = formats
        # A column of the user's may have the name of one of Quarry's.
        own = len(table.header) if table.own_columns is None else table.own_columns
        self._kinds = [""] * own + [name.removeprefix("quarry_") for name in table.header[own:]]
        self._widths = [0] * len(table.header)
        self._links = 0
        for column, name in enumerate(table.header):
            sheet.write_string(0, column, _truncate(name), formats.header)
            self._widths[column] = max(map(len, name.split("\n"))) + 2  # the button of the filter

    def write_line(self, line: int, cells: Sequence[object]) -> None:
        """Write one line."""
        for column, cell in enumerate(cells):
            kind = self._kinds[column]
            if kind and isinstance(cell, int):
                self._sheet.write_number(line, column, cell, self._formats.number)
                text = str(cell)
            else:
                text = _truncate(str(cell))
                self._write_text(line, column, kind, text)
            if line <= _MEASURED_LINES:
                self._widths[column] = max(self._widths[column], len(text))

    def _write_text(self, line: int, column: int, kind: str, text: str) -> None:
        formats = self._formats
        if kind in _FOLDERS and text and self._links < _MAX_LINKS:
            link = _FolderLink(text.partition(FOLDER_SEPARATOR)[0], text)
            if link.is_short:
                self._links += 1
                self._sheet.write_url(line, column, cast("str", link), formats.link)
                return
        chosen = formats.wrapped if kind in _WRAPPED else formats.text
        if kind == "outcome":
            chosen = formats.outcomes.get(text, formats.text)
        self._sheet.write_string(line, column, text, chosen)

    def finish(self, last: int) -> None:
        """Set what holds for the whole sheet with its ``last`` line."""
        for column, (kind, width) in enumerate(zip(self._kinds, self._widths, strict=True)):
            most = _WRAPPED_WIDTH if kind in _WRAPPED else _MAX_WIDTH
            self._sheet.set_column(column, column, min(max(width, _MIN_WIDTH), most))
        self._sheet.freeze_panes(1, 0)
        self._sheet.autofilter(0, 0, last, len(self._kinds) - 1)
        self._sheet.ignore_errors({"number_stored_as_text": "A1:XFD1048576"})


def _truncate(text: str) -> str:
    """Cut a text to the length of a cell, with a note that it is cut."""
    if len(text) <= _MAX_CELL_CHARS // 2 or len(text.encode("utf-16-le")) <= 2 * _MAX_CELL_CHARS:
        return text
    whole = text.encode("utf-16-le")[: 2 * (_MAX_CELL_CHARS - len(_TRUNCATION_NOTE))]
    return whole.decode("utf-16-le", errors="ignore") + _TRUNCATION_NOTE


class _FolderLink(Url):
    """A link to a folder next to the workbook, with ``text`` in its cell."""

    def __init__(self, folder: str, text: str) -> None:
        path = _UNSAFE_IN_LINK.sub(lambda found: f"%{ord(found[0]):02X}", folder.removeprefix("./"))
        self.is_short: Final = len(path) < 2000
        super().__init__(f"external:./{path if self.is_short else ''}")
        self.text = text

    def _target(self) -> str:
        """Return the path with slashes: XlsxWriter writes backslashes, which only Windows reads."""
        return str(super()._target()).replace("\\", "/")


class _TextWorksheet(Worksheet):
    """A worksheet that writes every string as text."""

    def _xml_rich_inline_string(self, string: str, attributes: Sequence[tuple[str, str]] = ()) -> None:
        """Write text: a cell from ``<r>`` to ``</r>`` is not XlsxWriter's own markup."""
        self._xml_inline_string(string, True, attributes)
