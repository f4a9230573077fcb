"""Header names and their aliases: which column of the user's table is which DICOM key."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from dicom_quarry.errors import InputError

#: Headers as people write them, for each key that may identify a study. They match without regard to case,
#: spaces, dashes, underscores and dots. Every other column is the user's own and is only carried along.
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
    "StudyInstanceUID": ("StudyInstanceUID", "StudyInstanceUIDs", "Study UID", "SUID"),
}

_IGNORED = re.compile(r"[\s_.\-\u00ad\u200b-\u200f\u2060\ufeff]+")


def _folded(header: str) -> str:
    return _IGNORED.sub("", unicodedata.normalize("NFKC", header)).casefold()


_KEYWORDS = {_folded(alias): keyword for keyword, aliases in ALIASES.items() for alias in aliases}


def keyword_of(header: str) -> str:
    """The DICOM keyword that a header stands for, or an empty string."""
    return _KEYWORDS.get(_folded(header), "")


def map_columns(header: Sequence[str]) -> tuple[tuple[int, str], ...]:
    """The columns that are keys: position and DICOM keyword, in the table's order.

    Raises InputError (its message lacks file and line) where there is none, or two for the same key.
    """
    found: dict[str, int] = {}
    for position, name in enumerate(header):
        keyword = keyword_of(name)
        if keyword and keyword in found:
            first, second = _printable(header[found[keyword]].strip()), _printable(name.strip())
            raise InputError(
                f"the columns '{first}' ({found[keyword] + 1}) and '{second}' ({position + 1}) both mean "
                f"{keyword}; keep one of them as the key, and rename the other"
            )
        if keyword:
            found[keyword] = position
    if not found:
        raise InputError(_nothing_known(header))
    return tuple((position, keyword) for keyword, position in found.items())


def _nothing_known(header: Sequence[str]) -> str:
    names = [cell.strip() for cell in header]
    if any(any(char.isdigit() for char in name) for name in names):
        return "this looks like data, not like a header; add a header line such as EMPI,Accession above it"
    shown = ", ".join(f"'{_printable(name)[:40]}'" for name in names[:12] if name)
    accepted = "; ".join(f"{keyword} (or {', '.join(names[1:])})" for keyword, names in ALIASES.items())
    return (
        f"no column is known; found {shown}; accepted are {accepted}. If this line is data already, add a "
        "header line such as EMPI,Accession above it"
    )


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
