"""Protocol data units of the upper layer: reading and encoding (PS3.8 9.3).

:class:`PduReader` owns the receive buffer. The owner of the socket reads into it, and gets PDVs back as views
of the same memory, so that pixel data is not copied on its way to the disk. A PDV is passed on in pieces
before it is complete, so that memory does not grow with the size of PDUs or instances.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from dicom_quarry.errors import RemoteProtocolError

#: Bytes. 128 presentation contexts with 40 transfer syntaxes each need 170 kB.
MAX_CONTROL_PDU = 262144
#: Bytes. With 1 MB, an instance of 100 MB takes a tenth less of the processor than with 512 kB.
BUFFER_SIZE = 1048576
#: Bytes of the buffer until a read has filled it: some archives open an association for every small study.
_FIRST_BUFFER = 65536
#: Bytes of a PDU that is sent to a peer without a limit (a maximum length of 0, PS3.8 D.1).
_UNLIMITED_PDU_SIZE = 1048576

#: A longer P-DATA-TF than this multiple of the announced maximum is refused. Some senders count without the
#: headers, or ignore the maximum; the length costs no memory, as a PDV is passed on in pieces.
_TOLERATED_EXCESS = 2

logger = logging.getLogger(__name__)

_PDU_HEADER = struct.Struct(">BxL")
_PDV_HEADER = struct.Struct(">LBB")
_P_DATA_HEADERS = struct.Struct(">BxLLBB")
_IS_COMMAND = 1  # PS3.8 E.2: the message control header
_IS_LAST = 2


class PduType(IntEnum):
    """PDU types: the first byte of a PDU (PS3.8 9.3.1)."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA_TF = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class PDVFragment(NamedTuple):
    """A piece of a presentation data value (PS3.8 9.3.5.1); ``data`` is valid until the next read.

    ``more`` are the pieces of the same dataset that follow directly, if they have come already. ``is_last``
    is set on the last piece of the last fragment of a command or dataset.
    """

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview
    more: tuple[memoryview, ...] = ()


class ControlPdu(NamedTuple):
    """Any PDU except P-DATA-TF, without its header of six bytes."""

    type: PduType
    body: bytes


_LEGAL_LENGTHS = {
    PduType.ASSOCIATE_RQ: range(68, MAX_CONTROL_PDU + 1),
    PduType.ASSOCIATE_AC: range(68, MAX_CONTROL_PDU + 1),
    PduType.ASSOCIATE_RJ: range(4, 5),
    PduType.RELEASE_RQ: range(4, 5),
    PduType.RELEASE_RP: range(4, 5),
    PduType.ABORT: range(4, 5),
}


