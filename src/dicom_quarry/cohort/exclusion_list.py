"""Opt-out lists: patients, accessions and studies that must not be taken, whoever asks for them.

On the safe side: every value of a list counts by itself, in whichever case and with whatever padding it is
written, and with what the rewrites in force make of it. A list that cannot be read whole is an error, since
what it names must not be taken for nothing.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dicom_quarry.cohort.cell_values import read_value
from dicom_quarry.cohort.columns import ALIASES, folded, keyword_of, printable
from dicom_quarry.cohort.read_options import AS_IT_STANDS, ReadingOptions
from dicom_quarry.cohort.row_errors import explain
from dicom_quarry.cohort.table import Table, open_table
from dicom_quarry.cohort.value_rewrites import Rewrite, candidates
from dicom_quarry.errors import InputError
from dicom_quarry.model import Request, Study

#: What a list may name, and how that is called in sentences.
NAMED = {
    "PatientID": "patient ID",
    "AccessionNumber": "accession",
    "StudyInstanceUID": "Study Instance UID",
}


class Exclusions:
    """What must not be taken, by keyword. Each question answers in words: which identifier is on a list,
    such as ``patient ID``; empty if none is.
    """

    def __init__(
        self, values: Mapping[str, frozenset[str]] | None = None, rewrites: Sequence[Rewrite] = ()
    ) -> None:
        self._rewrites = tuple(rewrites)
        self._given = {keyword: found for keyword, found in (values or {}).items() if found}
        self._stopped = {
            keyword: frozenset(form for value in found for form in self._forms(keyword, value))
            for keyword, found in self._given.items()
        }

    def __bool__(self) -> bool:
        return bool(self._given)

    @property
    def digest(self) -> str:
        """Of what the lists name (SHA-256), wherever it stands in them; empty if they name nothing."""
        if not self:
            return ""
        text = repr([(keyword, sorted(self._given[keyword])) for keyword in sorted(self._given)])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def spoken(self) -> str:
        """How many of what are named."""
        counts = [(NAMED[keyword], len(found)) for keyword, found in self._given.items()]
        return ", ".join(f"{count:,} {noun}{'s' if count > 1 else ''}" for noun, count in counts)

    def names(self, values: Mapping[str, str]) -> str:
        """Which of these values, by keyword, is on a list."""
        for keyword, stopped in self._stopped.items():
            value = values.get(keyword, "")
            if value and not stopped.isdisjoint(self._forms(keyword, value)):
                return NAMED[keyword]
        return ""

    def request(self, request: Request) -> str:
        """Whether a row asks for what must not be taken, by any of the ways in which it may be asked for."""
        ways = (request.keys, *request.alternatives)
        return next(filter(None, (self.names(dict(keys)) for keys in ways)), "")

    def study(self, study: Study) -> str:
        """Whether a study must not be taken, as the archive describes it."""
        return self.names(
            {
                "PatientID": study.patient_id,
                "AccessionNumber": study.accession,
                "StudyInstanceUID": study.study_uid,
            }
        )

    def _forms(self, keyword: str, text: str) -> Iterator[str]:
        """How else a value is written; each of several values where there are several."""
        for value in {text, *text.split("\\")}:
            stripped = value.strip(" \0")
            if stripped:
                yield _folded(stripped)
                for form, _ in candidates(keyword, stripped, self._rewrites) if self._rewrites else ():
                    yield _folded(form)


#: Where nobody has opted out.
NOBODY = Exclusions()


def read_exclusions(paths: Sequence[Path], options: ReadingOptions = AS_IT_STANDS) -> Exclusions:
    """What all of these tables name; ``options`` are those of the cohort, for headers and rewrites.

    Raises InputError where one cannot be read, names nothing, or has a row that cannot be used.
    """
    found: dict[str, set[str]] = {keyword: set() for keyword in NAMED}
    for path in paths:
        try:
            _read(path, options, found)
        except InputError as error:
            raise InputError(f"the exclusion list cannot be used: {error}") from error
    return Exclusions({keyword: frozenset(values) for keyword, values in found.items()}, options.rewrites)


def _read(path: Path, options: ReadingOptions, found: dict[str, set[str]]) -> None:
    said = {folded(header): keyword for header, keyword in options.mapping}

    def meaning(header: str) -> str:
        return said.get(folded(header)) or keyword_of(header)

    table, _ = open_table(path, meaning)
    # Two columns of patients, such as MRN and EMPI, both count: no choice is to be made here.
    columns = [(at, key) for at, header in enumerate(table.header) if (key := meaning(header)) in NAMED]
    if not columns:
        raise InputError(_nothing_known(table))
    rows = [
        _row(number, line, cells, table, columns, found)
        for number, (line, cells) in enumerate(table.rows(), 1)
    ]
    if not rows:
        raise InputError(
            f"{table.name}: there is a header and no row below it, so nobody would be excluded; "
            "write the rows, or leave the list out"
        )
    if problems := explain(rows):
        raise InputError(f"{table.name}: {problems}\ncorrect them: who is on the list must be certain")


def _row(
    number: int,
    line: int,
    cells: list[str],
    table: Table,
    columns: Sequence[tuple[int, str]],
    found: dict[str, set[str]],
) -> Request:
    """Take the values of a row; only its number, and its problem if it has one, are handed back."""
    if any(cell.strip() for cell in cells[len(table.header) :]):
        problem = (
            f"{len(cells)} cells under {len(table.header)} headers; quote a cell with a delimiter inside"
        )
        return Request(number, line, (), (), problem)
    problems, values = [], 0
    for at, keyword in columns:
        value = read_value(keyword, cells[at] if at < len(cells) else "", any_length=True)
        if value.problem:
            problems.append(f"column '{printable(table.header[at].strip())}': {value.problem}")
        elif value.text:
            values += 1
            found[keyword].add(value.text)
    if not problems and not values:
        problems.append("it names nobody; fill it, or remove the row")
    return Request(number, line, (), (), "; ".join(problems))


def _nothing_known(table: Table) -> str:
    shown = ", ".join(f"'{printable(name.strip())[:40]}'" for name in table.header[:12] if name.strip())
    accepted = "; ".join(f"{keyword} (or {', '.join(ALIASES[keyword][1:])})" for keyword in NAMED)
    return (
        f"{table.name}, line {table.header_line}: no column tells who must not be taken; found {shown}; "
        f"accepted are {accepted}. If this line is data already, add a header line such as MRN above it"
    )


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().casefold()
