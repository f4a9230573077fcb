"""The columns of dates of a table: read as a whole where the form of a date is not clear."""

from __future__ import annotations

from collections.abc import Sequence

from dicom_quarry.cohort.cell_values import QUERY_KEYS, WorkbookDate, unwrap
from dicom_quarry.cohort.date_formats import DateFormats
from dicom_quarry.cohort.dates import parse_date_key, parse_day, split_range
from dicom_quarry.cohort.headers import RANGE_COLUMNS, show_header
from dicom_quarry.cohort.table import InputTable


class DateColumns:
    """The formats of a table's columns of dates, found at the first date whose form is not clear.

    A column costs one more pass over the table, which most tables do not need. The two columns of a range
    have one format.
    """

    def __init__(self, table: InputTable, keys: Sequence[tuple[int, str]]) -> None:
        self._table = table
        self._keys = [(at, keyword) for at, keyword in keys if QUERY_KEYS[keyword][0] == "DA"]
        self._found: dict[tuple[tuple[int, str], ...], DateFormats] = {}

    def find(self, position: int) -> DateFormats:
        """Return the formats that fit the column at this position."""
        group = self._group_of(position)
        if group not in self._found:
            self._found[group] = self._read(group)
        return self._found[group]

    @property
    def choices(self) -> tuple[str, ...]:
        """The formats that were taken so far, each as a message without values of the table."""
        return tuple(
            formats.describe_choice(" and ".join(show_header(self._table.header[at]) for at, _ in group))
            for group, formats in self._found.items()
            if formats.settled
        )

    def describe_problem(self, position: int, cell: str) -> str:
        """Describe why a date cannot be read, with the formats that fit; empty if its form is unknown."""
        formats = self.find(position)
        problems = (formats.describe_problem(part) for part in _split(unwrap(cell.strip())))
        return next(filter(None, problems), "")

    def _group_of(self, position: int) -> tuple[tuple[int, str], ...]:
        keyword = dict(self._keys)[position]
        if keyword not in RANGE_COLUMNS:
            return ((position, keyword),)
        return tuple((at, other) for at, other in self._keys if other in RANGE_COLUMNS)

    def _read(self, columns: Sequence[tuple[int, str]]) -> DateFormats:
        formats = DateFormats()
        for line, cells in self._table.rows():
            for position, keyword in columns:
                cell = cells[position] if position < len(cells) else ""
                text = unwrap(cell.strip())
                if not text:
                    continue
                if isinstance(cell, WorkbookDate) or not parse_date_key(keyword, text)[1]:
                    formats.has_clear_dates = True
                    continue
                for part in _split(text):
                    formats.add(line, part)
        return formats


def _split(text: str) -> tuple[str, ...]:
    """Return the days of a cell whose form is not clear: one, or those of both ends of a range."""
    return tuple(part for part in split_range(text) or (text,) if part and parse_day(part)[1])
