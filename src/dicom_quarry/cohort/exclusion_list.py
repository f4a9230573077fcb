"""Exclusion lists (opt-outs): patients, accessions and studies that must never be fetched.

The lists err on the safe side. Every value of a list excludes by itself, in any case and with any padding,
and in every form that the rewrites of the job make of it. A list that cannot be read completely is an error,
so that no excluded patient is fetched by mistake.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dicom_quarry.cohort.cell_values import parse_value
from dicom_quarry.cohort.cohort import describe_row_errors
from dicom_quarry.cohort.columns import HEADER_ALIASES, find_keyword, normalize_header, replace_unprintable
from dicom_quarry.cohort.read_options import DEFAULT_READ_OPTIONS, ReadOptions, Rewrite, list_candidates
from dicom_quarry.cohort.table import InputTable, open_table
from dicom_quarry.errors import InputError
from dicom_quarry.model import Request, Study

#: The identifiers that a list may contain, and their names in messages.
IDENTIFIER_LABELS = {
    "PatientID": "patient ID",
    "AccessionNumber": "accession",
    "StudyInstanceUID": "Study Instance UID",
}


class ExclusionList:
    """The values that must not be fetched, by keyword.

    Each ``match`` method returns the name of the identifier that is on a list, such as ``patient ID``; empty
    if none is.
    """

    def __init__(
        self, values: Mapping[str, frozenset[str]] | None = None, rewrites: Sequence[Rewrite] = ()
    ) -> None:
        self._rewrites = tuple(rewrites)
        self._listed_values = {keyword: found for keyword, found in (values or {}).items() if found}
        self._excluded_values = {
            keyword: frozenset(form for value in found for form in self._spellings(keyword, value))
            for keyword, found in self._listed_values.items()
        }

    def __bool__(self) -> bool:
        return bool(self._listed_values)

    @property
    def digest(self) -> str:
        """The SHA-256 of all values, in any order; empty if there are none."""
        if not self:
            return ""
        text = repr(
            [(keyword, sorted(self._listed_values[keyword])) for keyword in sorted(self._listed_values)]
        )
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def description(self) -> str:
        """The number of identifiers of each kind, for messages."""
        counts = [(IDENTIFIER_LABELS[keyword], len(found)) for keyword, found in self._listed_values.items()]
        return ", ".join(f"{count:,} {noun}{'s' if count > 1 else ''}" for noun, count in counts)

    def match_values(self, values: Mapping[str, str]) -> str:
        """Match values by keyword."""
        for keyword, excluded in self._excluded_values.items():
            value = values.get(keyword, "")
            if value and not excluded.isdisjoint(self._spellings(keyword, value)):
                return IDENTIFIER_LABELS[keyword]
        return ""

    def match_request(self, request: Request) -> str:
        """Match a row, by its keys and by each of its alternatives."""
        key_sets = (request.keys, *request.alternatives)
        return next(filter(None, (self.match_values(dict(keys)) for keys in key_sets)), "")

    def match_study(self, study: Study) -> str:
        """Match a study as the archive describes it."""
        return self.match_values(
            {
                "PatientID": study.patient_id,
                "AccessionNumber": study.accession,
                "StudyInstanceUID": study.study_uid,
            }
        )

    def _spellings(self, keyword: str, text: str) -> Iterator[str]:
        """Yield every spelling of a value, and of each of its parts if it has several."""
        for value in {text, *text.split("\\")}:
            stripped = value.strip(" \0")
            if stripped:
                yield _normalize(stripped)
                for form, _ in list_candidates(keyword, stripped, self._rewrites) if self._rewrites else ():
                    yield _normalize(form)


#: A list that excludes nothing.
NO_EXCLUSIONS = ExclusionList()


def read_exclusions(paths: Sequence[Path], options: ReadOptions = DEFAULT_READ_OPTIONS) -> ExclusionList:
    """Read all of these tables; ``options`` are those of the cohort, for headers and rewrites.

    Raises InputError if a table cannot be read, has no rows, or has a row that cannot be used.
    """
    found: dict[str, set[str]] = {keyword: set() for keyword in IDENTIFIER_LABELS}
    for path in paths:
        try:
            _read_list(path, options, found)
        except InputError as error:
            raise InputError(f"the exclusion list cannot be used: {error}") from error
    return ExclusionList({keyword: frozenset(values) for keyword, values in found.items()}, options.rewrites)


def _read_list(path: Path, options: ReadOptions, found: dict[str, set[str]]) -> None:
    explicit = {normalize_header(header): keyword for header, keyword in options.mapping}

    def find_mapped_keyword(header: str) -> str:
        return explicit.get(normalize_header(header)) or find_keyword(header)

    table, _ = open_table(path, find_mapped_keyword)
    # Two columns of patients, such as MRN and EMPI, both count: neither needs to be chosen.
    columns = [
        (at, key)
        for at, header in enumerate(table.header)
        if (key := find_mapped_keyword(header)) in IDENTIFIER_LABELS
    ]
    if not columns:
        raise InputError(_no_known_column_message(table))
    rows = [
        _read_row(number, line, cells, table, columns, found)
        for number, (line, cells) in enumerate(table.rows(), 1)
    ]
    if not rows:
        raise InputError(
            f"{table.name}: there is a header, but no row below it, so nothing would be excluded; "
            "add the rows, or run without this list"
        )
    if problems := describe_row_errors(rows):
        raise InputError(
            f"{table.name}: {problems}\ncorrect them: every row of an exclusion list must be readable"
        )


def _read_row(
    number: int,
    line: int,
    cells: list[str],
    table: InputTable,
    columns: Sequence[tuple[int, str]],
    found: dict[str, set[str]],
) -> Request:
    """Add the values of a row to ``found``; returns a request with its number, and its problem if any."""
    if any(cell.strip() for cell in cells[len(table.header) :]):
        problem = (
            f"{len(cells)} cells under {len(table.header)} headers; put a cell that contains a delimiter in "
            "quotes"
        )
        return Request(number, line, (), (), problem)
    problems, values = [], 0
    for at, keyword in columns:
        value = parse_value(keyword, cells[at] if at < len(cells) else "", any_length=True)
        if value.problem:
            problems.append(f"column '{replace_unprintable(table.header[at].strip())}': {value.problem}")
        elif value.text:
            values += 1
            found[keyword].add(value.text)
    if not problems and not values:
        problems.append("no patient, accession or study in this row; fill in a value, or remove the row")
    return Request(number, line, (), (), "; ".join(problems))


def _no_known_column_message(table: InputTable) -> str:
    shown = ", ".join(
        f"'{replace_unprintable(name.strip())[:40]}'" for name in table.header[:12] if name.strip()
    )
    accepted = "; ".join(
        f"{keyword} (or {', '.join(HEADER_ALIASES[keyword][1:])})" for keyword in IDENTIFIER_LABELS
    )
    return (
        f"{table.name}, line {table.header_line}: no column with the patients, accessions or studies to "
        f"exclude; the table has {shown}. Accepted names are {accepted}. If this line is data already, add a "
        "header line such as MRN above it"
    )


def _normalize(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().casefold()
