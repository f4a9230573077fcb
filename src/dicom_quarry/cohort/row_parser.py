"""Parsing the rows of a table: the cells of each row become a request, or a problem."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from dicom_quarry.cohort.cell_values import QUERY_KEYS, CellValue, make_plain_check, parse_value
from dicom_quarry.cohort.column_use import list_other_headers
from dicom_quarry.cohort.columns import find_columns
from dicom_quarry.cohort.date_columns import DateColumns
from dicom_quarry.cohort.dates import join_range
from dicom_quarry.cohort.headers import (
    DATE_KEYS,
    find_keyword,
    suggest_ignore,
    suggest_map,
)
from dicom_quarry.cohort.read_options import (
    Keys,
    ReadOptions,
    combine_keys,
    list_candidates,
)
from dicom_quarry.cohort.similar_headers import guess_keyword
from dicom_quarry.cohort.table import InputTable
from dicom_quarry.model import Request
from dicom_quarry.system.text_safety import escape_text

#: Keys that identify studies.
_STUDY_KEYS = frozenset({"AccessionNumber", "StudyInstanceUID"})
#: Keys that identify a visit together with a date.
_VISIT_KEYS = frozenset({"PatientID", "PatientName", "StudyID"})
_PATIENT_KEYS = frozenset({"PatientID", "PatientName"})

_IDENTIFIERS = _STUDY_KEYS | {"PatientID", "SeriesInstanceUID"}
_RANGE_KEYS = ("StudyDateFrom", "StudyDateUntil")


@dataclass(slots=True)
class _ParsedRow:
    """The cells of one row as read: the values of each keyword, in the order of the queries."""

    values: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)


class RowParser:
    """A parser for the rows of one table; ``notes`` collects the values that it repaired or rewrote.

    Raises InputError if an option names a column that does not exist.
    """

    def __init__(
        self, table: InputTable, keys: Sequence[tuple[int, str]], options: ReadOptions, dates: DateColumns
    ) -> None:
        self._table = table
        self._header = table.header
        self._keys = keys
        self._dates = dates
        self._options = options
        self._verbatim = find_columns(table.header, "--verbatim", options.verbatim)
        self._rewritten_keywords = frozenset().union(*(one.keywords for one in options.rewrites))
        self._has_date_columns = (
            len(DATE_KEYS.intersection(keyword for _, keyword in keys) - {"StudyDate"}) > 0
        )
        has_plain_columns = not (
            self._rewritten_keywords
            or self._has_date_columns
            or options.date_format
            or table.has_doubtful_cells
        )
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
            self._parse_cell((row, line, position), keyword, cells[position], found)
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
        cells[-1] = self._table.delimiter.join([cells[-1], *excess])
        found = width + len(excess)
        return [
            f"{found} cells under {width} headers; put a cell that contains a delimiter in quotes, without "
            "spaces around them"
        ]

    def _parse_cell(self, place: tuple[int, int, int], keyword: str, cell: str, found: _ParsedRow) -> None:
        """Read a cell; ``place`` is the row, the line and the position of the column."""
        row, line, position = place
        label = self._table.cell_label(line, position)
        options, rewritten = self._options, keyword in self._rewritten_keywords
        value = parse_value(
            keyword,
            cell,
            allow_wildcards=options.allow_wildcards,
            date_format=options.date_format,
            any_length=rewritten,
            long_identifiers=options.long_identifiers,
            verbatim=position in self._verbatim,
        )
        if value.problem and QUERY_KEYS[keyword][0] == "DA":
            value = self._parse_by_column(position, keyword, cell, value)
        problem = value.problem or self._table.find_cell_problem(line, position, value.text)
        if value.is_doubt:
            problem += f"; if it is right, use --verbatim '{self._header[position].strip()}'"
        if not problem and _is_key_name(value.text):
            problem = f'"{escape_text(value.text)}" is the name of a column, not a value; remove this line'
        if problem:
            found.problems.append(f"{label}: {problem}")
            return
        if value.note:
            self.notes.append(f"row {row}, {label}: {value.note}")
        if value.text and rewritten:
            self._add_rewrites(f"row {row}", label, keyword, value.text, found)
        elif value.text:
            found.values[keyword] = [value.text]

    def _parse_by_column(self, position: int, keyword: str, cell: str, value: CellValue) -> CellValue:
        """Read a date whose form is not clear in the format of its column; or suggest formats."""
        given = self._options.date_format
        if not given and (form := self._dates.find(position).settled):
            return parse_value(keyword, cell, date_format=form)
        if problem := self._dates.describe_problem(position, cell):
            if given:
                problem = problem.replace("a clear date", f"a date in the format {given}", 1)
            return CellValue(problem=f'"{escape_text(cell.strip())}" {problem}')
        return value

    def _parse_rewritten(self, keyword: str, text: str) -> CellValue:
        options = self._options
        return parse_value(
            keyword,
            text,
            allow_wildcards=options.allow_wildcards,
            long_identifiers=options.long_identifiers,
        )

    def _add_rewrites(self, row: str, label: str, keyword: str, given: str, found: _ParsedRow) -> None:
        """Add every form of a value that can be queried, the value as given first."""
        usable: dict[str, str] = {}
        for text, names in list_candidates(keyword, given, self._options.rewrites):
            value = self._parse_rewritten(keyword, text)
            if value.text:
                usable.setdefault(value.text, names)
        if not usable:
            problem = self._parse_rewritten(keyword, given).problem
            found.problems.append(f"{label}: {problem or 'the value is empty after --rewrite'}")
            return
        found.values[keyword] = list(usable)
        (first, names), *others = usable.items()
        where = f"{row}, {label}"
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
            # All studies of the patient are not suggested while a column is left that may name the study.
            others = self._suggest({"AccessionNumber", "StudyDate"}, ", or allow it with --whole-patients")
            return f"a patient alone would fetch all studies of the patient; {_remedy(empty)}{others}"
        if filled == {"StudyDate"}:
            others = self._suggest({"AccessionNumber", "PatientID"}, "")
            return (
                f"a date alone would fetch all studies of the archive on that day; {_remedy(empty)}{others}"
            )
        if filled == {"SeriesInstanceUID"}:
            return f"a series can be found only within its study; {_remedy(empty, 'StudyInstanceUID')}"
        only = " and ".join(sorted(filled))
        return f"{only} alone may match studies of many patients; {_remedy(empty)}"

    def _suggest(self, keys_enough: AbstractSet[str], otherwise: str) -> str:
        """Return a further remedy for rows without the keys that they need: a column that is not used.

        Returns ``otherwise`` if the user has decided on every column, or the table has ``keys_enough``.
        """
        keys = {_merged_keyword(keyword) for _, keyword in self._keys}
        positions = {at for at, _ in self._keys}
        positions |= find_columns(self._header, "--ignore-column", self._options.ignored)
        left = list_other_headers(self._header, positions)
        if not left or keys_enough <= keys:
            return otherwise
        names = ", ".join(f"'{escape_text(name.strip())}'" for name in left)
        guesses = [(name, guess_keyword(name)) for name in left]
        maps = [suggest_map(name, keyword) for name, keyword in guesses if keyword and keyword not in keys]
        search = f"to search by one add {maps[0]}, " if maps else ""
        them = "them" if len(left) > 1 else "it"
        return (
            f". Not used for searching: {names}; {search}to leave {them} out add "
            f"{' '.join(suggest_ignore(name) for name in left)}"
        )

    def _make_key_sets(self, values: dict[str, list[str]]) -> tuple[Keys, tuple[Keys, ...]]:
        """Return the keys to query first, and the alternatives to query after them."""
        where = self._options.where
        if not self._rewritten_keywords:
            return (*((keyword, texts[0]) for keyword, texts in values.items()), *where), ()
        first, *others = combine_keys(tuple(values.items()))
        return (*first, *where), tuple((*keys, *where) for keys in others)

    def _column_label(self, position: int) -> str:
        return f"column '{escape_text(self._header[position].strip())}'"


def _is_key_name(text: str) -> bool:
    """Return whether a value is the name of an identifier's column, as in a second line of headers."""
    return not text.isdigit() and find_keyword(text) in _IDENTIFIERS


def _merged_keyword(keyword: str) -> str:
    """Return the key to which a column contributes."""
    return "StudyDate" if keyword in DATE_KEYS else keyword


def _remedy(empty: str, column: str = "Accession") -> str:
    return f"fill {empty}" if empty else f"add a column such as {column}"
