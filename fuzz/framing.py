"""Second reader of PDUs, simple and slow, to verify the product's."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from dicom_quarry.wire.pdu import MAX_CONTROL_PDU, ControlPdu, PduType, PDVFragment
from fuzz.peers import MAX_PDU

#: Of a control PDU its type and body; of a fragment its context, the two bits of its control byte, its data.
Unit = tuple[int, int, bytes]
DAMAGED: Unit = (-1, -1, b"")
_CONTROL = -2


def unit(read: ControlPdu | PDVFragment) -> Unit:
    """Convert a unit of the product's reader."""
    if isinstance(read, ControlPdu):
        return (_CONTROL, read.type, read.body)
    return (read.context_id, read.is_command | read.is_last << 1, b"".join((read.data, *read.more)))


def read(stream: bytes) -> Iterator[Unit]:
    """The units of a stream, in the end DAMAGED if it is (PS3.8 9.3)."""
    at = 0
    while len(stream) - at >= 6:
        kind, length = struct.unpack_from(">BxL", stream, at)
        at += 6
        if not _is_legal(kind, length):
            yield DAMAGED
            return
        body = stream[at : at + length]
        at += length
        if kind == PduType.P_DATA_TF:
            for one in _values(body, length):
                yield one
                if one == DAMAGED:
                    return
        elif len(body) == length:
            yield (_CONTROL, kind, body)


def _is_legal(kind: int, length: int) -> bool:
    if kind == PduType.P_DATA_TF:
        return 6 <= length <= 2 * MAX_PDU
    if kind in (PduType.ASSOCIATE_RQ, PduType.ASSOCIATE_AC):
        return 68 <= length <= MAX_CONTROL_PDU
    return kind in range(3, 8) and length == 4


def _values(body: bytes, length: int) -> Iterator[Unit]:
    """The PDVs of a P-DATA-TF of a length, of which not all may have come."""
    at = 0
    while len(body) - at >= 6:
        size, context_id, control = struct.unpack_from(">LBB", body, at)
        after = at + 4 + size
        if size < 2 or after > length or 0 < length - after < 6:
            yield DAMAGED
            return
        data = body[at + 6 : after]
        whole = after <= len(body)
        if whole or data:
            yield (context_id, control & (3 if whole else 1), data)
        at = after


def joined(units: Iterable[Unit]) -> list[Unit]:
    """Pieces put together, up to a last one: how a value was cut no longer shows."""
    whole: list[Unit] = []
    for one in units:
        before = whole[-1] if whole else DAMAGED
        if one[0] >= 0 and before[:2] == (one[0], one[1] & 1):
            whole[-1] = (one[0], one[1], before[2] + one[2])
        else:
            whole.append(one)
    return whole


def tiles(data: bytes, form: str) -> bool:
    """Return True if data consists only of headers, each with the length of what follows it."""
    header, at = struct.Struct(form), 0
    while len(data) - at >= header.size:
        at += header.size + header.unpack_from(data, at)[0]
    return at == len(data)
