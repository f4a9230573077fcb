"""The spelling of values in the query of a URL (RFC 3986 3.4), as one server reads them.

Values are UTF-8, and characters that a query may have are not encoded (PS3.18 8.3.4.1). Servers are known
that find nothing by such a value: some decode no ``%2F``, no ``%20`` or nothing at all, others want every
special character encoded, or read Latin-1. Where a spelling finds nothing the next one is tried, and the one
that finds something is used for these characters from then on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from fnmatch import translate
from urllib.parse import quote

from dicom_quarry.archive.base import QueryRows
from dicom_quarry.archive.dimse.identifier import tag
from dicom_quarry.archive.instance_listing import get_text
from dicom_quarry.wire.data_dictionary import vr_of_tag

#: Characters that a value may have as they are. "&", "=", ";" and "+" have another meaning for many servers.
_PLAIN = "/:@!$'()*,?"
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
#: What wildcards replace; a comma may separate values.
_REPLACED = re.compile(rf"[^A-Za-z0-9._~{re.escape(_PLAIN)}-]|,")
_UID_LIST = re.compile(r"[0-9.,]*")
_WILDCARDS = re.compile(r"[*?]*[*][*?]*")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")

#: Characters that a value must keep to be sent with wildcards: it must not match half the archive.
_LEAST_LITERAL = 3

Query = Sequence[tuple[str, str]]


class Spelling(Enum):
    """One way to write the values of a query, in the order in which they are tried."""

    PLAIN = auto()  # only what RFC 3986 forbids is percent-encoded
    ENCODED = auto()  # every special character is
    LATIN_1 = auto()
    WILDCARD = auto()  # nothing is: other characters are replaced by wildcards


class QuerySpelling:
    """The spellings that one server is known to read, by character."""

    def __init__(self) -> None:
        self._known: dict[Spelling, frozenset[str]] = dict.fromkeys(Spelling, frozenset())

    def candidates(self, query: Query) -> list[tuple[Spelling, list[tuple[str, str]]]]:
        """Return a query in every spelling that is to be tried; at most one where the server's is known.

        None remains if the server reads the characters in a spelling that this value cannot have.
        """
        special = _special_characters(query)
        known = [spelling for spelling, characters in self._known.items() if special <= characters]
        found: list[tuple[Spelling, list[tuple[str, str]]]] = []
        for spelling in known[:1] or sorted(Spelling, key=lambda one: -len(self._known[one] & special)):
            try:
                encoded = _ENCODERS[spelling](query)
            except ValueError:  # this value cannot be written so
                continue
            if encoded not in (other for _, other in found):
                found.append((spelling, encoded))
        return found

    def learn(self, spelling: Spelling, query: Query) -> None:
        """Note that the server reads the characters of this query in this spelling."""
        self._known[spelling] |= _special_characters(query)


def answers_query(spelling: Spelling, query: Query, rows: Sequence[Mapping[int, str]]) -> bool:
    """Return True if a result has the values with special characters: the server has read them.

    A result without such an attribute counts, unless the query was wider than the request.
    """
    absent = spelling is not Spelling.WILDCARD
    return any(_has_values(row, _special_keys(query), absent=absent) for row in rows)


def keep_matching(query: Query, found: QueryRows) -> None:
    """Remove the results that only a wider query than the request has found."""
    special = _special_keys(query)
    kept = [row for row in found.rows if _has_values(row, special, absent=True)]
    found.repeated += len(found.rows) - len(kept)  # they count for the archive's limit
    found.rows = kept


def _special_keys(query: Query) -> Query:
    return [(keyword, text) for keyword, text in query if _special_characters([(keyword, text)])]


def _has_values(row: Mapping[int, str], query: Query, *, absent: bool) -> bool:
    return all(_has_value(row, keyword, text, absent) for keyword, text in query)


def _has_value(row: Mapping[int, str], keyword: str, wanted: str, absent: bool) -> bool:
    text = get_text(row, keyword)
    if not text:
        return absent
    vr = vr_of_tag(tag(keyword))
    if vr in ("UI", "DA", "TM"):  # lists and ranges
        return True
    pattern = re.compile(translate(wanted.strip().replace("[", "[[]")), re.IGNORECASE)
    values = text.split("\\")
    if vr == "PN":
        values += [group for value in values for group in value.split("=")]
    return any(pattern.fullmatch(value.strip(" ^=" if vr == "PN" else " ")) for value in values)


def _special_characters(query: Query) -> frozenset[str]:
    """Return the characters that spellings differ in; one for all that are not ASCII."""
    return frozenset(
        character if character.isascii() else "\x80"
        for _, text in query
        for character in text
        if not _UNRESERVED.fullmatch(character)
    )


def _percent_encode(safe: str, encoding: str, errors: str) -> Callable[[Query], list[tuple[str, str]]]:
    return lambda query: [
        (keyword, quote(text, safe=safe, encoding=encoding, errors=errors)) for keyword, text in query
    ]


def _replace_by_wildcards(query: Query) -> list[tuple[str, str]]:
    """Replace what a URL cannot have by wildcards, and leave out a key of which too little would remain.

    Raises ValueError for a query that would match too much without that key.
    """
    encoded = []
    for keyword, text in query:
        replaced = text if _UID_LIST.fullmatch(text) else _to_wildcards(text)
        is_usable = replaced == text or len(replaced.translate(_NO_WILDCARDS)) >= _LEAST_LITERAL
        encoded.append((keyword, replaced) if is_usable else ("includefield", keyword))
    omits = any(keyword == "includefield" for keyword, _ in encoded)
    if omits and not any(keyword in _IDENTIFYING for keyword, _ in encoded):
        raise ValueError("only wildcards remain")
    return encoded


def _to_wildcards(text: str) -> str:
    """Replace characters: each by one, text beyond ASCII by any number, since servers drop parts of it."""
    replaced = _REPLACED.sub("?", _NOT_ASCII.sub("*", text))
    return replaced if text.isascii() else _WILDCARDS.sub("*", replaced)


_NO_WILDCARDS = str.maketrans("", "", "*?")

#: Keys by which a query remains a query for one patient or study.
_IDENTIFYING = frozenset({"PatientID", "AccessionNumber", "StudyInstanceUID"})

_ENCODERS: Mapping[Spelling, Callable[[Query], list[tuple[str, str]]]] = {
    Spelling.PLAIN: _percent_encode(_PLAIN, "utf-8", "surrogatepass"),
    Spelling.ENCODED: _percent_encode("", "utf-8", "surrogatepass"),
    Spelling.LATIN_1: _percent_encode(_PLAIN, "latin-1", "strict"),
    Spelling.WILDCARD: _replace_by_wildcards,
}
