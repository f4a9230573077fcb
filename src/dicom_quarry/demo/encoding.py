"""The encoding of data elements (PS3.5 7.1), for the few VRs that the demo archive needs.

pydicom takes a millisecond to build and write the header of a small instance. In benchmarks the demo archive
has to be faster than the receiver.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Union

#: A tag (group and element in one number), its VR, its value. Sequences hold items, items hold elements.
Element = tuple[int, str, Union[str, int, bytes, "Sequence[Sequence[Element]]"]]

UNDEFINED = 0xFFFFFFFF
_LONG_LENGTH = frozenset({"OB", "OW", "SQ", "UN", "UT"})  # PS3.5 7.1.2
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD


def encode(elements: Iterable[Element], *, explicit: bool = True, little: bool = True) -> bytes:
    """Encode elements in the order of their tags."""
    order = "<" if little else ">"
    parts: list[bytes] = []
    for tag, vr, value in sorted(elements, key=lambda element: element[0]):
        data = _encode_value(vr, value, explicit, little)
        parts += (encode_header(tag, vr, len(data), explicit=explicit, order=order), data)
    return b"".join(parts)


def encode_header(tag: int, vr: str, length: int, *, explicit: bool = True, order: str = "<") -> bytes:
    """Encode tag, VR and length of an element, without its value."""
    group, element = tag >> 16, tag & 0xFFFF
    if not explicit:
        return struct.pack(order + "HHI", group, element, length)
    if vr in _LONG_LENGTH:
        return struct.pack(order + "HH2sHI", group, element, vr.encode(), 0, length)
    return struct.pack(order + "HH2sH", group, element, vr.encode(), length)


def encode_item_header(length: int, *, order: str = "<") -> bytes:
    """Encode the header of an item, or of a fragment of encapsulated pixel data (PS3.5 7.5, A.4)."""
    return encode_header(_ITEM, "", length, explicit=False, order=order)


def encode_sequence_delimiter() -> bytes:
    """Encode the delimiter that ends encapsulated pixel data (PS3.5 A.4)."""
    return encode_header(_SEQUENCE_END, "", 0, explicit=False)


def encode_command_set(elements: Iterable[Element]) -> bytes:
    """Encode a DIMSE command set: implicit VR little endian, group length first (PS3.7 6.3.1)."""
    body = encode(elements, explicit=False)
    return encode([(0x00000000, "UL", len(body))], explicit=False) + body


def _encode_value(vr: str, value: object, explicit: bool, little: bool) -> bytes:
    if isinstance(value, str):
        data = value.encode("utf-8")
        return data if len(data) % 2 == 0 else data + (b"\0" if vr == "UI" else b" ")
    if isinstance(value, int):
        return struct.pack(("<" if little else ">") + ("I" if vr == "UL" else "H"), value)
    if isinstance(value, bytes):
        return value if len(value) % 2 == 0 else value + b"\0"
    assert isinstance(value, Sequence)
    encoded = [encode(elements, explicit=explicit, little=little) for elements in value]
    return b"".join(encode_item_header(len(data), order="<" if little else ">") + data for data in encoded)
