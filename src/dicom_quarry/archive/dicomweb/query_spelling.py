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

from pydicom.datadict import dictionary_VR

from dicom_quarry.archive.dimse.identifier import tag
from dicom_quarry.archive.instance_listing import get_text

#: Characters that a value may have as they are. "&", "=", ";" and "+" have another meaning for many servers.
_PLAIN = "/:@!$'()*,?"
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
#: What wildcards replace; a comma may separate values.
_REPLACED = re.compile(rf"[^A-Za-z0-9._~{re.escape(_PLAIN)}-]|,")
_UID_LIST = re.compile(r"[0-9.,]*")
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
        """Return a query in every spelling that is to be tried; one where the server's is known."""
        special = _special_characters(query)
        known = [spelling for spelling, characters in self._known.items() if special <= characters]
        found: list[tuple[Spelling, list[tuple[str, str]]]] = []
        for spelling in known[:1] or sorted(Spelling, key=lambda one: -len(self._known[one] & special)):
            try:
                encoded = [(keyword, _ENCODERS[spelling](text)) for keyword, text in query]
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

    A result without such an attribute counts, unless the query had more wildcards than was requested.
    """
    special = [(keyword, text) for keyword, text in query if _special_characters([(keyword, text)])]
    return any(
        all(_has_value(row, keyword, text, spelling is not Spelling.WILDCARD) for keyword, text in special)
        for row in rows
    )


def _has_value(row: Mapping[int, str], keyword: str, wanted: str, absent: bool) -> bool:
    text = get_text(row, keyword)
    if not text:
        return absent
    vr = dictionary_VR(tag(keyword))
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


def _encode_latin_1(text: str) -> str:
    return quote(text, safe=_PLAIN, encoding="latin-1", errors="strict")


def _to_wildcards(text: str) -> str:
    """Replace what a query cannot have by wildcards; raises ValueError where too little would remain.

    Servers differ in the number of characters that text beyond ASCII has.
    """
    if _UID_LIST.fullmatch(text):
        return text
    replaced = _REPLACED.sub("?", _NOT_ASCII.sub("*", text))
    if replaced != text and len(replaced) - replaced.count("*") - replaced.count("?") < _LEAST_LITERAL:
        raise ValueError("only wildcards remain")
    return replaced


_ENCODERS: Mapping[Spelling, Callable[[str], str]] = {
    Spelling.PLAIN: lambda text: quote(text, safe=_PLAIN, errors="surrogatepass"),
    Spelling.ENCODED: lambda text: quote(text, safe="", errors="surrogatepass"),
    Spelling.LATIN_1: _encode_latin_1,
    Spelling.WILDCARD: _to_wildcards,
}
