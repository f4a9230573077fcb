"""Text of any character set (PS3.3 C.12.1.1.2, PS3.5 6.1), read as pydicom reads it.

pydicom itself should not read what strangers send. It warns of every odd term, which puts their bytes on the
terminal and into a registry that is never emptied; it asks Python for codecs by their names, which are kept,
too; and it takes time by the square of the value's length.
"""

from __future__ import annotations

import re
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import lru_cache
from typing import Final

from pydicom.charset import (
    CODES_TO_ENCODINGS,
    STAND_ALONE_ENCODINGS,
    default_encoding,
    handled_encodings,
    python_encoding,
)
from pydicom.valuerep import TEXT_VR_DELIMS

_SEGMENT: Final = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")


def _codec_module(name: str) -> str:
    """The module of a codec of Python's by any of its names."""
    name = normalize_encoding(name.lower())
    return aliases.get(name, name)


#: What a term may mean where it is a Python name, as some senders write: codecs that DICOM knows, no others.
_KNOWN_CODEC_MODULES: Final = frozenset(map(_codec_module, python_encoding.values()))


@lru_cache(maxsize=64)
def codecs_of(charset: bytes) -> tuple[str, ...]:
    """Python's names for the terms of (0008,0005), each once; Latin-1 where nothing is declared or known."""
    first, *others = (term.strip(" \0") for term in charset.decode("latin-1").split("\\"))
    if first in STAND_ALONE_ENCODINGS:
        return (python_encoding[first],)
    extensions = (_codec_of_term(term) for term in others if term not in STAND_ALONE_ENCODINGS)
    return tuple(dict.fromkeys((_codec_of_term(first), *extensions)))


def _codec_of_term(term: str) -> str:
    if term in python_encoding:
        return python_encoding[term]
    if term.startswith("ISO") and (corrected := _correct_term(term)):
        return python_encoding.get(corrected, default_encoding)
    module = _codec_module(term)
    return module if module in _KNOWN_CODEC_MODULES else default_encoding


def _correct_term(term: str) -> str:
    """Of ``ISO IR 100`` and ``ISO-2022-IR-87`` the right spelling; of anything else nothing."""
    if re.match("ISO[^_]IR", term):
        return "ISO_IR" + term[6:]
    return "ISO 2022 IR " + term[12:] if re.match("ISO.2022.IR.", term) else ""


def decode(raw: bytes, codecs: tuple[str, ...]) -> str:
    """The text of a value; as Latin-1 where the bytes do not fit."""
    try:
        if b"\x1b" not in raw:
            return raw.decode(codecs[0])
        return "".join(_decode_segment(part, codecs) for part in _SEGMENT.findall(raw))
    except UnicodeError:
        return raw.decode("latin-1")


def _decode_segment(part: bytes, codecs: tuple[str, ...]) -> str:
    """One part, in the codec that its escape sequence names, or in the first where it does not fit that."""
    size = 4 if part.startswith((b"\x1b$(", b"\x1b$)")) else 3
    codec = CODES_TO_ENCODINGS.get(part[:size], "")
    try:
        if codec in codecs or codec == default_encoding:
            return _decode_code_extension(part, size, codec, codecs[0])
    except UnicodeError:
        pass
    return part.decode(codecs[0])


def _decode_code_extension(part: bytes, size: int, codec: str, first: str) -> str:
    if codec in handled_encodings:  # Python's codec reads the escape sequence by itself
        return part.decode(codec)
    part = part[size:]
    # A delimiter brings back the first codec (PS3.5 6.1.2.5.3).
    at = next((at for at, byte in enumerate(part) if byte in TEXT_VR_DELIMS), len(part))
    return part[:at].decode(codec) + part[at:].decode(first)
