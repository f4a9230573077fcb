"""Decoding of text in any character set (PS3.3 C.12.1.1.2, PS3.5 6.1), with the results of pydicom.

pydicom's own decoder is not used for data from the network, for three reasons. It warns about every unknown
term, which writes the peer's bytes to the terminal and to a registry that grows without limit. It looks up
Python codecs by the peer's names, which Python keeps, too. Its run time grows with the square of the value's
length.
"""

from __future__ import annotations

import re
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import lru_cache
from typing import Final

from dicom_quarry.wire.data_dictionary import (
    CODECS,
    DEFAULT_CODEC,
    ESCAPED_CODECS,
    ESCAPING_CODECS,
    STAND_ALONE_TERMS,
    TEXT_DELIMITERS,
)

_SEGMENT: Final = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")


#: The codec of text without a declared character set, or with an unknown one (PS3.5 6.1.2.2).
_UNDECLARED: Final = (DEFAULT_CODEC,)


def _codec_module(name: str) -> str:
    """Return the module of a Python codec by any of its names."""
    name = normalize_encoding(name.lower())
    return aliases.get(name, name)


#: Some senders write a Python codec name as the term: accepted for the codecs of DICOM's own terms only.
_KNOWN_CODEC_MODULES: Final = frozenset(map(_codec_module, CODECS.values()))


@lru_cache(maxsize=64)
def codecs_of(charset: bytes) -> tuple[str, ...]:
    """Return Python's codec names for the terms of (0008,0005), each once; Latin-1 for an unknown term."""
    first, *others = (term.strip(" \0") for term in charset.decode("latin-1").split("\\"))
    if first in STAND_ALONE_TERMS:
        return (CODECS[first],)
    extensions = (_codec_of_term(term) for term in others if term not in STAND_ALONE_TERMS)
    return tuple(dict.fromkeys((_codec_of_term(first), *extensions)))


def _codec_of_term(term: str) -> str:
    if term in CODECS:
        return CODECS[term]
    if term.startswith("ISO") and (corrected := _correct_term(term)):
        return CODECS.get(corrected, DEFAULT_CODEC)
    module = _codec_module(term)
    return module if module in _KNOWN_CODEC_MODULES else DEFAULT_CODEC


def _correct_term(term: str) -> str:
    """Return the right spelling of ``ISO IR 100``, ``ISO-2022-IR-87`` and the like; else an empty string."""
    if re.match("ISO[^_]IR", term):
        return "ISO_IR" + term[6:]
    return "ISO 2022 IR " + term[12:] if re.match("ISO.2022.IR.", term) else ""


def readings(text: str) -> frozenset[str]:
    """Return a text, and its other reading if its bytes may be UTF-8 that were read as Latin-1.

    Text is compared in both, since some senders declare another character set than that of their bytes.
    """
    if text.isascii():
        return frozenset((text,))
    try:
        return frozenset((text, text.encode("latin-1").decode("utf-8")))
    except UnicodeError:
        return frozenset((text,))


def decode(raw: bytes, codecs: tuple[str, ...]) -> str:
    """Decode a value; use Latin-1 if the bytes do not fit the declared codecs.

    Bytes beyond ASCII without a declared character set are read as UTF-8 where they are valid UTF-8: other
    text hardly ever is.
    """
    try:
        if codecs == _UNDECLARED and not raw.isascii() and (text := _decode_utf_8(raw)):
            return text
        if b"\x1b" not in raw:
            return raw.decode(codecs[0])
        return "".join(_decode_segment(part, codecs) for part in _SEGMENT.findall(raw))
    except UnicodeError:
        return _decode_utf_8(raw) or raw.decode("latin-1")


def _decode_utf_8(raw: bytes) -> str:
    """Decode UTF-8; empty if it is not valid."""
    try:
        return raw.decode("utf-8")
    except UnicodeError:
        return ""


def _decode_segment(part: bytes, codecs: tuple[str, ...]) -> str:
    """Decode one part by the codec of its escape sequence; if it does not fit, by the first codec."""
    size = 4 if part.startswith((b"\x1b$(", b"\x1b$)")) else 3
    codec = ESCAPED_CODECS.get(part[:size], "")
    try:
        if codec in codecs or codec == DEFAULT_CODEC:
            return _decode_code_extension(part, size, codec, codecs[0])
    except UnicodeError:
        pass
    return part.decode(codecs[0])


def _decode_code_extension(part: bytes, size: int, codec: str, first: str) -> str:
    if codec in ESCAPING_CODECS:  # Python's codec reads the escape sequence by itself
        return part.decode(codec)
    part = part[size:]
    # A delimiter brings back the first codec (PS3.5 6.1.2.5.3).
    at = next((at for at, byte in enumerate(part) if byte in TEXT_DELIMITERS), len(part))
    return part[:at].decode(codec) + part[at:].decode(first)
