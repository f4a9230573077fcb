"""The user's table as requests: parsing of rows, row errors, and the table as a whole.

:class:`CohortFile` reads a table row by row, :func:`read_cohort` all of it. A row that cannot be used becomes
a request with a problem; :func:`describe_row_errors` and :func:`row_error_lines` show these rows to the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicom_quarry.cohort.cell_values import join_range, make_plain_check, parse_value
from dicom_quarry.cohort.columns import find_unused_columns, is_key_header, map_columns
from dicom_quarry.cohort.read_options import (
    DATE_KEYS,
    DEFAULT_READ_OPTIONS,
    Keys,
    ReadOptions,
    combine_keys,
    list_candidates,
)
from dicom_quarry.cohort.table import open_table
from dicom_quarry.errors import InputError
from dicom_quarry.model import Request
from dicom_quarry.system.text_safety import escape_text

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
    lines = [f"{wrong:,} of {total:,} rows cannot be used:"]
    lines += [f"  row {one.row}, line {one.line}: {one.problem}" for one in bad]
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


#: Keys that identify studies.
_STUDY_KEYS = frozenset({"AccessionNumber", "StudyInstanceUID"})
#: Keys that identify a visit together with a date.
_VISIT_KEYS = frozenset({"PatientID", "PatientName", "StudyID"})
_PATIENT_KEYS = frozenset({"PatientID", "PatientName"})

_RANGE_KEYS = ("StudyDateFrom", "StudyDateUntil")


@dataclass(slots=True)
class _ParsedRow:
    """The cells of one row as read: the values of each keyword, in the order of the queries."""

    values: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)


class RowParser:
    """A parser for the rows of one table; ``notes`` collects the values that it repaired or rewrote."""

    def __init__(
        self, header: Sequence[str], keys: Sequence[tuple[int, str]], delimiter: str, options: ReadOptions
    ) -> None:
        self._header = header
        self._keys = keys
        self._delimiter = delimiter
        self._options = options
        self._rewritten_keywords = frozenset().union(*(one.keywords for one in options.rewrites))
        self._has_date_columns = (
            len(DATE_KEYS.intersection(keyword for _, keyword in keys) - {"StudyDate"}) > 0
        )
        has_plain_columns = not (self._rewritten_keywords or self._has_date_columns or options.date_format)
        # Most rows of most tables are plain, so this shortcut decides the time for a million rows.
        self._plain_columns = (
            [(at, keyword, make_plain_check(keyword)) for at, keyword in keys] if has_plain_columns else []
        )
        self._key_problems: dict[tuple[str, ...], str] = {}
        self.notes: list[str] = []

    def parse(self, row: int, line: int, cells: list[str]) -> Request:
        """Return the request of a row; if it cannot be used, a request with the problem and no keys."""
        if self._plain_columns and len(cells) == len(self._header) and (keys := self._parse_plain_row(cells)):
            return Request(row, line, keys, tuple(cells))
        found = _ParsedRow()
        if len(cells) != len(self._header):
            found.problems += self._fit_to_header(cells)
        for position, keyword in self._keys:
            self._parse_cell(row, position, keyword, cells[position], found)
        if self._has_date_columns:
            self._merge_dates(found)
        problem = "; ".join(found.problems) or self._key_problem(tuple(found.values))
        if problem:
            return Request(row, line, (), tuple(cells), problem)
        keys, alternatives = self._make_key_sets(found.values)
        return Request(row, line, keys, tuple(cells), "", alternatives, "; ".join(found.rewritten))

    def _parse_plain_row(self, cells: list[str]) -> Keys:
        """Return the keys of a row that needs no repair and no check; empty if it needs the full parser."""
        keys = []
        for position, keyword, is_plain in self._plain_columns:
            cell = cells[position]
            if is_plain(cell):
                keys.append((keyword, cell))
            elif cell:
                return ()
        if self._key_problem(tuple([keyword for keyword, _ in keys])):
            return ()
        return (*keys, *self._options.where)

    def _fit_to_header(self, cells: list[str]) -> list[str]:
        """Make a row as wide as the header; returns the problem of a row that is longer, if it is.

        An extra delimiter may have moved values under other headers, so a longer row is not used; its text is
        kept in the last cell.
        """
        width = len(self._header)
        cells.extend([""] * (width - len(cells)))
        excess = cells[width:]
        del cells[width:]
        if not any(cell.strip() for cell in excess):
            return []
        cells[-1] = self._delimiter.join([cells[-1], *excess])
        found = width + len(excess)
        return [
            f"{found} cells under {width} headers; put a cell that contains a delimiter in quotes, without "
            "spaces around them"
        ]

    def _parse_cell(self, row: int, position: int, keyword: str, cell: str, found: _ParsedRow) -> None:
        options, rewritten = self._options, keyword in self._rewritten_keywords
        value = parse_value(
            keyword,
            cell,
            allow_wildcards=options.allow_wildcards,
            date_format=options.date_format,
            any_length=rewritten,
        )
        if value.problem:
            found.problems.append(f"{self._column_label(position)}: {value.problem}")
        if value.note:
            self.notes.append(f"row {row}, {self._column_label(position)}: {value.note}")
        if value.text and rewritten:
            self._add_rewrites(row, position, keyword, value.text, found)
        elif value.text:
            found.values[keyword] = [value.text]

    def _add_rewrites(self, row: int, position: int, keyword: str, given: str, found: _ParsedRow) -> None:
        """Add every form of a value that can be queried, the value as given first."""
        usable: dict[str, str] = {}
        for text, names in list_candidates(keyword, given, self._options.rewrites):
            value = parse_value(keyword, text, allow_wildcards=self._options.allow_wildcards)
            if value.text:
                usable.setdefault(value.text, names)
        if not usable:
            problem = parse_value(keyword, given, allow_wildcards=self._options.allow_wildcards).problem
            found.problems.append(
                f"{self._column_label(position)}: {problem or 'the value is empty after --rewrite'}"
            )
            return
        found.values[keyword] = list(usable)
        (first, names), *others = usable.items()
        where = f"row {row}, {self._column_label(position)}"
        if names:
            found.rewritten.append(
                f"{keyword} {escape_text(given)} changed to {escape_text(first)} ({names})"
            )
            self.notes.append(f'{where}: "{escape_text(given)}" changed to {escape_text(first)} ({names})')
        for text, names in others:
            self.notes.append(
                f'{where}: "{escape_text(first)}" also searched as {escape_text(text)} ({names})'
            )

    def _merge_dates(self, found: _ParsedRow) -> None:
        """Make one StudyDate of the date columns of a row."""
        parts = {keyword: found.values.pop(keyword)[0] for keyword in DATE_KEYS & found.values.keys()}
        ends = [parts.pop(keyword, "") for keyword in _RANGE_KEYS]
        problem = ""
        if any(ends):
            parts["StudyDate, as a range"], problem = join_range(*ends)
        if problem:
            where = " and ".join(
                self._column_label(at) for at, keyword in self._keys if keyword in _RANGE_KEYS
            )
            found.problems.append(f"{where}: this range {problem}")
        elif len(parts) > 1:
            columns = " and ".join(
                self._column_label(at) for at, keyword in self._keys if keyword in DATE_KEYS
            )
            found.problems.append(f"more than one of {columns} is filled; keep one study date in the row")
        elif parts:
            found.values["StudyDate"] = list(parts.values())

    def _key_problem(self, filled: tuple[str, ...]) -> str:
        """Return the problem of a row with these keys; computed once for rows that fill the same columns."""
        if filled not in self._key_problems:
            self._key_problems[filled] = self._find_key_problem(set(filled))
        return self._key_problems[filled]

    def _find_key_problem(self, filled: set[str]) -> str:
        """Return why the keys of a row do not identify studies; empty if they do.

        An accession or a study UID does, with or without other keys. So does a patient with a date, and with
        ``whole_patients`` a patient alone. Of the keys of ``--where``, only a date counts: the others narrow
        a query, but do not identify a study.
        """
        empty = " or ".join(
            self._column_label(at)
            for at, keyword in self._keys
            if not {keyword, _merged_keyword(keyword)} & filled
        )
        dated = {"StudyDate"} & {*filled, *dict(self._options.where)}
        if filled & _STUDY_KEYS or (filled & _VISIT_KEYS and dated):
            return ""
        if not filled:
            return f"no value in {empty}; fill in a value, or remove the row"
        if filled & _PATIENT_KEYS and "SeriesInstanceUID" not in filled:
            if self._options.whole_patients:
                return ""
            return (
                f"a patient alone would fetch all studies of the patient; {_remedy(empty)}, or allow it with "
                "--whole-patients"
            )
        if filled == {"StudyDate"}:
            return f"a date alone would fetch all studies of the archive on that day; {_remedy(empty)}"
        if filled == {"SeriesInstanceUID"}:
            return f"a series can be found only within its study; {_remedy(empty, 'StudyInstanceUID')}"
        only = " and ".join(sorted(filled))
        return f"{only} alone may match studies of many patients; {_remedy(empty)}"

    def _make_key_sets(self, values: dict[str, list[str]]) -> tuple[Keys, tuple[Keys, ...]]:
        """Return the keys to query first, and the alternatives to query after them."""
        where = self._options.where
        if not self._rewritten_keywords:
            return (*((keyword, texts[0]) for keyword, texts in values.items()), *where), ()
        first, *others = combine_keys(tuple(values.items()))
        return (*first, *where), tuple((*keys, *where) for keys in others)

    def _column_label(self, position: int) -> str:
        return f"column '{escape_text(self._header[position].strip())}'"


def _merged_keyword(keyword: str) -> str:
    """Return the key to which a column contributes."""
    return "StudyDate" if keyword in DATE_KEYS else keyword


def _remedy(empty: str, column: str = "Accession") -> str:
    return f"fill {empty}" if empty else f"add a column such as {column}"


@dataclass(frozen=True, slots=True)
class Cohort:
    """A whole table as requests.

    ``columns`` are the user's headers, unchanged, and every request has as many cells. ``mapping`` pairs the
    headers that are keys with their DICOM keywords. ``digest`` is the SHA-256 of the file and of the options
    that change its keys. ``notes`` describe what was repaired, the first few and a count.
    """

    columns: tuple[str, ...]
    mapping: tuple[tuple[str, str], ...]
    requests: tuple[Request, ...]
    digest: str
    notes: tuple[str, ...] = ()


class CohortFile:
    """A table whose header has been read; its rows are read one at a time, so it may have any number.

    The path ``-`` is standard input. ``name`` is the name for messages, ``where`` the keys of every row.
    Raises InputError if the table cannot be read, or has no key column.
    """

    def __init__(self, path: Path, options: ReadOptions = DEFAULT_READ_OPTIONS) -> None:
        self._table, file_digest = open_table(path, lambda header: is_key_header(header, options.mapping))
        self._options = options
        self.name = self._table.name
        self.columns = self._table.header
        try:
            self._key_columns = map_columns(self.columns, options.mapping, options.ignored)
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
        """Notes on the table, and on the values repaired or rewritten in the rows read so far."""
        more = self._repair_count - len(self._notes)
        return (
            *self._table.notes,
            *_unused_columns_note(
                find_unused_columns(self.columns, self._key_columns, self._options.ignored)
            ),
            *(f"column '{name}' is not searched by (--ignore-column)" for name in self._options.ignored),
            *self._notes,
            *((f"and {more:,} more values repaired",) if more else ()),
        )

    def read_requests(self) -> Iterator[Request]:
        """Yield a request for every row that is not blank, in order.

        Raises InputError if there is none, or at a line that is damaged.
        """
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
                f"{self.name}, line {self._table.header_line}: there is a header, but no row below it; "
                "add a row for each study"
            )

    def _collect_notes(self, notes: list[str]) -> None:
        self._repair_count += len(notes)
        self._notes += notes[: MAX_SHOWN - len(self._notes)]
        notes.clear()

    def _check_duplicate_keys(self) -> None:
        """Refuse a key that is given both by a column and by ``--where``; raises InputError."""
        given = dict(self._options.where)
        for position, keyword in self._key_columns:
            key = "StudyDate" if keyword in DATE_KEYS else keyword
            if key in given:
                name = self.columns[position].strip()
                raise InputError(f"{key} is both in the column '{name}' and in --where; remove one of them")


def _unused_columns_note(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    shown = ", ".join(f"'{name}'" for name in names)
    if len(names) == 1:
        return (f"column {shown} is copied to the report, but not searched by (use --map to search by it)",)
    return (f"columns {shown} are copied to the report, but not searched by (use --map to search by them)",)


def read_cohort(path: Path, options: ReadOptions = DEFAULT_READ_OPTIONS) -> Cohort:
    """Read a whole table; raises InputError if the table cannot be read.

    A row that cannot be used does not raise: its request has a problem and no keys.
    """
    table = CohortFile(path, options)
    requests = tuple(table.read_requests())
    return Cohort(table.columns, table.mapping, requests, table.digest, table.notes)
