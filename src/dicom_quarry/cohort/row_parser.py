"""A row becomes a request: cells read, keys put together, and judged: do they identify studies?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dicom_quarry.cohort.cell_values import plain, read_value, visible
from dicom_quarry.cohort.dates import joined
from dicom_quarry.cohort.read_options import DATE_PARTS, ReadingOptions
from dicom_quarry.cohort.value_rewrites import Keys, candidates, combinations
from dicom_quarry.model import Request

#: Each of them names its studies.
_NAMES = frozenset({"AccessionNumber", "StudyInstanceUID"})
#: With a date, these name a visit.
_WHOSE = frozenset({"PatientID", "PatientName", "StudyID"})
_PATIENT = frozenset({"PatientID", "PatientName"})

_ENDS = ("StudyDateFrom", "StudyDateUntil")


@dataclass(slots=True)
class _Found:
    """What the cells of one row gave: the values of each keyword in the order to be asked for."""

    values: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)


class Rows:
    """Makes requests of the rows of one table; ``notes`` gathers what was repaired and rewritten."""

    def __init__(
        self, header: Sequence[str], keys: Sequence[tuple[int, str]], delimiter: str, options: ReadingOptions
    ) -> None:
        self._header = header
        self._keys = keys
        self._delimiter = delimiter
        self._options = options
        self._rewritten = frozenset().union(*(one.keywords for one in options.rewrites))
        self._dated = len(DATE_PARTS.intersection(keyword for _, keyword in keys) - {"StudyDate"}) > 0
        as_they_stand = not (self._rewritten or self._dated or options.date_format)
        # Most rows of most tables are plain: they are what the time of a million rows goes into.
        self._plain = [(at, keyword, plain(keyword)) for at, keyword in keys] if as_they_stand else []
        self._doubted: dict[tuple[str, ...], str] = {}
        self.notes: list[str] = []

    def request(self, row: int, line: int, cells: list[str]) -> Request:
        """The request of a row; where it cannot be used, one with the problem and no keys."""
        if self._plain and len(cells) == len(self._header) and (keys := self._at_once(cells)):
            return Request(row, line, keys, tuple(cells))
        found = _Found()
        if len(cells) != len(self._header):
            found.problems += self._fit(cells)
        for position, keyword in self._keys:
            self._read(row, position, keyword, cells[position], found)
        if self._dated:
            self._put_dates_together(found)
        problem = "; ".join(found.problems) or self._doubts(tuple(found.values))
        if problem:
            return Request(row, line, (), tuple(cells), problem)
        keys, alternatives = self._sets(found.values)
        return Request(row, line, keys, tuple(cells), "", alternatives, "; ".join(found.rewritten))

    def _at_once(self, cells: list[str]) -> Keys:
        """The keys of a row with nothing to repair or to doubt; none where it needs a closer look."""
        keys = []
        for position, keyword, is_plain in self._plain:
            cell = cells[position]
            if is_plain(cell):
                keys.append((keyword, cell))
            elif cell:
                return ()
        if self._doubts(tuple([keyword for keyword, _ in keys])):
            return ()
        return (*keys, *self._options.where)

    def _fit(self, cells: list[str]) -> list[str]:
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

    def _read(self, row: int, position: int, keyword: str, cell: str, found: _Found) -> None:
        options, rewritten = self._options, keyword in self._rewritten
        value = read_value(
            keyword,
            cell,
            allow_wildcards=options.allow_wildcards,
            date_format=options.date_format,
            any_length=rewritten,
        )
        if value.problem:
            found.problems.append(f"{self._name(position)}: {value.problem}")
        if value.note:
            self.notes.append(f"row {row}, {self._name(position)}: {value.note}")
        if value.text and rewritten:
            self._rewrite(row, position, keyword, value.text, found)
        elif value.text:
            found.values[keyword] = [value.text]

    def _rewrite(self, row: int, position: int, keyword: str, given: str, found: _Found) -> None:
        """Every form of a value that can be asked for, the one as given first."""
        usable: dict[str, str] = {}
        for text, names in candidates(keyword, given, self._options.rewrites):
            value = read_value(keyword, text, allow_wildcards=self._options.allow_wildcards)
            if value.text:
                usable.setdefault(value.text, names)
        if not usable:
            problem = read_value(keyword, given, allow_wildcards=self._options.allow_wildcards).problem
            found.problems.append(f"{self._name(position)}: {problem or 'nothing is left of it, rewritten'}")
            return
        found.values[keyword] = list(usable)
        (first, names), *others = usable.items()
        where = f"row {row}, {self._name(position)}"
        if names:
            found.rewritten.append(f"{keyword} {visible(given)} taken as {visible(first)} ({names})")
            self.notes.append(f'{where}: "{visible(given)}" taken as {visible(first)} ({names})')
        for text, names in others:
            self.notes.append(f'{where}: "{visible(first)}" also asked for as {visible(text)} ({names})')

    def _put_dates_together(self, found: _Found) -> None:
        """Whatever gives a row its dates, in one column or in two, becomes its StudyDate."""
        parts = {keyword: found.values.pop(keyword)[0] for keyword in DATE_PARTS & found.values.keys()}
        ends = [parts.pop(keyword, "") for keyword in _ENDS]
        problem = ""
        if any(ends):
            parts["StudyDate, as a range"], problem = joined(*ends)
        if problem:
            where = " and ".join(self._name(at) for at, keyword in self._keys if keyword in _ENDS)
            found.problems.append(f"{where}: this {problem}")
        elif len(parts) > 1:
            columns = " and ".join(self._name(at) for at, keyword in self._keys if keyword in DATE_PARTS)
            found.problems.append(f"more than one of {columns} is filled; leave one study date in the row")
        elif parts:
            found.values["StudyDate"] = list(parts.values())

    def _doubts(self, filled: tuple[str, ...]) -> str:
        """Why keys do not identify studies; rows that fill the same columns are judged once."""
        if filled not in self._doubted:
            self._doubted[filled] = self._judged(set(filled))
        return self._doubted[filled]

    def _judged(self, filled: set[str]) -> str:
        """Why the keys of a row do not identify studies of one visit, or of one patient where that is meant.

        An accession or a study UID does, with or without other keys. So do patient and date together. What
        is asked of every row narrows it, but a date apart it does not say what a row with too little meant.
        """
        empty = " or ".join(
            self._name(at) for at, keyword in self._keys if not {keyword, _made(keyword)} & filled
        )
        dated = {"StudyDate"} & {*filled, *dict(self._options.where)}
        if filled & _NAMES or (filled & _WHOSE and dated):
            return ""
        if not filled:
            return f"nothing in {empty}; fill it, or remove the row"
        if filled & _PATIENT and "SeriesInstanceUID" not in filled:
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

    def _sets(self, values: dict[str, list[str]]) -> tuple[Keys, tuple[Keys, ...]]:
        """The keys to ask for, and those to ask for after them."""
        where = self._options.where
        if not self._rewritten:
            return (*((keyword, texts[0]) for keyword, texts in values.items()), *where), ()
        first, *others = combinations(tuple(values.items()))
        return (*first, *where), tuple((*keys, *where) for keys in others)

    def _name(self, position: int) -> str:
        return f"column '{visible(self._header[position].strip())}'"


def _made(keyword: str) -> str:
    """The key that a column helps to make."""
    return "StudyDate" if keyword in DATE_PARTS else keyword


def _remedy(empty: str, column: str = "Accession") -> str:
    return f"fill {empty}" if empty else f"add a column such as {column}"
