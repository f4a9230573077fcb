"""DICOM files (PS3.10 section 7): writes the head of a file, and reads meta information and header."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from struct import Struct
from typing import Final

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.model import Header, InstanceInfo
from dicom_quarry.version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_quarry.wire.file_meta import MAX_META_SIZE, read_file_meta
from dicom_quarry.wire.header_scan import HeaderScan

_CHUNK_SIZE: Final = 1 << 18
_FIRST_READ_SIZE: Final = 1 << 12  # more than nearly any file meta
_PREAMBLE: Final = bytes(128) + b"DICM"
_SHORT_ELEMENT: Final = Struct("<HH2sH")
_GROUP_LENGTH: Final = _SHORT_ELEMENT.pack(0x0002, 0, b"UL", 4)
_VERSION: Final = Struct("<HH2sHL").pack(0x0002, 0x0001, b"OB", 0, 2) + b"\0\1"
_UID: Final = re.compile(r"[!-)+-.0->@-\[\]-~]{1,128}")
_SYNTAX_UID: Final = re.compile(r"[0-9.]{1,128}", re.ASCII)


@lru_cache(maxsize=256)  # the instances of a series share most of theirs
def is_uid(text: str) -> bool:
    """Return True for a value that identifies one object: printable ASCII without wildcards,
    backslashes (lists) and slashes.

    PS3.5 9.1 allows 64 digits and dots, but archives have longer UIDs, and UIDs with letters.
    """
    return bool(_UID.fullmatch(text)) and text.strip(".") != ""


def is_transfer_syntax(text: str) -> bool:
    """Return True for digits and dots: a transfer syntax with other characters is unknown to any reader."""
    return bool(_SYNTAX_UID.fullmatch(text)) and text.strip(".") != ""


def encode_file_head(arrival: InstanceInfo) -> bytes:
    """Return preamble, prefix and file meta information (PS3.10 7.1): as received, or made for a dataset."""
    if arrival.head:
        return arrival.head
    elements = b"".join(
        (
            _VERSION,
            _encode_element(0x0002, b"UI", arrival.sop_class),
            _encode_element(0x0003, b"UI", arrival.sop_uid),
            _encode_element(0x0010, b"UI", arrival.transfer_syntax),
            _encode_element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _encode_element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _encode_element(0x0016, b"AE", arrival.calling_ae) if arrival.calling_ae else b"",
        )
    )
    return _PREAMBLE + _GROUP_LENGTH + len(elements).to_bytes(4, "little") + elements


@lru_cache(maxsize=64)
def _encode_element(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) & 1:
        value += b"\0" if vr == b"UI" else b" "
    return _SHORT_ELEMENT.pack(0x0002, element, vr, len(value)) + value


@dataclass(frozen=True, slots=True)
class Part10File:
    """The meta information and header of a file; its dataset begins at ``offset``, ``size`` is the file's."""

    offset: int
    size: int
    sop_class: str
    transfer_syntax: str
    header: Header


def read_part10(fd: int, tags: Iterable[int]) -> Part10File | None:
    """Read meta information and header of an open file; None if it is no DICOM file, or a damaged one."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return None
    try:
        meta = read_file_meta(os.pread(fd, _FIRST_READ_SIZE, 0)) or read_file_meta(
            os.pread(fd, 2 * MAX_META_SIZE, 0)
        )
        if meta is None:
            return None
        header = HeaderScan(meta.transfer_syntax, tags)
        for piece in _read_chunks(fd, meta.size):
            if header.feed(piece):
                break
        header.end()
    except RemoteProtocolError:
        return None
    return Part10File(meta.size, status.st_size, meta.sop_class, meta.transfer_syntax, header.values)


def compute_digest(fd: int) -> bytes:
    """Compute the SHA-256 of an open file."""
    sha256 = hashlib.sha256()
    for piece in _read_chunks(fd, 0):
        sha256.update(piece)
    return sha256.digest()


def has_same_bytes(one: int, one_offset: int, other: int, other_offset: int) -> bool:
    """Return True if two open files have the same bytes from the given offsets on."""
    pairs = zip_longest(_read_chunks(one, one_offset), _read_chunks(other, other_offset))
    return all(left == right for left, right in pairs)


def _read_chunks(fd: int, at: int) -> Iterator[bytes]:
    while piece := os.pread(fd, _CHUNK_SIZE, at):
        at += len(piece)
        yield piece
