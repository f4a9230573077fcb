"""The reports as an Excel workbook; every cell is text, so that leading zeros and long numbers stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, count, islice
from pathlib import Path
from typing import IO, cast

from xlsxwriter import Workbook
from xlsxwriter.exceptions import FileCreateError
from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from dicom_quarry.errors import InputError
from dicom_quarry.reporting.csv_reports import ReportTable
from dicom_quarry.system.atomic_file import atomic_write, temporary_folder
from dicom_quarry.system.permissions import PRIVATE, Permissions

#: Excel's limits: lines of a sheet below the header, columns, characters (UTF-16 units) of a cell.
_MAX_LINES, _MAX_COLUMNS, _MAX_CELL_CHARS = 1_048_575, 16_384, 32_767
_TRUNCATION_NOTE = " … (cut at Excel's limit for a cell; the CSV file has the whole text)"


def write_xlsx(path: Path, tables: Mapping[str, ReportTable], *, permissions: Permissions = PRIVATE) -> None:
    """Write an XLSX file atomically, with a sheet for each table, by its name.

    A table with more lines than a sheet can hold continues in ``NAME-2`` and so on. Memory does not grow with
    the lines. Raises InputError for more columns than a sheet can hold.
    """
    with atomic_write(path, permissions) as stream, _open_workbook(stream, path) as book:
        formats = book.add_format({"num_format": "@"}), book.add_format({"num_format": "@", "bold": True})
        for name, table in tables.items():
            if len(table.header) > _MAX_COLUMNS:
                raise InputError(
                    f"{path.name}: the table has {len(table.header):,} columns, but an Excel sheet can have "
                    f"only {_MAX_COLUMNS:,}; use the CSV file, which has all of them"
                )
            _write_sheets(book, name, table, *formats)


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


def _write_sheets(book: Workbook, name: str, table: ReportTable, text: Format, bold: Format) -> None:
    lines = iter(table.lines)
    for number in count(1):
        sheet = book.add_worksheet(name if number == 1 else f"{name}-{number}", _TextWorksheet)
        _write_row(sheet, 0, table.header, bold)
        last = 0
        for last, cells in enumerate(islice(lines, _MAX_LINES), 1):
            _write_row(sheet, last, cells, text)
        sheet.freeze_panes(1, 0)
        sheet.autofilter(0, 0, last, len(table.header) - 1)
        sheet.ignore_errors({"number_stored_as_text": "A1:XFD1048576"})
        following = list(islice(lines, 1))
        if not following:
            return
        lines = chain(following, lines)


def _write_row(sheet: Worksheet, line: int, cells: Sequence[object], cell_format: Format) -> None:
    for column, cell in enumerate(cells):
        sheet.write_string(line, column, _truncate(str(cell)), cell_format)


def _truncate(text: str) -> str:
    """Cut a text to the length of a cell, with a note that it is cut."""
    if len(text) <= _MAX_CELL_CHARS // 2 or len(text.encode("utf-16-le")) <= 2 * _MAX_CELL_CHARS:
        return text
    whole = text.encode("utf-16-le")[: 2 * (_MAX_CELL_CHARS - len(_TRUNCATION_NOTE))]
    return whole.decode("utf-16-le", errors="ignore") + _TRUNCATION_NOTE


class _TextWorksheet(Worksheet):
    """A worksheet that writes every string as text."""

    def _xml_rich_inline_string(self, string: str, attributes: Sequence[tuple[str, str]] = ()) -> None:
        """Write text: a cell from ``<r>`` to ``</r>`` is not XlsxWriter's own markup."""
        self._xml_inline_string(string, True, attributes)
