"""Tables in Excel workbooks (XLSX, ISO/IEC 29500-1): the first visible sheet that is not empty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dicom_quarry.cohort.header_search import IsKey, SeveralHeaders, find_data_above, find_header
from dicom_quarry.cohort.headers import find_keyword
from dicom_quarry.cohort.input_source import InputSource
from dicom_quarry.cohort.sheet_layout import SheetLayout, column_letters
from dicom_quarry.cohort.similar_headers import find_similar_keyword
from dicom_quarry.cohort.workbook import Workbook, describe_damage, read_workbook
from dicom_quarry.errors import InputError
from dicom_quarry.plurals import format_count
from dicom_quarry.system.text_safety import escape_text


@dataclass(frozen=True, slots=True)
class XlsxTable:
    """A sheet as a table; its lines are the sheet's rows."""

    workbook: Workbook
    header: tuple[str, ...]
    header_line: int
    hidden_rows: str = ""
    header_notes: tuple[str, ...] = ()
    delimiter: str = ","

    @property
    def name(self) -> str:
        """The file and the sheet, for messages."""
        return f"{self.workbook.source_name}, sheet '{self.workbook.sheet}'"

    @property
    def layout(self) -> SheetLayout:
        """The hidden and merged parts of the sheet."""
        return self.workbook.layout

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the sheet that is read, if there are several, on the header, and on hidden rows."""
        found = list(self.header_notes)
        if count := sum(not one.is_hidden for one in self.workbook.others):
            count += 1
            found.insert(
                0, f"read from the sheet '{self.workbook.sheet}', the first of {count} that is not empty"
            )
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
        for sheet in self.workbook.others:
            if sheet.error:
                raise InputError(describe_damage(self.workbook.source_name, sheet.error))
            if sheet.has_values:
                kind = "hidden sheet" if sheet.is_hidden else "sheet"
                yield (
                    f"the {kind} '{sheet.name}' has values, too, and only one sheet is read; save each "
                    "sheet as a file of its own, or delete it"
                )
        lines = _read_lines(self.workbook)
        yield from filter(None, [find_data_above(lines, self.header_line)])
        width = len(self.header)
        for line, cells in _read_lines(self.workbook):
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
        for line, cells in _read_lines(self.workbook, self.hidden_rows):
            if line > self.header_line and any(cell.strip() for cell in cells[:width]):
                cells = cells[:width]
                cells.extend([""] * (width - len(cells)))
                yield line, cells


def open_xlsx(source: InputSource, is_key: IsKey = find_keyword, hidden_rows: str = "") -> XlsxTable:
    """Find the sheet and its header; raises InputError if there is none.

    ``is_key`` is true for headers that are keys; ``hidden_rows`` is ``take``, ``skip``, or empty to refuse.
    """
    workbook = read_workbook(source, hidden_rows)
    try:
        found = find_header(_read_lines(workbook, hidden_rows), is_key) if workbook.sheet else None
    except SeveralHeaders as error:
        raise InputError(f"{source.name}, sheet '{workbook.sheet}': {error}") from error
    if found is None:
        raise InputError(
            f"{source.name}: every sheet is empty; add a header row such as EMPI and Accession, and rows"
        )
    (line, row), notes = found
    while row and not row[-1].strip():
        row.pop()
    table = XlsxTable(workbook, tuple(row), line, hidden_rows, notes)
    _check_layout(table, is_key)
    return table


def _read_lines(workbook: Workbook, hidden_rows: str = "take") -> Iterator[tuple[int, list[str]]]:
    for line, cells, is_hidden in workbook.rows():
        if not (is_hidden and hidden_rows == "skip"):
            yield line, cells


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
    label = "row" if layout.hidden_row_count == 1 else "rows"
    return f"{format_count(layout.hidden_row_count, 'row is', 'rows are')} hidden ({label} {shown}{more})"
