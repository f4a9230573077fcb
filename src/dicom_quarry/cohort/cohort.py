"""A table becomes a cohort: every row a request, usable or with the sentence that says why not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.cohort.columns import map_columns
from dicom_quarry.cohort.table import Table, open_table
from dicom_quarry.cohort.values import read_value, visible
from dicom_quarry.errors import InputError
from dicom_quarry.model import Request

#: How many notes, and how many unusable rows, are told one by one.
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Cohort:
    """What a table asks for.

    ``columns`` are the user's headers as they stand, and every request has as many cells. ``mapping`` pairs
    the headers that are keys with their DICOM keywords. ``digest`` is the SHA-256 of the file. ``notes`` tell
    what was repaired while reading, the first few and a count.
    """

    columns: tuple[str, ...]
    mapping: tuple[tuple[str, str], ...]
    requests: tuple[Request, ...]
    digest: str
    notes: tuple[str, ...] = ()


class CohortFile:
    """A table whose header is understood; its rows are read one at a time, however many there are."""

    def __init__(self, path: Path, *, allow_wildcards: bool = False, whole_patients: bool = False) -> None:
        self._table: Table = open_table(path)
        try:
            self._keys = map_columns(self._table.header)
        except InputError as error:
            raise InputError(f"{path}, line {self._table.header_line}: {error}") from error
        self._allow_wildcards = allow_wildcards
        self._whole_patients = whole_patients
        self._notes: list[str] = []
        self._repairs = 0
        self.columns = self._table.header
        self.mapping = tuple((self.columns[at].strip(), keyword) for at, keyword in self._keys)
        self.digest = self._table.digest

    @property
    def notes(self) -> tuple[str, ...]:
        """What was repaired in the rows read so far."""
        more = self._repairs - len(self._notes)
        cp1252 = ("read as Windows-1252, as it is not UTF-8",) if self._table.encoding == "cp1252" else ()
        return (*cp1252, *self._notes, *((f"and {more:,} more values repaired",) if more else ()))

    def requests(self) -> Iterator[Request]:
        """Every row that is not blank, in order. Raises InputError when there is none, or at damage below."""
        self._notes.clear()
        self._repairs = number = 0
        for number, (line, cells) in enumerate(self._table.rows(), 1):
            yield self._request(number, line, cells)
        if not number:
            raise InputError(
                f"{self._table.path}, line {self._table.header_line}: there is a header and no row below it; "
                "write a row for each study"
            )

    def _request(self, row: int, line: int, cells: list[str]) -> Request:
        problems = self._fit(cells)
        keys: list[tuple[str, str]] = []
        for position, keyword in self._keys:
            value = read_value(keyword, cells[position], allow_wildcards=self._allow_wildcards)
            if value.text:
                keys.append((keyword, value.text))
            if value.problem:
                problems.append(f"{self._name(position)}: {value.problem}")
            if value.note:
                self._note(f"row {row}, {self._name(position)}: {value.note}")
        if not problems:
            problems = self._doubts({keyword for keyword, _ in keys})
        if problems:
            return Request(row, line, (), tuple(cells), "; ".join(problems))
        return Request(row, line, tuple(keys), tuple(cells))

    def _fit(self, cells: list[str]) -> list[str]:
        """Make a row as wide as the header; a longer one keeps its text, in the last cell, but is not used.

        A delimiter too many may have shifted a value under another header: then nothing in the row is sure.
        """
        width = len(self.columns)
        cells.extend([""] * (width - len(cells)))
        excess = cells[width:]
        del cells[width:]
        if not any(cell.strip() for cell in excess):
            return []
        cells[-1] = self._table.delimiter.join([cells[-1], *excess])
        found = width + len(excess)
        return [
            f"{found} cells under {width} headers; quote a cell that has a delimiter inside, without spaces"
        ]

    def _doubts(self, filled: set[str]) -> list[str]:
        """Why the keys of a row do not identify studies of one visit, or of one patient where that is meant.

        An accession or a study UID does, with or without the other keys. So do patient and date together.
        """
        if filled & {"AccessionNumber", "StudyInstanceUID"} or {"PatientID", "StudyDate"} <= filled:
            return []
        empty = " or ".join(self._name(at) for at, keyword in self._keys if keyword not in filled)
        if not filled:
            return [f"nothing in {empty}; fill it, or remove the row"]
        if filled == {"StudyDate"}:
            return [f"only a date would fetch the archive's whole day; {self._remedy(empty)}"]
        if self._whole_patients:
            return []
        return [
            f"only a patient would fetch all of the patient's studies; {self._remedy(empty)}, or allow it "
            "with --whole-patients"
        ]

    @staticmethod
    def _remedy(empty: str) -> str:
        return f"fill {empty}" if empty else "add a column such as Accession"

    def _name(self, position: int) -> str:
        return f"column '{visible(self.columns[position].strip())}'"

    def _note(self, note: str) -> None:
        self._repairs += 1
        if len(self._notes) < SHOWN:
            self._notes.append(note)


def read_cohort(path: Path, *, allow_wildcards: bool = False, whole_patients: bool = False) -> Cohort:
    """Read a whole table. Raises InputError where the table as such cannot be used.

    A row that cannot be used does not raise: its request carries the problem and no keys.
    """
    table = CohortFile(path, allow_wildcards=allow_wildcards, whole_patients=whole_patients)
    requests = tuple(table.requests())
    return Cohort(table.columns, table.mapping, requests, table.digest, table.notes)


def explain(requests: Iterable[Request]) -> str:
    """The rows that cannot be used as one message: the first few and a count; empty where there is none."""
    bad: list[Request] = []
    total = wrong = 0
    for request in requests:
        total += 1
        if request.problem:
            wrong += 1
            if len(bad) < SHOWN:
                bad.append(request)
    return _message(bad, wrong, total) if wrong else ""


def _message(bad: Sequence[Request], wrong: int, total: int) -> str:
    lines = [f"{wrong:,} of {total:,} rows cannot be used:"]
    lines += [f"  row {one.row}, line {one.line}: {one.problem}" for one in bad]
    if wrong > len(bad):
        lines.append(f"  … and {wrong - len(bad):,} more")
    return "\n".join(lines)
