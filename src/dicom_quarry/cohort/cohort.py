"""The rows of a table that cannot be used: as one message, and as lines of a CSV to work through."""

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

#: How many notes, and how many unusable rows, are told one by one.
MAX_SHOWN = 20


def describe_row_errors(requests: Iterable[Request]) -> str:
    """The rows that cannot be used as one message: the first few and a count; empty where there is none."""
    bad: list[Request] = []
    total = wrong = 0
    for request in requests:
        total += 1
        if request.problem:
            wrong += 1
            if len(bad) < MAX_SHOWN:
                bad.append(request)
    return _message(bad, wrong, total) if wrong else ""


def _message(bad: Sequence[Request], wrong: int, total: int) -> str:
    lines = [f"{wrong:,} of {total:,} rows cannot be used:"]
    lines += [f"  row {one.row}, line {one.line}: {one.problem}" for one in bad]
    if wrong > len(bad):
        lines.append(f"  … and {wrong - len(bad):,} more")
    return "\n".join(lines)


def row_error_lines(requests: Iterable[Request], columns: Sequence[str] = ()) -> Iterator[tuple[str, ...]]:
    """The rows that cannot be used, all of them, for the csv module: a header, then one line each.

    With the table's ``columns`` the user's own cells stand at the right, to be corrected there.
    """
    yield ("row", "line", "problem", *columns)
    for one in requests:
        if one.problem:
            yield (str(one.row), str(one.line), one.problem, *one.cells[: len(columns)])


#: Each of them names its studies.
_STUDY_KEYS = frozenset({"AccessionNumber", "StudyInstanceUID"})
#: With a date, these name a visit.
_VISIT_KEYS = frozenset({"PatientID", "PatientName", "StudyID"})
_PATIENT_KEYS = frozenset({"PatientID", "PatientName"})

_RANGE_KEYS = ("StudyDateFrom", "StudyDateUntil")


@dataclass(slots=True)
class _ParsedRow:
    """What the cells of one row gave: the values of each keyword in the order to be asked for."""

    values: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)


class RowParser:
    """Makes requests of the rows of one table; ``notes`` gathers what was repaired and rewritten."""

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
        # Most rows of most tables are plain: they are what the time of a million rows goes into.
        self._plain_columns = (
            [(at, keyword, make_plain_check(keyword)) for at, keyword in keys] if has_plain_columns else []
        )
        self._key_problems: dict[tuple[str, ...], str] = {}
        self.notes: list[str] = []

    def parse(self, row: int, line: int, cells: list[str]) -> Request:
        """The request of a row; where it cannot be used, one with the problem and no keys."""
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
        """The keys of a row with nothing to repair or to doubt; none where it needs a closer look."""
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
        """Make a row as wide as the header; a longer one keeps its text, in the last cell, but is not used.

        A delimiter too many may have shifted a value under another header: then nothing in the row is sure.
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
            f"{found} cells under {width} headers; quote a cell that has a delimiter inside, without spaces"
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
        """Every form of a value that can be asked for, the one as given first."""
        usable: dict[str, str] = {}
        for text, names in list_candidates(keyword, given, self._options.rewrites):
            value = parse_value(keyword, text, allow_wildcards=self._options.allow_wildcards)
            if value.text:
                usable.setdefault(value.text, names)
        if not usable:
            problem = parse_value(keyword, given, allow_wildcards=self._options.allow_wildcards).problem
            found.problems.append(
                f"{self._column_label(position)}: {problem or 'nothing is left of it, rewritten'}"
            )
            return
        found.values[keyword] = list(usable)
        (first, names), *others = usable.items()
        where = f"row {row}, {self._column_label(position)}"
        if names:
            found.rewritten.append(f"{keyword} {escape_text(given)} taken as {escape_text(first)} ({names})")
            self.notes.append(f'{where}: "{escape_text(given)}" taken as {escape_text(first)} ({names})')
        for text, names in others:
            self.notes.append(
                f'{where}: "{escape_text(first)}" also asked for as {escape_text(text)} ({names})'
            )

    def _merge_dates(self, found: _ParsedRow) -> None:
        """Whatever gives a row its dates, in one column or in two, becomes its StudyDate."""
        parts = {keyword: found.values.pop(keyword)[0] for keyword in DATE_KEYS & found.values.keys()}
        ends = [parts.pop(keyword, "") for keyword in _RANGE_KEYS]
        problem = ""
        if any(ends):
            parts["StudyDate, as a range"], problem = join_range(*ends)
        if problem:
            where = " and ".join(
                self._column_label(at) for at, keyword in self._keys if keyword in _RANGE_KEYS
            )
            found.problems.append(f"{where}: this {problem}")
        elif len(parts) > 1:
            columns = " and ".join(
                self._column_label(at) for at, keyword in self._keys if keyword in DATE_KEYS
            )
            found.problems.append(f"more than one of {columns} is filled; leave one study date in the row")
        elif parts:
            found.values["StudyDate"] = list(parts.values())

    def _key_problem(self, filled: tuple[str, ...]) -> str:
        """Why keys do not identify studies; rows that fill the same columns are judged once."""
        if filled not in self._key_problems:
            self._key_problems[filled] = self._find_key_problem(set(filled))
        return self._key_problems[filled]

    def _find_key_problem(self, filled: set[str]) -> str:
        """Why the keys of a row do not identify studies of one visit, or of one patient where that is meant.

        An accession or a study UID does, with or without other keys. So do patient and date together. What
        is asked of every row narrows it, but a date apart it does not say what a row with too little meant.
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
            return f"nothing in {empty}; fill it, or remove the row"
        if filled & _PATIENT_KEYS and "SeriesInstanceUID" not in filled:
            if self._options.whole_patients:
                return ""
            return (
                f"only a patient would fetch all of the patient's studies; {_remedy(empty)}, or allow it "
                "with --whole-patients"
            )
        if filled == {"StudyDate"}:
            return f"only a date would fetch the archive's whole day; {_remedy(empty)}"
        if filled == {"SeriesInstanceUID"}:
            return f"a series is found within its study; {_remedy(empty, 'StudyInstanceUID')}"
        only = " and ".join(sorted(filled))
        return f"only {only} would fetch whatever the archive has of it; {_remedy(empty)}"

    def _make_key_sets(self, values: dict[str, list[str]]) -> tuple[Keys, tuple[Keys, ...]]:
        """The keys to ask for, and those to ask for after them."""
        where = self._options.where
        if not self._rewritten_keywords:
            return (*((keyword, texts[0]) for keyword, texts in values.items()), *where), ()
        first, *others = combine_keys(tuple(values.items()))
        return (*first, *where), tuple((*keys, *where) for keys in others)

    def _column_label(self, position: int) -> str:
        return f"column '{escape_text(self._header[position].strip())}'"


def _merged_keyword(keyword: str) -> str:
    """The key that a column helps to make."""
    return "StudyDate" if keyword in DATE_KEYS else keyword


def _remedy(empty: str, column: str = "Accession") -> str:
    return f"fill {empty}" if empty else f"add a column such as {column}"


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
