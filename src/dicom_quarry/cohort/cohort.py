"""A table becomes a cohort: every row a request, usable or with the sentence that says why not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.cohort.columns import find_unused_columns, is_key_header, map_columns
from dicom_quarry.cohort.read_options import DATE_KEYS, DEFAULT_READ_OPTIONS, ReadOptions
from dicom_quarry.cohort.row_errors import MAX_SHOWN
from dicom_quarry.cohort.row_parser import RowParser
from dicom_quarry.cohort.table import open_table
from dicom_quarry.errors import InputError
from dicom_quarry.model import Request


@dataclass(frozen=True, slots=True)
class Cohort:
    """What a table asks for.

    ``columns`` are the user's headers as they stand, and every request has as many cells. ``mapping`` pairs
    the headers that are keys with their DICOM keywords. ``digest`` is the SHA-256 of the file, and of how it
    was told to be read. ``notes`` tell what was repaired while reading, the first few and a count.
    """

    columns: tuple[str, ...]
    mapping: tuple[tuple[str, str], ...]
    requests: tuple[Request, ...]
    digest: str
    notes: tuple[str, ...] = ()


class CohortFile:
    """A table whose header is understood; its rows are read one at a time, however many there are.

    The path ``-`` is standard input. ``name`` is the table in messages, ``where`` the keys of every row.
    """

    def __init__(self, path: Path, options: ReadOptions = DEFAULT_READ_OPTIONS) -> None:
        self._table, file_digest = open_table(path, lambda header: is_key_header(header, options.mapping))
        self._options = options
        self.name = self._table.name
        self.columns = self._table.header
        try:
            self._key_columns = map_columns(self.columns, options.mapping)
            self._check_duplicate_keys()
        except InputError as error:
            raise InputError(f"{self.name}, line {self._table.header_line}: {error}") from error
        self._notes: list[str] = []
        self._repair_count = 0
        self.mapping = tuple((self.columns[at].strip(), keyword) for at, keyword in self._key_columns)
        self.where = options.where
        self.digest = options.digest(file_digest)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was repaired and rewritten in the rows read so far, and what else to know of the table."""
        more = self._repair_count - len(self._notes)
        left = find_unused_columns(self.columns, self._key_columns)
        shown = ", ".join(f"'{name}'" for name in left)
        return (
            *self._table.notes,
            *((f"only carried along, unless --map makes a key of it: {shown}",) if left else ()),
            *self._notes,
            *((f"and {more:,} more values repaired",) if more else ()),
        )

    def read_requests(self) -> Iterator[Request]:
        """Every row that is not blank, in order. Raises InputError when there is none, or at damage below."""
        self._notes.clear()
        self._repair_count = number = 0
        rows = RowParser(self.columns, self._key_columns, self._table.delimiter, self._options)
        for number, (line, cells) in enumerate(self._table.rows(), 1):
            request = rows.parse(number, line, cells)
            if rows.notes:
                self._collect_notes(rows.notes)
            yield request
        if not number:
            raise InputError(
                f"{self.name}, line {self._table.header_line}: there is a header and no row below it; "
                "write a row for each study"
            )

    def _collect_notes(self, notes: list[str]) -> None:
        self._repair_count += len(notes)
        self._notes += notes[: MAX_SHOWN - len(self._notes)]
        notes.clear()

    def _check_duplicate_keys(self) -> None:
        """A key of every row cannot be a column's, too: which of the two values would be meant?"""
        given = dict(self._options.where)
        for position, keyword in self._key_columns:
            key = "StudyDate" if keyword in DATE_KEYS else keyword
            if key in given:
                name = self.columns[position].strip()
                raise InputError(f"{key} is in the column '{name}' and in --where; leave one of them out")


def read_cohort(path: Path, options: ReadOptions = DEFAULT_READ_OPTIONS) -> Cohort:
    """Read a whole table. Raises InputError where the table as such cannot be used.

    A row that cannot be used does not raise: its request carries the problem and no keys.
    """
    table = CohortFile(path, options)
    requests = tuple(table.read_requests())
    return Cohort(table.columns, table.mapping, requests, table.digest, table.notes)
