"""Identifiers of C-FIND, C-MOVE and C-GET, and the SOP classes of the information models (PS3.4 annex C).

An identifier is encoded from its keys (PS3.4 C.2.2.1, C.4.1.1.3, C.4.2.1.4, C.4.3.1.3), always in Implicit VR
Little Endian. Every peer has to accept that (PS3.5 10.1), and Quarry proposes nothing else for queries.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from dicom_quarry.errors import ConfigError
from dicom_quarry.wire.charsets import codecs_of
from dicom_quarry.wire.data_dictionary import name_of_uid, tag_of_keyword, vr_of_tag
from dicom_quarry.wire.dimse import VERIFICATION

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
UTF_8 = "ISO_IR 192"

# UIDs with more than 64 characters or with odd characters occur in practice and are sent back. Wildcards and
# lists (PS3.4 C.2.2.2) are not: they would turn the retrieval of one listed instance into one of many.
_UID = re.compile(r"[!-)+->@-\[\]-~]{1,128}")


def is_uid(text: str) -> bool:
    """Return True if the text matches a single object when it is sent back to the archive."""
    return _UID.fullmatch(text) is not None


@cache
def tag(keyword: str) -> int:
    """Return the tag of a keyword; raises ConfigError for an unknown one."""
    found = tag_of_keyword(keyword)
    if found is None:
        raise ConfigError(f"'{keyword}' is not a DICOM keyword")
    return found


def encode(keys: Mapping[str, str], charset: str = UTF_8) -> bytes:
    """Encode the identifier of these keywords and values; an empty value requests the attribute.

    SpecificCharacterSet is declared only if a value needs it. A value that ``charset`` cannot encode is sent
    in UTF-8, never with replacement characters, since ``?`` matches any character (PS3.4 C.2.2.2.4).
    """
    elements = {tag(keyword): value.encode("utf-8") for keyword, value in keys.items()}
    if not all(value.isascii() for value in keys.values()):
        declared = charset if can_encode(keys.values(), charset) else UTF_8
        elements = {tag(keyword): _encode_text(value, declared) for keyword, value in keys.items()}
        elements[0x00080005] = declared.encode()
    return b"".join(_element(number, value) for number, value in sorted(elements.items()))


def can_encode(values: Iterable[str], charset: str) -> bool:
    """Return True if a character set, as SpecificCharacterSet has it, has all characters of the values."""
    characters = {character for value in values for character in value if not character.isascii()}
    if charset in ("", "ISO_IR 6"):  # pydicom's codec for the default repertoire is Latin-1
        return not characters
    codecs = codecs_of(charset.encode())
    return all(any(_has_character(codec, character) for codec in codecs) for character in characters)


def _has_character(codec: str, character: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _encode_text(value: str, charset: str) -> bytes:
    """Encode a value; several terms of a character set are code extensions (PS3.5 6.1.2.5)."""
    from pydicom.charset import encode_string  # for few jobs, and takes long to load

    return encode_string(value, list(codecs_of(charset.encode())))


def _element(number: int, data: bytes) -> bytes:
    if len(data) % 2:
        data += b"\0" if vr_of_tag(number) == "UI" else b" "
    return struct.pack("<HHL", number >> 16, number & 0xFFFF, len(data)) + data


ModelName = Literal["study", "patient"]


@dataclass(frozen=True, slots=True)
class InformationModel:
    """The SOP classes of one information model (PS3.4 C.3)."""

    find: str
    move: str
    get: str


MODELS: dict[ModelName, InformationModel] = {
    "study": InformationModel(*(f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))),
    "patient": InformationModel(*(f"1.2.840.10008.5.1.4.1.2.1.{number}" for number in (1, 2, 3))),
}


def describe_service(sop_class: str) -> str:
    """Return the service of a SOP class as text for the user."""
    for name, model in MODELS.items():
        services = {model.find: "C-FIND", model.move: "C-MOVE", model.get: "C-GET"}
        if sop_class in services:
            return f"{services[sop_class]} in the {name.title()} Root model"
    return "C-ECHO" if sop_class == VERIFICATION else sop_class


def describe_sop_classes(sop_classes: Iterable[str]) -> str:
    """Return the names of SOP classes as text for the user; a private one has only its UID."""
    return ", ".join(sorted(map(name_of_uid, sop_classes)))
