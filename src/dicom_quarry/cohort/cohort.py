"""The user's table as requests: row errors, and the table as a whole.

:class:`CohortFile` reads a table row by row, :func:`read_cohort` all of it. A row that cannot be used becomes
a request with a problem; :func:`describe_row_errors` and :func:`row_error_lines` show these rows to the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.cohort.column_use import ColumnUse
from dicom_quarry.cohort.columns import is_key_header, map_columns
from dicom_quarry.cohort.date_columns import DateColumns
from dicom_quarry.cohort.headers import DATE_KEYS
from dicom_quarry.cohort.read_options import (
    DEFAULT_READ_OPTIONS,
    ReadOptions,
)
from dicom_quarry.cohort.row_parser import RowParser
from dicom_quarry.cohort.table import open_table
from dicom_quarry.errors import InputError
from dicom_quarry.model import Request
from dicom_quarry.plurals import format_count, format_part

#: Notes, and unusable rows, that a message lists; the others are counted.
MAX_SHOWN = 20


def describe_row_errors(requests: Iterable[Request]) -> str:
    """Return one message about the rows that cannot be used: the first few, and a count; empty if none."""
    bad: list[Request] = []
    total = wrong = 0
    for request in requests:
        total += 1
        if request.problem:
            wrong += 1
            if len(bad) < MAX_SHOWN:
                bad.append(request)
    if not wrong:
        return ""
    lines = [f"{format_part(wrong, total, 'row')} cannot be used:"]
    # A problem of the whole table is explained once.
    explained = {one.problem: one for one in reversed(bad)}
    lines += [
        f"  row {one.row}, line {one.line}: "
        + (one.problem if explained[one.problem] is one else f"the same as row {explained[one.problem].row}")
        for one in bad
    ]
    if wrong > len(bad):
        lines.append(f"  … and {wrong - len(bad):,} more")
    return "\n".join(lines)


def row_error_lines(requests: Iterable[Request], columns: Sequence[str] = ()) -> Iterator[tuple[str, ...]]:
    """Yield all rows that cannot be used, for the csv module: a header, then one line for each row.

    With the table's ``columns`` the user's own cells follow, so that they can be corrected there.
    """
    yield ("row", "line", "problem", *columns)
    for one in requests:
        if one.problem:
            yield (str(one.row), str(one.line), one.problem, *one.cells[: len(columns)])


@dataclass(frozen=True, slots=True)
class Cohort:
    """A whole table as requests.

    ``columns`` are the user's headers, unchanged, and every request has as many cells. ``mapping`` pairs the
    headers that are keys with their DICOM keywords. ``digest`` is the SHA-256 of the file and of the options
    that change its keys. ``notes`` describe what was repaired, the first few and a count. ``unused`` are the
    columns that are not searched by.
    """

    columns: tuple[str, ...]
    mapping: tuple[tuple[str, str], ...]
    requests: tuple[Request, ...]
    digest: str
    notes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


class CohortFile:
    """A table whose header has been read; its rows are read one at a time, so it may have any number.

    The path ``-`` is standard input. ``name`` is the name for messages, ``where`` the keys of every row.
    Raises InputError if the table cannot be read, or has no key column.
    """

    def __init__(self, path: Path, options: ReadOptions = DEFAULT_READ_OPTIONS) -> None:
        self._table, file_digest = open_table(
            path, lambda header: is_key_header(header, options.mapping), options.hidden_rows
        )
        self._options = options
        self.path = path
        self.name = self._table.name
        self.columns = self._table.header
        try:
            self._key_columns = self._map_columns()
            self._check_duplicate_keys()
        except InputError as error:
            raise InputError(f"{self.name}, line {self._table.header_line}: {error}") from error
        self._notes: list[str] = []
        self._repair_count = 0
        self.mapping = tuple((self.columns[at].strip(), keyword) for at, keyword in self._key_columns)
        self.where = options.where
        self._dates = DateColumns(self._table, self._key_columns)
        self._column_use = ColumnUse(self.columns, self._key_columns)
        self._file_digest = file_digest
        self.digest = options.digest(file_digest)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the table, and on the values repaired or rewritten in the rows read so far."""
        more = self._repair_count - len(self._notes)
        return (
            *self._table.notes,
            *self._notes,
            *((f"and {format_count(more, 'more value')} repaired",) if more else ()),
        )

    @property
    def unused(self) -> tuple[str, ...]:
        """The columns that the rows read so far are not searched by, as a message shows them."""
        return self._column_use.unused

    @property
    def choices(self) -> tuple[str, ...]:
        """The formats of dates that were found for columns in the rows read so far, as messages."""
        return () if self._options.date_format else self._dates.choices

    def digest_with(self, options: ReadOptions) -> str:
        """Return the digest that the same table has with other options."""
        return options.digest(self._file_digest)

    def read_requests(self) -> Iterator[Request]:
        """Yield a request for every row that is not blank, in order.

        Raises InputError if there is none, or at a line that is damaged.
        """
        self._notes.clear()
        self._repair_count = number = 0
        rows = RowParser(self._table, self._key_columns, self._options, self._dates)
        use = self._column_use
        for number, (line, cells) in enumerate(self._table.rows(), 1):
            if use.empty_columns:
                use.note_row(cells)
            request = rows.parse(number, line, cells)
            if rows.notes:
                self._collect_notes(rows.notes)
            yield request
        if not number:
            raise InputError(
                f"{self.name}, line {self._table.header_line}: there is a header, but no row below it; "
                "add a row for each study"
            )

    def _collect_notes(self, notes: list[str]) -> None:
        self._repair_count += len(notes)
        self._notes += notes[: MAX_SHOWN - len(self._notes)]
        notes.clear()

    def _map_columns(self) -> tuple[tuple[int, str], ...]:
        """Return the key columns; raises InputError for hidden ones, unless an option decides."""
        options, hidden = self._options, self._table.hidden_columns
        if options.hidden_rows == "skip":
            shown = ["" if at in hidden else name for at, name in enumerate(self.columns)]
            return map_columns(shown, options.mapping, options.ignored)
        found = map_columns(self.columns, options.mapping, options.ignored)
        if not options.hidden_rows and (
            names := [self.columns[at].strip() for at, _ in found if at in hidden]
        ):
            raise InputError(
                f"the column '{names[0]}' is hidden; show it, or use --hidden-rows take to search by it, or "
                "--hidden-rows skip to leave it out"
            )
        return found

    def _check_duplicate_keys(self) -> None:
        """Refuse a key that is given both by a column and by ``--where``; raises InputError."""
        given = dict(self._options.where)
        for position, keyword in self._key_columns:
            key = "StudyDate" if keyword in DATE_KEYS else keyword
            if key in given:
                name = self.columns[position].strip()
                raise InputError(f"{key} is both in the column '{name}' and in --where; remove one of them")


def read_cohort(path: Path, options: ReadOptions = DEFAULT_READ_OPTIONS) -> Cohort:
    """Read a whole table; raises InputError if the table cannot be read.

    A row that cannot be used does not raise: its request has a problem and no keys.
    """
    table = CohortFile(path, options)
    requests = tuple(table.read_requests())
    return Cohort(table.columns, table.mapping, requests, table.digest, table.notes, table.unused)
