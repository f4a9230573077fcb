"""Values of elements as text: character sets, padding, numbers (PS3.5 section 6)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from struct import Struct
from typing import Final

from dicom_quarry.wire import charsets
from dicom_quarry.wire.data_dictionary import CHARSET_VRS, LONG_VRS, SHORT_VRS, vr_of_tag

_STANDARD_VRS: Final = LONG_VRS | SHORT_VRS
_SINGLE_TEXT_VRS: Final = frozenset({"LT", "ST", "UT", "UR"})  # back-slashes are text (PS3.5 6.4)
_NUMBERS: Final = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}


def decode_anywhere(found: Iterable[bytes], charset: bytes) -> list[str]:
    """Decode values by the character set of the dataset, and by UTF-8, as an item may have its own."""
    codecs = charsets.codecs_of(charset)
    texts = [charsets.decode(raw, codecs) for raw in found] + [raw.decode("utf-8", "ignore") for raw in found]
    return sorted({value.strip(" \0") for text in texts for value in text.split("\\")})


def decode_text(tag: int, vr: str, raw: bytes, charset: bytes, order: str) -> str | None:
    """Decode the value of an element; ``order`` is that of its bytes, ``<`` or ``>``.

    Text is without padding. An unknown VR is that of the dictionary. None for a sequence.
    """
    if vr not in _STANDARD_VRS or vr == "UN":
        vr = _dictionary_vr(tag)
    if vr == "SQ":
        return None
    if vr in _NUMBERS:
        return _decode_numbers(raw, order + _NUMBERS[vr])
    text = charsets.decode(raw, charsets.codecs_of(charset)) if vr in CHARSET_VRS else raw.decode("latin-1")
    if "\\" in text and vr not in _SINGLE_TEXT_VRS:
        return "\\".join(value.strip(" \0") for value in text.split("\\"))
    return text.strip(" \0")


def _decode_numbers(raw: bytes, struct_format: str) -> str:
    number = Struct(struct_format)
    whole = len(raw) - len(raw) % number.size
    return "\\".join(str(value) for (value,) in number.iter_unpack(raw[:whole]))


@lru_cache(maxsize=256)
def _dictionary_vr(tag: int) -> str:
    try:
        return vr_of_tag(tag)
    except KeyError:
        return "LO"
