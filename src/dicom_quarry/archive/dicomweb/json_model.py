"""Datasets in the DICOM JSON Model (PS3.18 annex F), read as servers write them.

The model is UTF-8, an array, tags in upper case, and an array for each value. Servers are known that differ
in each of these.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.wire.data_dictionary import keyword_of_tag

_TAG = re.compile(r"[0-9A-Fa-f]{8}")

#: Character sets that servers declare by default, whatever they send.
_DOUBTFUL_CHARSETS = frozenset({"", "ascii", "iso8859-1", "cp1252", "utf-8"})

#: Bytes that are no UTF-8, as the error handler "surrogateescape" leaves them.
_OTHER_BYTES = re.compile("[\udc80-\udcff]+")

#: Digits of a number that is read as such; a longer one stays text.
_MAX_DIGITS = 18

#: Integers up to here are exact as JSON numbers with a fraction.
_MAX_EXACT = 1 << 53


def parse_datasets(body: bytes, tags: Iterable[int], charset: str = "") -> list[dict[int, str]]:
    """Return these attributes of every dataset, by tag; several values are joined by backslashes.

    An attribute without a value is ``""``. An attribute that is absent or not text is left out. ``charset``
    is the declared one. An empty body has no dataset. Raises RemoteProtocolError for anything that is neither
    a dataset nor an array of them.
    """
    datasets = _load(body, charset)
    if datasets is None or datasets == {}:
        return []
    if isinstance(datasets, dict) and any(map(_TAG.fullmatch, datasets)):
        datasets = [datasets]
    if not isinstance(datasets, list) or not all(isinstance(one, dict) for one in datasets):
        raise RemoteProtocolError("not an array of datasets (PS3.18 F.2)")
    names = {f"{tag:08X}": tag for tag in tags}
    names |= {keyword_of_tag(tag).upper(): tag for tag in names.values()}
    return [
        {
            tag: text
            for name, attribute in one.items()
            if (tag := names.get(name.upper())) is not None
            and (text := _attribute_text(attribute)) is not None
        }
        for one in datasets
    ]


def _load(body: bytes, charset: str) -> Any:
    text = _decode(body, charset).strip("\ufeff\0 \t\r\n")
    if not text:
        return []
    try:
        # Values may have tabs and ends of lines as they are.
        return json.loads(text, strict=False, parse_int=_parse_int)
    except (ValueError, RecursionError):
        raise RemoteProtocolError("not JSON") from None


def _parse_int(text: str) -> int | str:
    return int(text) if len(text) <= _MAX_DIGITS else text


def _decode(body: bytes, charset: str) -> str:
    """Return a body as text: UTF-8 wherever that is possible, and every other byte as Latin-1."""
    try:
        declared = codecs.lookup(charset).name if charset else ""
    except LookupError:
        declared = ""
    detected = json.detect_encoding(body)
    for name in (detected,) if declared in _DOUBTFUL_CHARSETS else (declared, detected):
        try:
            return body.decode(name, "surrogatepass" if name.startswith("utf") else "strict")
        except (UnicodeError, LookupError):  # LookupError: a codec of bytes, not of text
            continue
    # An error handler in Python would be called for each byte.
    return _OTHER_BYTES.sub(_as_latin_1, body.decode("utf-8", "surrogateescape"))


def _as_latin_1(match: re.Match[str]) -> str:
    return match[0].encode("utf-8", "surrogateescape").decode("latin-1")


def _attribute_text(attribute: Any) -> str | None:
    if isinstance(attribute, Mapping) and not _is_name(attribute):
        by_name = {name.lower(): values for name, values in attribute.items()}
        attribute = by_name.get("value", [])
    values = attribute if isinstance(attribute, list) else [attribute]
    texts = [_value_text(value) for value in values]
    known = [text.strip(" \0") for text in texts if text is not None]
    return "\\".join(known) if known or not values else None


def _value_text(value: Any) -> str | None:
    """Return a value as a dataset has it; None for an item of a sequence, and for anything unusable."""
    match value:
        case None:
            return ""  # a value that is empty, among others (PS3.18 F.2.5)
        case str():
            # Half a surrogate pair cannot be stored as text; two values must not become one.
            return value.encode("utf-8", "xmlcharrefreplace").decode("utf-8")
        case bool():
            return None
        case int():
            return str(value)
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < _MAX_EXACT else str(value)
        case dict() if _is_name(value):
            # PS3.18 F.2.2: the component groups of a person's name.
            groups = {name.lower(): group for name, group in value.items() if isinstance(group, str)}
            return "=".join(_value_text(groups.get(name, "")) or "" for name in _NAME_GROUPS).rstrip("=")
    return None


_NAME_GROUPS = ("alphabetic", "ideographic", "phonetic")


def _is_name(value: Mapping[str, Any]) -> bool:
    return any(name.lower() in _NAME_GROUPS for name in value)
