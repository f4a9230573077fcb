"""The rows of a job as compact columns of text, for the table of report.html; report.js reads them.

A number is written in base 36, and ``value*times`` stands for the same number several times. So 23,000 rows
take about 200 kB, and are collected one by one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from dicom_quarry.ledger.views import RowView
from dicom_quarry.outcomes import CATALOGUE
from dicom_quarry.reporting.formatting import escape_path
from dicom_quarry.reporting.html.markup import MAX_VALUE, Markup
from dicom_quarry.reporting.html.tones import tone_of
from dicom_quarry.reporting.summary import status_text
from dicom_quarry.system.text_safety import escape_text

#: Most rows in the table of a page; with more rows the table has the exceptions alone.
MAX_ROWS = 200_000

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

#: Significant digits of a size: three, as a multiple of a power of ten below ten to the fourteenth.
_EXPONENTS = 14


def base36(number: int) -> str:
    """Return a number in base 36, as JavaScript's parseInt(text, 36) reads it."""
    text = ""
    number, sign = abs(number), "-" if number < 0 else ""
    while number or not text:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return sign + text


def pack_size(size: int) -> int:
    """Return a size, rounded to three digits, as one small number: ``digits * 14 + exponent``."""
    exponent = max(0, len(str(size)) - 3)
    digits: int = round(size / 10**exponent)
    return digits * _EXPONENTS + exponent


class NumberColumn:
    """A column of numbers, packed as they are added."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._value = 0
        self._times = 0

    def add(self, value: int) -> None:
        """Add a number."""
        if value == self._value:
            self._times += 1
            return
        self._flush()
        self._value, self._times = value, 1

    def text(self) -> str:
        """Return the packed column."""
        self._flush()
        self._times = 0
        return ",".join(self._parts)

    def _flush(self) -> None:
        if self._times:
            times = "" if self._times == 1 else f"*{base36(self._times)}"
            self._parts.append(base36(self._value) + times)


class TextColumn:
    """A column of texts: each different one once, and the packed numbers of these."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._numbers = NumberColumn()

    def add(self, value: str) -> None:
        """Add a text."""
        self._numbers.add(self._known.setdefault(value, len(self._known)))

    @property
    def texts(self) -> list[str]:
        """The different texts, in the order of their numbers."""
        return list(self._known)

    @property
    def numbers(self) -> str:
        """The packed numbers."""
        return self._numbers.text()

    def data(self) -> dict[str, object]:
        """Return the column for JSON."""
        return {"texts": self.texts, "at": self.numbers}


class RowData:
    """The columns of the table. ``columns`` are the user's headers, None for a page without identifiers."""

    def __init__(self, columns: Sequence[str] | None) -> None:
        self.rows = 0
        self._columns = columns
        self._cells = [TextColumn() for _ in columns or ()]
        self._codes, self._reasons, self._folders = TextColumn(), TextColumn(), TextColumn()
        self._numbers = {
            name: NumberColumn() for name in ("row", "found", "open", "stored", "missing", "size", "same")
        }
        self._previous_row = 0

    def add(self, row: RowView) -> None:
        """Add a row."""
        self.rows += 1
        self._codes.add(row.outcome.code)
        values = {
            "row": row.row - self._previous_row,
            "found": row.studies_found,
            "open": row.studies_found - row.studies_complete,
            "stored": row.instances_stored,
            "missing": max(0, row.instances_expected - row.instances_stored),
            "size": pack_size(row.size),
            "same": row.same_as_row or 0,
        }
        for name, value in values.items():
            self._numbers[name].add(value)
        self._previous_row = row.row
        if self._columns is not None:
            for column, cell in zip(self._cells, row.cells, strict=False):
                column.add(escape_text(cell, limit=MAX_VALUE))
            self._reasons.add(escape_text(row.outcome.reason, limit=MAX_VALUE))
            self._folders.add(next((escape_path(one) for one in row.folders if one), ""))

    def json(self) -> Markup:
        """Return the data as JSON for a script element: no character of it can end the element."""
        data: dict[str, object] = {name: column.text() for name, column in self._numbers.items()}
        data["code"] = self._codes.numbers
        data["outcomes"] = [_outcome(code) for code in self._codes.texts]
        if self._columns is not None:
            data["columns"] = [escape_text(name, limit=MAX_VALUE) for name in self._columns]
            data["cells"] = [column.data() for column in self._cells]
            data["reasons"], data["folders"] = self._reasons.data(), self._folders.data()
        # ASCII alone: no line separator, and no surrogate that the file could not have.
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
        return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _outcome(code: str) -> dict[str, str]:
    definition = CATALOGUE[code]
    return {
        "code": code,
        "status": definition.status,
        "name": status_text(definition.status),
        "tone": tone_of(definition.status),
        "title": definition.title,
        "next": definition.next_step,
    }


class RowRanges:
    """Row numbers in ascending order, as ranges: ``3, 7–9``; at most so many ranges are kept."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._ranges: list[list[int]] = []
        self._is_cut = False

    def add(self, row: int) -> None:
        """Add a row number."""
        if self._ranges and row == self._ranges[-1][1] + 1 and not self._is_cut:
            self._ranges[-1][1] = row
        elif len(self._ranges) < self._most:
            self._ranges.append([row, row])
        else:
            self._is_cut = True

    def text(self) -> str:
        """Return the ranges."""
        shown = [f"{low}" if low == high else f"{low}–{high}" for low, high in self._ranges]
        return ", ".join([*shown, *(["…"] if self._is_cut else [])])
