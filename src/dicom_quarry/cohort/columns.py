"""Header names and their aliases: which column of the user's table is which DICOM key."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from dicom_quarry.cohort.cell_values import FIELDS
from dicom_quarry.errors import ConfigError, InputError

#: Headers as people write them, for each key that identifies studies. They match without regard to case,
#: spaces, dashes, underscores and dots. Every other column is the user's own and is only carried along,
#: unless ``--map`` says otherwise: a 'Patient Name' or 'Study ID' of a table is seldom what a PACS has there.
ALIASES: dict[str, tuple[str, ...]] = {
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
#: The two columns of a range: a lone 'From' may be a ward.
_PAIR = ("StudyDateFrom", "StudyDateUntil")

_IGNORED = re.compile(r"[\s_.\-\u00ad\u200b-\u200f\u2060\ufeff]+")


def folded(header: str) -> str:
    """A header without what people write differently."""
    return _IGNORED.sub("", unicodedata.normalize("NFKC", header)).casefold()


_KEYWORDS = {folded(alias): keyword for keyword, aliases in ALIASES.items() for alias in aliases}
_FIELDS = {folded(keyword): keyword for keyword in FIELDS}


def keyword_of(header: str) -> str:
    """The DICOM keyword that a header stands for, or an empty string."""
    return _KEYWORDS.get(folded(header), "")


def field_of(name: str) -> str:
    """The key that somebody named in a flag; raises ConfigError listing the keys that there are."""
    found = keyword_of(name) or _FIELDS.get(folded(name), "")
    if not found:
        raise ConfigError(f"'{name.strip()}' is not a key of studies; there are {', '.join(FIELDS)}")
    return found


def parse_map(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read ``Acc No=AccessionNumber``: pairs of header and keyword."""
    pairs: dict[str, tuple[str, str]] = {}
    for text in texts:
        header, equals, keyword = text.rpartition("=")
        if not (equals and folded(header)):
            raise ConfigError(f"--map '{text}': write HEADER=KEYWORD, as in 'Acc No=AccessionNumber'")
        if folded(header) in pairs:
            raise ConfigError(f"--map '{text}': the column '{header.strip()}' is mapped twice")
        pairs[folded(header)] = (header.strip(), field_of(keyword))
    return tuple(pairs.values())


def map_columns(header: Sequence[str], given: Sequence[tuple[str, str]] = ()) -> tuple[tuple[int, str], ...]:
    """The columns that are keys: position and DICOM keyword, in the table's order.

    ``given`` is the user's word on headers; a keyword that it names has no other column. Raises InputError
    (its message lacks file and line) where there is none, or two for the same key.
    """
    said = {folded(name): keyword for name, keyword in given}
    _all_there(header, given)
    found: dict[str, int] = {}
    for position, name in enumerate(header):
        keyword = _meaning(name, said)
        if keyword and keyword in found:
            raise InputError(_two(header, found[keyword], position, keyword))
        if keyword:
            found[keyword] = position
    if not set(_PAIR) <= found.keys():
        found = {key: at for key, at in found.items() if key not in _PAIR or key in said.values()}
    if not found:
        raise InputError(_nothing_known(header))
    return tuple((position, keyword) for keyword, position in found.items())


def knows(header: str, given: Sequence[tuple[str, str]] = ()) -> bool:
    """Whether a header is a key."""
    return bool(_meaning(header, {folded(name): keyword for name, keyword in given}))


def _meaning(name: str, said: Mapping[str, str]) -> str:
    if keyword := said.get(folded(name), ""):
        return keyword
    keyword = keyword_of(name)
    return "" if keyword in said.values() else keyword


def unused(header: Sequence[str], used: Sequence[tuple[int, str]]) -> tuple[str, ...]:
    """Columns that are no keys although a DICOM key has their name: the user may have meant them to be."""
    positions = {position for position, _ in used}
    return tuple(
        printable(name.strip())
        for position, name in enumerate(header)
        if position not in positions and folded(name) in _FIELDS
    )


def _all_there(header: Sequence[str], given: Sequence[tuple[str, str]]) -> None:
    present = {folded(name) for name in header}
    for name, keyword in given:
        if folded(name) not in present:
            shown = ", ".join(f"'{printable(one.strip())[:40]}'" for one in header[:12] if one.strip())
            raise InputError(f"--map '{name}={keyword}': there is no column '{name}'; found {shown}")


def _two(header: Sequence[str], first: int, second: int, keyword: str) -> str:
    one, other = printable(header[first].strip()), printable(header[second].strip())
    if folded(one) == folded(other):
        remedy = "keep one of them as the key, and rename the other"
    else:
        remedy = f"say which is meant, as in --map '{one}={keyword}'"
    return f"the columns '{one}' ({first + 1}) and '{other}' ({second + 1}) both mean {keyword}; {remedy}"


def _nothing_known(header: Sequence[str]) -> str:
    names = [cell.strip() for cell in header]
    if any(any(char.isdigit() for char in name) for name in names):
        return "this looks like data, not like a header; add a header line such as EMPI,Accession above it"
    shown = ", ".join(f"'{printable(name)[:40]}'" for name in names[:12] if name)
    accepted = "; ".join(f"{keyword} (or {', '.join(names[1:])})" for keyword, names in ALIASES.items())
    return (
        f"no column is known; found {shown}; accepted are {accepted}; or say what a column is with --map "
        "'HEADER=KEYWORD'. If this line is data already, add a header line such as EMPI,Accession above it"
    )


def printable(text: str) -> str:
    """Text from outside for a message."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
