"""The reports as a workbook for Excel, every cell text: leading zeros and long numbers stay as they are."""

from __future__ import annotations

import tempfile
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
from dicom_quarry.reporting.csv_reports import Table
from dicom_quarry.system.atomic_file import replacing
from dicom_quarry.system.permissions import PRIVATE, Access

#: Excel's limits: lines of a sheet below the header, columns, characters (UTF-16 units) of a cell.
_LINES, _COLUMNS, _LONGEST = 1_048_575, 16_384, 32_767
_CUT = " … (cut: an XLSX cell ends here; the CSV file has all of it)"


def write_workbook(path: Path, tables: Mapping[str, Table], *, access: Access = PRIVATE) -> None:
    """Write an XLSX file that appears whole or not at all: a sheet for each table, by its name.

    A table with more lines than a sheet holds goes on in ``NAME-2`` and so on. Memory does not grow with the
    lines. Raises InputError for more columns than a sheet holds.
    """
    with replacing(path, access) as stream, _workbook(stream, path) as book:
        look = book.add_format({"num_format": "@"}), book.add_format({"num_format": "@", "bold": True})
        for name, table in tables.items():
            if len(table.header) > _COLUMNS:
                raise InputError(
                    f"{path.name}: the table has {len(table.header):,} columns, and a sheet of a workbook "
                    f"holds {_COLUMNS:,}; the CSV file has all of them"
                )
            _fill(book, name, table, *look)


@contextmanager
def _workbook(stream: IO[bytes], path: Path) -> Iterator[Workbook]:
    try:
        # What XlsxWriter writes on the way names patients too: beside the report, for its owner alone.
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as folder:
            book = Workbook(cast("IO[str]", stream), {"constant_memory": True, "tmpdir": folder})
            book.use_zip64()
            yield book
            book.close()
        return
    except FileCreateError as error:  # what the disk said
        # A new one: nothing keeps the half-made archive, which writes its end as it goes, beyond here.
        failed = OSError(*error.args[0].args)
    raise failed


def _fill(book: Workbook, name: str, table: Table, text: Format, bold: Format) -> None:
    lines = iter(table.lines)
    for number in count(1):
        sheet = book.add_worksheet(name if number == 1 else f"{name}-{number}", _Sheet)
        _write(sheet, 0, table.header, bold)
        last = 0
        for last, cells in enumerate(islice(lines, _LINES), 1):
            _write(sheet, last, cells, text)
        sheet.freeze_panes(1, 0)
        sheet.autofilter(0, 0, last, len(table.header) - 1)
        sheet.ignore_errors({"number_stored_as_text": "A1:XFD1048576"})
        following = list(islice(lines, 1))
        if not following:
            return
        lines = chain(following, lines)


def _write(sheet: Worksheet, line: int, cells: Sequence[object], look: Format) -> None:
    for column, cell in enumerate(cells):
        sheet.write_string(line, column, _fitting(str(cell)), look)


def _fitting(text: str) -> str:
    """Text that a cell can hold; what is cut says so."""
    if len(text) <= _LONGEST // 2 or len(text.encode("utf-16-le")) <= 2 * _LONGEST:
        return text
    whole = text.encode("utf-16-le")[: 2 * (_LONGEST - len(_CUT))]
    return whole.decode("utf-16-le", errors="ignore") + _CUT


class _Sheet(Worksheet):
    """Takes every string for text."""

    def _xml_rich_inline_string(self, string: str, attributes: Sequence[tuple[str, str]] = ()) -> None:
        """A user's cell may begin with ``<r>`` and end with ``</r>``, XlsxWriter's sign of its own markup."""
        self._xml_inline_string(string, True, attributes)