class PduReader:
    """Splitter of a stream of bytes into control PDUs and PDV fragments.

    Use it in a loop: read into ``get_buffer()``, report the number of bytes with ``buffer_updated()``,
    iterate over ``units()``. ``max_pdu`` is the maximum length, in bytes, that was announced to the peer (0:
    no limit).
    """

    def __init__(self, max_pdu: int, buffer_size: int = BUFFER_SIZE) -> None:
        self._max_pdu = max_pdu
        self._excess_is_logged = False
        self._buffer_size = buffer_size
        self._view = memoryview(bytearray(min(buffer_size, _FIRST_BUFFER)))
        self._start = 0
        self._end = 0
        self._pdu_left = 0  # missing bytes of the current P-DATA-TF, PDV headers included
        self._pdv_left = 0  # missing bytes of the current PDV
        self._pdv = (0, False, False)

    def get_buffer(self) -> memoryview:
        """Return the memory for the next read; fragments returned before are no longer valid."""
        left = self._end - self._start
        if self._end == len(self._view) < self._buffer_size:
            rest = self._view[self._start :]
            self._view = memoryview(bytearray(self._buffer_size))
            self._view[:left] = rest
        elif left and self._start:
            self._view[:left] = bytes(self._view[self._start : self._end])
        self._start, self._end = 0, left
        return self._view[left:]

    def buffer_updated(self, count: int) -> None:
        """Add the ``count`` bytes that were read into the buffer."""
        self._end += count

    def discard(self) -> None:
        """Drop the bytes so far: the association has ended."""
        self._start = self._end

    def units(self) -> Iterator[ControlPdu | PDVFragment]:
        """Iterate over the units in the bytes so far; raises RemoteProtocolError."""
        while True:
            if self._pdv_left:
                if self._start == self._end:
                    return
                yield self._gather(self._fragment())
            elif self._end - self._start < 6:
                return
            elif self._pdu_left:
                self._begin_pdv()
                if not self._pdv_left:  # an empty fragment is legal, and may be the last
                    yield self._fragment()
            else:
                control = self._begin_pdu()
                if control:
                    yield control
                elif not self._pdu_left:
                    return

    def _fragment(self) -> PDVFragment:
        start = self._start
        stop = min(self._end, start + self._pdv_left)
        self._start = stop
        self._pdv_left -= stop - start
        self._pdu_left -= stop - start
        context_id, is_command, is_last = self._pdv
        return PDVFragment(context_id, is_command, is_last and not self._pdv_left, self._view[start:stop])

    def _gather(self, first: PDVFragment) -> PDVFragment:
        """Add the pieces of the same dataset that follow at once; many senders have PDUs of 16 kB."""
        if first.is_command or first.is_last or self._pdv_left:
            return first
        more, is_last = [], False
        while not is_last and self._begin_next(first.context_id):
            piece = self._fragment()
            more.append(piece.data)
            is_last = piece.is_last
            if self._pdv_left:
                break
        return first._replace(is_last=is_last, more=tuple(more)) if more else first

    def _begin_next(self, context_id: int) -> bool:
        """Begin the next PDV; return False, with no effect, if it is not of the same dataset, or not here.

        So it is for a damaged one: what is before it is given out first.
        """
        head, left = self._start, self._pdu_left
        if not left:
            if self._end - head < 12:
                return False
            number, left = _PDU_HEADER.unpack_from(self._view, head)
            if number != PduType.P_DATA_TF or (self._max_pdu and left > self._max_pdu):
                return False
            head += 6
        elif self._end - head < 6:
            return False
        length, next_id, control = _PDV_HEADER.unpack_from(self._view, head)
        rest = left - 4 - length
        if next_id != context_id or control & _IS_COMMAND or length < 2 or rest < 0 or 0 < rest < 6:
            return False
        if not self._pdu_left:
            self._begin_pdu()
        self._begin_pdv()
        return True

    def _begin_pdv(self) -> None:
        length, context_id, control = _PDV_HEADER.unpack_from(self._view, self._start)
        if length < 2 or length + 4 > self._pdu_left:
            raise RemoteProtocolError(f"a PDV of {length} bytes in a PDU with {self._pdu_left} left")
        self._start += 6
        self._pdu_left -= 6
        self._pdv_left = length - 2
        if 0 < self._pdu_left - self._pdv_left < 6:
            raise RemoteProtocolError("bytes between the last PDV and the end of its PDU")
        self._pdv = (context_id, bool(control & _IS_COMMAND), bool(control & _IS_LAST))

    def _begin_pdu(self) -> ControlPdu | None:
        """Return a whole control PDU; None if a P-DATA-TF began or more bytes are needed."""
        number, length = _PDU_HEADER.unpack_from(self._view, self._start)
        if number == PduType.P_DATA_TF:
            if length < 6:
                raise RemoteProtocolError(f"a P-DATA-TF of {length} bytes")
            if self._max_pdu and length > self._max_pdu:
                self._handle_excess(length)
            self._start += 6
            self._pdu_left = length
            return None
        if length not in _LEGAL_LENGTHS.get(number, ()) or length + 6 > self._buffer_size:
            raise RemoteProtocolError(f"a PDU of type 0x{number:02X} and {length} bytes")
        if self._end - self._start < 6 + length:
            return None
        body = bytes(self._view[self._start + 6 : self._start + 6 + length])
        self._start += 6 + length
        return ControlPdu(PduType(number), body)

    def _handle_excess(self, length: int) -> None:
        """Log the first PDU over the announced maximum; refuse one that is far over it."""
        excess = f"a PDU of {length} bytes, but this side announced a maximum of {self._max_pdu}"
        if length > _TOLERATED_EXCESS * self._max_pdu:
            raise RemoteProtocolError(excess)
        if not self._excess_is_logged:
            self._excess_is_logged = True
            logger.warning("the peer sent %s; Quarry accepts it", excess)


def encode_pdu(kind: PduType, body: bytes) -> bytes:
    """Encode a control PDU with its header."""
    return _PDU_HEADER.pack(kind, len(body)) + body


def encode_reject(result: int, source: int, reason: int) -> bytes:
    """Encode an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return encode_pdu(PduType.ASSOCIATE_RJ, bytes((0, result, source, reason)))


def encode_abort(source: int, reason: int) -> bytes:
    """Encode an A-ABORT (PS3.8 9.3.8)."""
    return encode_pdu(PduType.ABORT, bytes((0, 0, source, reason)))


def encode_release(kind: PduType) -> bytes:
    """Encode an A-RELEASE-RQ or A-RELEASE-RP (PS3.8 9.3.6, 9.3.7)."""
    return encode_pdu(kind, bytes(4))


def encode_message(context_id: int, command: bytes, dataset: bytes, max_pdu: int) -> Iterator[bytes]:
    """Encode a message as pieces to send in order; only a large dataset needs more than one.

    A message in one write is not delayed by Nagle's algorithm and a peer that is slow to acknowledge.
    """
    gathered = bytearray()
    for is_command, data in ((True, command), (False, dataset)):
        if not data:
            continue
        for piece in _data_pdus(context_id, data, is_command=is_command, max_pdu=max_pdu):
            gathered += piece
            if len(gathered) >= _UNLIMITED_PDU_SIZE:
                yield bytes(gathered)
                gathered.clear()
    if gathered:
        yield bytes(gathered)


def _data_pdus(context_id: int, data: bytes, *, is_command: bool, max_pdu: int) -> Iterator[bytes]:
    """Encode a command set or a dataset as P-DATA-TF PDUs (PS3.8 9.3.5).

    ``max_pdu`` is the peer's limit in bytes, without the PDU header; fragments have even lengths (PS3.8 E.1).
    """
    size = ((max_pdu or _UNLIMITED_PDU_SIZE) - 6) & ~1
    kind = _IS_COMMAND if is_command else 0
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        control = kind | (_IS_LAST if start + size >= len(data) else 0)
        head = _P_DATA_HEADERS.pack(PduType.P_DATA_TF, len(piece) + 6, len(piece) + 2, context_id, control)
        yield head + piece
