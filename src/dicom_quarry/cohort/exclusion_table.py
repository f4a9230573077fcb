"""The table of an exclusion list, read strictly: a column or a cell in doubt is an error with its remedy.

A cohort that is read wrongly shows in its report. An exclusion list that is read wrongly does not: a patient
who must not be fetched is fetched, and the job is complete.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dicom_quarry.cohort.cell_values import UnreadableCell, WorkbookDate, make_plain_check, parse_value
from dicom_quarry.cohort.cohort import describe_row_errors
from dicom_quarry.cohort.headers import (
    HEADER_ALIASES,
    find_keyword,
    normalize_header,
    replace_unprintable,
)
from dicom_quarry.cohort.read_options import ReadOptions
from dicom_quarry.cohort.similar_headers import find_possible_keyword, find_similar_keyword
from dicom_quarry.cohort.table import InputTable, open_table
from dicom_quarry.config.exclusion_files import ExclusionFile
from dicom_quarry.errors import InputError
from dicom_quarry.model import Request
from dicom_quarry.system.text_safety import escape_text

#: The identifiers that a list may contain, and their names in messages.
IDENTIFIER_LABELS = {
    "PatientID": "patient ID",
    "AccessionNumber": "accession",
    "StudyInstanceUID": "Study Instance UID",
}
#: Headers that may mean an identifier in a list of patients, and other things in a cohort.
_BARE_HEADERS = frozenset({"id", "ids", "identifier", "identifiers", "pat", "patient", "patients"})

_SEPARATOR = re.compile(r"[;,|/\\&+\s]+|\b(?:and|or|und|oder|et)\b", re.IGNORECASE)
_DIGIT = re.compile(r"\d")
_RANGE = re.compile(r"(\d+)-(\d+)")
_LINE_END = re.compile("[\n\r\x0b\x0c\x85\u2028\u2029]")
_DECIMAL = re.compile(r"\d+(?:\.\d+)+")
_WORD_OF_LISTS = re.compile(
    "all|any|ditto|idem|missing|pending|see|tba|tbd|todo|total|unknown|various", re.IGNORECASE
)
_ALONE = "write the identifier alone in its cell"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column with identifiers: its position, keyword and header; ``verbatim`` if a cell is one of them."""

    at: int
    keyword: str
    header: str
    verbatim: bool
    is_plain: Callable[[str], object]


