"""The DICOM JSON Model (PS3.18 annex F), as far as answers to queries need it: text by tag."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from dicom_quarry.errors import RemoteProtocolError


def parse_datasets(text: bytes, tags: Iterable[int]) -> list[dict[int, str]]:
    """The wanted attributes of every dataset in an array: several values joined by back-slashes.

    An attribute without a value is ``""``, one that is absent, or no text, is absent. Raises
    RemoteProtocolError for what is no array of datasets.
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        raise RemoteProtocolError("it is no JSON") from None
    if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
        raise RemoteProtocolError("it is no array of datasets (PS3.18 F.2)")
    wanted = [(tag, f"{tag:08X}") for tag in tags]
    return [
        {tag: value for tag, key in wanted if (value := _attribute_text(one.get(key))) is not None}
        for one in answer
    ]


def _attribute_text(attribute: Any) -> str | None:
    if not isinstance(attribute, dict):
        return None
    values = attribute.get("Value", [])
    if not isinstance(values, list):
        return None
    texts = [_value_text(value) for value in values]
    return "\\".join(text.strip(" \0") for text in texts if text is not None)


def _value_text(value: Any) -> str | None:
    """A value as it stands in a dataset; None for a sequence's item, and for what stands nowhere."""
    match value:
        case None:
            return ""  # a value that is empty, among others (PS3.18 F.2.5)
        case str():
            # Half a surrogate pair is no text that can be kept; two values must not become one.
            return value.encode("utf-8", "xmlcharrefreplace").decode("utf-8")
        case bool():
            return None
        case int():
            return str(value)
        case float():
            return str(int(value)) if value.is_integer() else str(value)
        case {"Alphabetic": _} | {"Ideographic": _} | {"Phonetic": _}:
            # PS3.18 F.2.2: the component groups of a person's name.
            groups = [value.get(group) or "" for group in ("Alphabetic", "Ideographic", "Phonetic")]
            return "=".join(_value_text(group) or "" for group in groups).rstrip("=")
    return None
