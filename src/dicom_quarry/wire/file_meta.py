"""Reader of the preamble, prefix and file meta information of a DICOM file (PS3.10 7.1)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.wire.data_dictionary import LONG_VRS
from dicom_quarry.wire.header_scan import scan_dataset

#: Bytes. Some vendors add private information (0002,0102), but none comes near this size.
MAX_META_SIZE: Final = 1 << 16

_EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
_SOP_CLASS: Final = 0x00020002
_SOP_INSTANCE: Final = 0x00020003
_TRANSFER_SYNTAX: Final = 0x00020010
_LAST_NEEDED: Final = 0x0010
_META_OFFSET: Final = 132
_HEAD: Final = Struct("<HH2sH")
_LONG: Final = Struct("<L")
_LONG_VRS: Final = frozenset(vr.encode() for vr in LONG_VRS)


@dataclass(frozen=True, slots=True)
class FileMeta:
    """File meta information: ``size`` is the offset of the dataset in bytes; absent values are empty."""

    size: int
    sop_class: str
    sop_uid: str
    transfer_syntax: str


def read_file_meta(data: bytes | memoryview) -> FileMeta | None:
    """Read the file meta information from the first bytes of a file; None if more bytes are needed.

    Raises RemoteProtocolError if it is not a DICOM file, or if its meta information exceeds MAX_META_SIZE.
    """
    if bytes(data[128:_META_OFFSET]) != b"DICM"[: max(0, len(data) - 128)]:
        raise RemoteProtocolError("it is not a DICOM file")
    size = _find_meta_end(data)
    if size is None:
        return None
    values = scan_dataset(
        data[_META_OFFSET:size], _EXPLICIT_LITTLE, (_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX)
    )
    return FileMeta(
        size, values.get(_SOP_CLASS, ""), values.get(_SOP_INSTANCE, ""), values.get(_TRANSFER_SYNTAX, "")
    )


def _find_meta_end(data: bytes | memoryview) -> int | None:
    """Return the offset of the end of group 0002; None if more bytes are needed.

    The group length (0002,0000) counts if it leads to a boundary between elements after those needed; else
    the end is the first element of another group. The group is always Explicit VR Little Endian (PS3.10 7.1).
    """
    at, end, element = _META_OFFSET, 0, 0
    while at != end or element < _LAST_NEEDED:
        if at > MAX_META_SIZE:
            raise RemoteProtocolError("its file meta information has no end")
        if len(data) < at + 12:
            return None
        group, element, vr, length = _HEAD.unpack_from(data, at)
        if group != 0x0002:
            return at
        body = at + 8
        if vr in _LONG_VRS:
            length, body = _LONG.unpack_from(data, at + 8)[0], at + 12
        if element == 0 and length == 4:
            end = body + 4 + int(_LONG.unpack_from(data, body)[0])
        at = body + length
    return at if at <= len(data) else None