def read_exclusion_table(
    file: ExclusionFile, options: ReadOptions, found: Mapping[str, set[str]]
) -> list[str]:
    """Add the values of a table to ``found``, by keyword; return notes for the user.

    ``options`` are those of the cohort, for headers. Raises InputError if anything is in doubt.
    """
    explicit = {normalize_header(header): keyword for header, keyword in options.mapping}

    def find_mapped_keyword(header: str) -> str:
        return explicit.get(normalize_header(header)) or find_keyword(header)

    # Hidden rows are read here, and refused below: no option decides about them.
    table, _ = open_table(file.file, find_mapped_keyword, hidden_rows="take")
    if unread := next(iter(table.unread_parts()), ""):
        raise InputError(f"{table.name}: {unread}")
    columns, unused = _choose_columns(table, file, find_mapped_keyword)
    named = [bool(normalize_header(header)) for header in table.header]
    rows = [
        _read_row(Request(number, line, (), ()), cells, table, columns, named, found)
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
    notes = [f"exclusion list {table.name}: {note}" for note in table.notes]
    if unused:
        notes.append(f"exclusion list {table.name}: columns that are not used: {', '.join(unused)}")
    return notes


def _choose_columns(
    table: InputTable, file: ExclusionFile, find_mapped_keyword: Callable[[str], str]
) -> tuple[list[_Column], list[str]]:
    """Return the columns with identifiers, and the headers of all others; raises InputError in doubt."""
    ignored = _find_decided_columns(table, file, "ignore")
    verbatim = _find_decided_columns(table, file, "verbatim")
    # Two columns of patients, such as MRN and EMPI, both count: neither needs to be chosen.
    columns, unused, bare = [], [], []
    for at, header in enumerate(table.header):
        shown = _show(header)
        keyword = "" if at in ignored else find_mapped_keyword(header)
        if at in table.hidden_columns and at not in ignored:
            raise InputError(_hidden_column_message(table, file, at))
        if keyword in IDENTIFIER_LABELS:
            columns.append(_Column(at, keyword, shown, at in verbatim, make_plain_check(keyword)))
            continue
        if (
            not keyword
            and at not in ignored
            and (similar := find_similar_keyword(header)) in IDENTIFIER_LABELS
        ):
            raise InputError(_doubtful_column_message(table, file, at, similar))
        possible = "PatientID" if normalize_header(header) in _BARE_HEADERS else find_possible_keyword(header)
        if at not in ignored and possible in IDENTIFIER_LABELS:
            bare.append((at, possible))
        if shown:
            unused.append(shown)
    if not columns:
        raise InputError(_no_known_column_message(table))
    if bare:
        raise InputError(_doubtful_column_message(table, file, *bare[0]))
    if others := verbatim - {one.at for one in columns}:
        raise InputError(
            f"{table.name}: verbatim names the column '{_show(table.header[min(others)])}', which is not a "
            "column of identifiers; remove it there"
        )
    return columns, unused


def _find_decided_columns(table: InputTable, file: ExclusionFile, setting: str) -> set[int]:
    """Return the positions of the columns that a setting of the file names; each must exist."""
    positions: set[int] = set()
    for name in getattr(file, setting):
        found = {at for at, one in enumerate(table.header) if normalize_header(one) == normalize_header(name)}
        if not found:
            raise InputError(
                f"{table.name}, line {table.header_line}: {setting} names the column '{_show(name)}', which "
                f"is not there; the table has {_list_headers(table)}. Correct exclude in the settings"
            )
        positions |= found
    return positions


def _read_row(
    row: Request,
    cells: list[str],
    table: InputTable,
    columns: Sequence[_Column],
    named: Sequence[bool],
    found: Mapping[str, set[str]],
) -> Request:
    """Add the values of a row to ``found``; returns the row with its problem, if any."""
    if any(cell.strip() for cell in cells[len(table.header) :]):
        problem = (
            f"{len(cells)} cells under {len(table.header)} headers; put a cell that contains a delimiter in "
            "quotes"
        )
        return Request(row.row, row.line, (), (), problem)
    problems = [
        f"column {at + 1} has a value, but no header; write a header above it, or clear the cell"
        for at, (cell, is_named) in enumerate(zip(cells, named, strict=False))
        if cell.strip() and not is_named
    ]
    values = 0
    for column in columns:
        cell = cells[column.at] if column.at < len(cells) else ""
        text, problem = _read_identifier(column, row.line, cell, table)
        if problem:
            problems.append(f"{table.cell_label(row.line, column.at)}: {problem}")
        elif text:
            values += 1
            found[column.keyword].add(text)
    if not problems and not values:
        problems.append("no patient, accession or study in this row; fill in a value, or remove the row")
    return Request(row.row, row.line, (), (), "; ".join(problems))


def _read_identifier(column: _Column, line: int, cell: str, table: InputTable) -> tuple[str, str]:
    """Return the identifier of a cell (empty if it has none), or else the problem."""
    text = cell.strip()
    if not table.has_doubtful_cells and column.is_plain(text) and not isinstance(cell, UnreadableCell):
        return text, ""
    if problem := table.find_cell_problem(line, column.at, cell):
        return "", problem
    if not isinstance(cell, UnreadableCell | WorkbookDate):
        cell = unicodedata.normalize("NFKC", cell)  # the form in which identifiers are compared
    value = parse_value(column.keyword, cell, any_length=True, verbatim=column.verbatim)
    if _LINE_END.search(text) and not column.verbatim:
        doubt = "has several lines; write each identifier in a row of its own"
    elif value.problem:
        # The cohort's option has no effect on a list.
        problem = value.problem.removesuffix(", or allow it with --allow-wildcards")
        return "", problem + (_verbatim_remedy(column) if value.is_doubt else "")
    else:
        doubt = "" if column.verbatim or not value.text else _find_doubt(column.keyword, value.text)
    return ("", f'"{escape_text(text)}" {doubt}{_verbatim_remedy(column)}') if doubt else (value.text, "")


def _find_doubt(keyword: str, text: str) -> str:
    """Describe the reason why a text may be something else than one identifier; empty if there is none."""
    if keyword == "StudyInstanceUID":
        return ""
    if sum(1 for part in _SEPARATOR.split(text) if _DIGIT.search(part)) > 1:
        return "seems to contain several values; write each in a row of its own"
    if ".." in text or (
        (match := _RANGE.fullmatch(text)) and len(match[1]) == len(match[2]) and match[1] < match[2]
    ):
        return "seems to be a range; write each identifier in a row of its own"
    if _DECIMAL.fullmatch(text):
        return "seems to be a number with a decimal or thousands separator; format the column as text"
    if not _DIGIT.search(text) and (
        _WORD_OF_LISTS.fullmatch(text) or find_keyword(text) or find_similar_keyword(text)
    ):
        return "is a word, not an identifier; clear the cell, or start a table of its own below a header"
    odd = next((char for char in text if not (char.isalnum() or char in "-_.")), "")
    if odd:
        return f"has a {'space' if odd.isspace() else repr(odd)} in it; {_ALONE}"
    if not (text[0].isalnum() and text[-1].isalnum()):
        return f"begins or ends with a punctuation mark; {_ALONE}"
    return ""


def _verbatim_remedy(column: _Column) -> str:
    if column.keyword == "StudyInstanceUID":
        return ""
    return f", or if it is one identifier, add verbatim = [{_quote(column.header)}] to this list in exclude"


def _doubtful_column_message(table: InputTable, file: ExclusionFile, at: int, keyword: str) -> str:
    header = _show(table.header[at])
    return (
        f"{table.name}, line {table.header_line}: the header '{header}' of column {at + 1} resembles "
        f"{keyword}, so its values may be meant to be excluded. If they are, rename it to {keyword}. If not, "
        f"write  {_ignore_setting(file, header)}"
    )


def _hidden_column_message(table: InputTable, file: ExclusionFile, at: int) -> str:
    header = _show(table.header[at])
    return (
        f"{table.name}, line {table.header_line}: the column '{header}' is hidden; show it, or delete it, or "
        f"write  {_ignore_setting(file, header)}"
    )


def _ignore_setting(file: ExclusionFile, header: str) -> str:
    """Return the setting that ignores one more column, and the file to write it into."""
    ignored = ", ".join(_quote(_show(name)) for name in (*file.ignore, header))
    return (
        f"exclude = [{{file = {_quote(file.file.name)}, ignore = [{ignored}]}}]  in quarry.toml (for a list "
        "of the site, in site.toml)"
    )


def _no_known_column_message(table: InputTable) -> str:
    accepted = "; ".join(
        f"{keyword} (or {', '.join(HEADER_ALIASES[keyword][1:])})" for keyword in IDENTIFIER_LABELS
    )
    return (
        f"{table.name}, line {table.header_line}: no column with the patients, accessions or studies to "
        f"exclude; the table has {_list_headers(table)}. Accepted names are {accepted}. If this line is data "
        "already, add a header line such as MRN above it"
    )


def _list_headers(table: InputTable) -> str:
    return ", ".join(f"'{_show(name)[:40]}'" for name in table.header[:12] if name.strip())


def _show(header: str) -> str:
    return replace_unprintable(" ".join(header.split()))


def _quote(text: str) -> str:
    """Return a text as a string of TOML."""
    return f"'{text}'" if '"' in text or "\\" in text else f'"{text}"'
