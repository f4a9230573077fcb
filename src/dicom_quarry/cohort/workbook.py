"""An Excel workbook as :mod:`dicom_quarry.cohort.xlsx_reader` has read it, in a process of its own."""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from dicom_quarry.cohort.cell_values import UnreadableCell, WorkbookDate
from dicom_quarry.cohort.input_source import InputSource, open_spool
from dicom_quarry.cohort.sheet_layout import SheetLayout
from dicom_quarry.errors import InputError
from dicom_quarry.system.limited_process import LimitExceeded, ProcessLimits, run_limited

_READER = "dicom_quarry.cohort.xlsx_reader"

#: A million rows with different values in ten columns need half of this.
_MEMORY = 1 << 30
#: Bytes of the rows as text, on the disk.
_OUTPUT = 2 << 30
#: Seconds of processor time: many times those of a workbook of this size.
_SECONDS = 5
_SECONDS_PER_MEGABYTE = 10

_REMEDY = "open it in Excel and save it as XLSX, or as 'CSV UTF-8'"


@dataclass(frozen=True, slots=True)
class OtherSheet:
    """A sheet that is not read; ``error`` is the damage that the search for its values met."""

    name: str
    is_hidden: bool
    has_values: bool
    error: str


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Workbook:
    """The sheet that is read, its layout and its rows; ``sheet`` is empty if no visible sheet has values."""

    source_name: str
    sheet: str
    others: tuple[OtherSheet, ...]
    layout: SheetLayout
    _spool: BinaryIO
    _rows_at: int

    def rows(self) -> Iterator[tuple[int, list[str], bool]]:
        """Yield the rows that are not blank: line, cells, and True for a hidden row. Raises InputError."""
        with open_spool(self._spool) as stream:
            stream.seek(self._rows_at)
            for record in map(json.loads, stream):
                if isinstance(record, dict):
                    raise_error(self.source_name, record)
                    return
                line, cells, is_hidden = record
                yield (
                    line,
                    [cell if isinstance(cell, str) else _decode_cell(cell) for cell in cells],
                    is_hidden,
                )


def read_workbook(source: InputSource, hidden_rows: str = "") -> Workbook:
    """Read a workbook in a process with limits.

    With ``hidden_rows`` as ``skip`` a sheet with values in hidden rows only is empty. Raises InputError for a
    file that is no workbook, or needs more than the limits.
    """
    spool = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the workbook)
    try:
        workbook = _read_into(spool, source, hidden_rows)
    except BaseException:
        spool.close()
        raise
    weakref.finalize(workbook, spool.close)
    return workbook


def _read_into(spool: BinaryIO, source: InputSource, hidden_rows: str) -> Workbook:
    with source.open() as stream:
        size = os.fstat(stream.fileno()).st_size
        limits = ProcessLimits(_MEMORY, _SECONDS + (_SECONDS_PER_MEGABYTE * size >> 20), _OUTPUT)
        try:
            run_limited(_READER, [hidden_rows], stream, spool, limits)
        except LimitExceeded as error:
            raise InputError(_describe_limit(source.name, str(error))) from error
    with open_spool(spool) as records:
        first = json.loads(records.readline() or "{}")
        rows_at = records.tell()
    raise_error(source.name, first)
    sheets = [OtherSheet(*one) for one in first["sheets"]]
    sheet = sheets.pop(first["sheet"]).name if sheets else ""
    return Workbook(source.name, sheet, tuple(sheets), _read_layout(first["layout"]), spool, rows_at)


def raise_error(name: str, record: dict[str, str]) -> None:
    """Raise the InputError that a record of the reader describes, if it does."""
    if damage := record.get("damage"):
        raise InputError(describe_damage(name, damage))
    if limit := record.get("limit"):
        raise InputError(_describe_limit(name, limit))
    if other := record.get("other"):
        raise InputError(f"{name}: {other}")


def describe_damage(name: str, damage: str) -> str:
    """Return the message for a workbook that is damaged."""
    return f"{name}: the workbook cannot be read ({damage}); {_REMEDY}"


def _describe_limit(name: str, limit: str) -> str:
    return (
        f"{name}: the workbook is too large to be read as a table ({limit}); check where it comes from, or "
        "copy its columns into a new workbook"
    )


def _decode_cell(cell: list[str]) -> str:
    return WorkbookDate(cell[0]) if len(cell) == 1 else UnreadableCell(cell[0], cell[1])


def _read_layout(values: dict[str, Any]) -> SheetLayout:
    return SheetLayout(
        values.get("hidden_rows", []),
        values.get("hidden_row_count", 0),
        [(first, last) for first, last in values.get("hidden_columns", [])],
        [(left, right, top, bottom) for left, right, top, bottom in values.get("merges", [])],
    )
