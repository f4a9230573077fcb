"""Names of columns: the headers that are keys, and a header as messages and options show it."""

from __future__ import annotations

import re
import shlex
import unicodedata

from dicom_quarry.cohort.cell_values import QUERY_KEYS

#: Headers as people write them, for each key that identifies studies. They match without regard to case,
#: spaces, dashes, underscores and dots. Every other column is only copied to the report, unless ``--map``
#: makes it a key: the 'Patient Name' or 'Study ID' of a table often differs from that of the PACS.
HEADER_ALIASES: dict[str, tuple[str, ...]] = {
    "PatientID": ("PatientID", "EMPI", "MRN", "Patient Identifier", "Patient MRN", "Medical Record Number"),
    "AccessionNumber": (
        "AccessionNumber",
        "Accession",
        "Accessions",
        "Accession Numbers",
        "Accession No",
        "Accession#",
        "Acc#",
        "Acc No",
        "Acc Number",
    ),
    "StudyDate": ("StudyDate", "Study Dates", "Exam Date"),
    "StudyMonth": ("StudyMonth", "Study Months", "Exam Month"),
    "StudyDateFrom": ("StudyDateFrom", "From", "Date From", "From Date"),
    "StudyDateUntil": (
        "StudyDateUntil",
        "Until",
        "Date Until",
        "Until Date",
        "To",
        "Date To",
        "To Date",
        "Study Date To",
    ),
    "StudyInstanceUID": ("StudyInstanceUID", "StudyInstanceUIDs", "Study UID", "SUID"),
    "SeriesInstanceUID": ("SeriesInstanceUID", "SeriesInstanceUIDs", "Series UID"),
}
#: The two columns of a range; one without the other is not a date, as 'From' may be a ward.
RANGE_COLUMNS = ("StudyDateFrom", "StudyDateUntil")
#: The columns of dates, which together make one StudyDate.
DATE_KEYS = frozenset({"StudyDate", "StudyMonth", *RANGE_COLUMNS})

#: The columns that a report of Quarry adds to the table; a report can be used as a table again.
REPORT_PREFIX = "quarry_"

_IGNORED = re.compile(r"[\s_.\-\u00ad\u200b-\u200f\u2060\ufeff]+")


def normalize_header(header: str) -> str:
    """Return a header without case, spaces, dashes, underscores, dots and invisible characters."""
    return _IGNORED.sub("", unicodedata.normalize("NFKC", header)).casefold()


KEYWORDS_BY_HEADER = {
    normalize_header(alias): keyword for keyword, aliases in HEADER_ALIASES.items() for alias in aliases
}
KEYWORDS_BY_NAME = {normalize_header(keyword): keyword for keyword in QUERY_KEYS}


def find_keyword(header: str) -> str:
    """Return the DICOM keyword of a header; empty if it has none."""
    return KEYWORDS_BY_HEADER.get(normalize_header(header), "")


def replace_unprintable(text: str) -> str:
    """Make text from outside safe for a message."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def show_header(name: str) -> str:
    """Return a header for a message, on one line, as an option can repeat it."""
    return replace_unprintable(" ".join(name.split()))


def quote_option(text: str) -> str:
    """Return the value of an option, in quotes for a shell."""
    return f"'{text}'" if "'" not in text else shlex.quote(text)


def name_keyword(keyword: str) -> str:
    """Return a keyword as words: ``Accession Number``, ``Study Instance UID``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", keyword)


def suggest_map(header: str, keyword: str) -> str:
    """Return the option that makes a column a key, as a user can type it."""
    return f"--map {quote_option(f'{show_header(header)}={keyword}')}"


def suggest_ignore(header: str) -> str:
    """Return the option that decides that a column is not a key, as a user can type it."""
    return f"--ignore-column {quote_option(show_header(header))}"
