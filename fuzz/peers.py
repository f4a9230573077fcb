"""The receiver's session and the requestor on a connection that is no socket, but the bytes of the input."""

from __future__ import annotations

import logging
import random
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import cast

from dicom_quarry.errors import ArchiveError, InstanceRefused, LocalProtocolError, RemoteProtocolError
from dicom_quarry.model import AE, InstanceInfo, InstanceRef, Receipt, Sink, Writer
from dicom_quarry.receiver.access_control import AccessScope
from dicom_quarry.receiver.session import ReceiverLimits, Session
from dicom_quarry.store.part10 import encode_file_head, is_uid
from dicom_quarry.wire import dimse
from dicom_quarry.wire.association import Association
from dicom_quarry.wire.c_store import MAX_DATASET_SIZE, DimseMessage, IncomingInstance
from dicom_quarry.wire.connection import SocketConnection
from dicom_quarry.wire.header_scan import HeaderScan
from dicom_quarry.wire.negotiation import AssociateRequest, propose_contexts
from dicom_quarry.wire.pdu import BUFFER_SIZE, PduType
from dicom_quarry.wire.requestor import Requestor

IMPLICIT, EXPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
TAGS = frozenset({0x00080005, 0x00080018, 0x00080050, 0x00100010, 0x00100020, 0x0020000D, 0x0020000E})
MAX_PDU = 16384
_CONTROL_SIZE = 10  # of A-ASSOCIATE-RJ, A-RELEASE-RP and A-ABORT, with header
REQUEST = AssociateRequest(
    "ARCHIVE",
    "QUARRY",
    propose_contexts([(dimse.VERIFICATION, [IMPLICIT]), (FIND, [EXPLICIT, IMPLICIT]), (CT, [EXPLICIT])]),
    MAX_PDU,
)


def sizes(seed: int, total: int) -> Iterator[int]:
    """Yield the sizes of the reads: seed 0 is all at once, 1 one by one, others are reproducible mixtures."""
    if seed < 2:
        while True:
            yield 1 if seed else total + 1
    dice = random.Random(seed)
    while True:
        yield dice.randint(1, dice.choice((2, 12, 300, 5000)))


class Wire:
    """Replacement of a socket; reads come in pieces by the split's seed, then the peer has closed."""

    def __init__(self, data: bytes, seed: int) -> None:
        self.sent = bytearray()
        self._data = data
        self._at = 0
        self._sizes = sizes(seed, len(data))

    def recv_into(self, space: memoryview) -> int:
        assert 0 < len(space) <= BUFFER_SIZE, "no space to read into: the session would wait without end"
        piece = self._data[self._at : self._at + min(next(self._sizes), len(space))]
        space[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def send(self, data: bytes, flags: int = 0) -> int:  # noqa: ARG002
        self.sent += data
        return len(data)

    def settimeout(self, timeout: float | None) -> None: ...

    def setsockopt(self, level: int, name: int, value: object) -> None: ...

    def shutdown(self, how: int) -> None: ...

    def close(self) -> None: ...

    def as_socket(self) -> socket.socket:
        return cast(socket.socket, self)


# ---- the acceptor


@dataclass
class Stored:
    """An instance as it reached the sink, however far."""

    arrival: InstanceInfo
    data: bytearray = field(default_factory=bytearray)
    end: str = ""


class ScanningWriter:
    """Does with bytes what the store does, but for the disk."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._scan = HeaderScan(stored.arrival.transfer_syntax, TAGS)
        encode_file_head(stored.arrival)

    def write(self, *pieces: memoryview) -> None:
        assert sum(map(len, pieces)) <= BUFFER_SIZE
        try:
            for piece in pieces:
                self._scan.feed(piece)
        except RemoteProtocolError as error:
            raise InstanceRefused(str(error), status=0xC000) from None
        self._stored.data += b"".join(pieces)

    def commit(self) -> Receipt:
        try:
            self._scan.end()
        except RemoteProtocolError as error:
            raise InstanceRefused(str(error), status=0xC000) from None
        self._stored.end = repr(sorted(self._scan.values.items()))
        arrival, size = self._stored.arrival, len(self._stored.data)
        return Receipt(
            InstanceRef("", "", arrival.sop_uid), arrival.transfer_syntax, PurePosixPath(), size, b""
        )

    def abort(self) -> None:
        if not self._stored.end:
            self._stored.end = "aborted"
            self._stored.data.clear()  # how much was written before an error is seen depends on the reads


class SessionHost:
    """A receiver of one session, which is also its sink."""

    def __init__(self) -> None:
        self.sink: Sink = self
        self.limits = ReceiverLimits(max_pdu=MAX_PDU)
        self.tls: ssl.SSLContext | None = None
        self.is_stopping = False
        self.stored: list[Stored] = []

    def begin(self, arrival: InstanceInfo) -> Writer:
        if not (is_uid(arrival.sop_uid) and is_uid(arrival.sop_class) and is_uid(arrival.transfer_syntax)):
            raise InstanceRefused("no UID", status=0xA900)
        self.stored.append(Stored(arrival))
        return ScanningWriter(self.stored[-1])

    def admit(self, session: Session, request: AssociateRequest) -> AccessScope:  # noqa: ARG002
        return AccessScope.ECHO if request.called == "ECHO" else AccessScope.STORE

    def on_handshake_failed(self, session: Session, reason: str) -> None:  # noqa: ARG002
        raise AssertionError(reason)  # there is no TLS handshake here

    def on_aborted(self, session: Session, reason: str) -> None:  # noqa: ARG002
        assert reason

    def record_instance(self, incoming: IncomingInstance) -> None:
        assert incoming.size >= 0


class _Unmasked(logging.Handler):
    """The session survives every defect and logs it; here it comes to light."""

    def emit(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        raise error or AssertionError(record.getMessage())


@contextmanager
def unmasked() -> Iterator[None]:
    """Errors that the receiver logs are raised."""
    logger, handler = logging.getLogger("dicom_quarry"), _Unmasked(logging.ERROR)
    before, logger.propagate = (logger.level, logger.propagate), False
    logger.setLevel(logging.ERROR)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        logger.setLevel(before[0])


def accept(data: bytes, seed: int) -> tuple[bytes, list[Stored]]:
    """A whole session over the data; what was answered, and what reached the sink."""
    wire, house = Wire(data, seed), SessionHost()
    session = Session(wire.as_socket(), "127.0.0.1", house)
    with unmasked():
        session.run()
    assert len(session._messages._partial) <= dimse.MAX_COMMAND_SIZE + BUFFER_SIZE
    assert len(wire.sent) <= 20 * len(data) + 2000, "the peer makes us send much more than it sends itself"
    return _answered(bytes(wire.sent)), house.stored


def _answered(sent: bytes) -> bytes:
    """Without the A-ABORT that follows our own end of the association if more came in the same read with it.

    PS3.8 wants it (AA-7), and a rest that comes later is not read: that much may depend on the split.
    """
    end = len(sent) - _CONTROL_SIZE
    if end >= _CONTROL_SIZE and sent[end] == PduType.ABORT:
        kind = sent[end - _CONTROL_SIZE]
        if kind in (PduType.ASSOCIATE_RJ, PduType.RELEASE_RP):
            return sent[:end]
    return sent


# ---- the requestor


def request(data: bytes, seed: int, max_messages: int) -> tuple[str, list[DimseMessage]]:
    """Ask an archive that answers with the data; how it ended, and the messages that came.

    After ``max_messages`` messages the association is released.
    """
    wire = Wire(data, seed)
    association = Association(max_pdu=MAX_PDU, is_requestor=True)
    requestor = Requestor(
        AE("ARCHIVE", "127.0.0.1", 104), SocketConnection(wire.as_socket(), association), association
    )
    messages: list[DimseMessage] = []
    try:
        requestor._negotiate(REQUEST, 5.0)
        if FIND in requestor.accepted:
            context_id, _ = requestor.accepted[FIND]
            requestor.send(dimse.c_find_rq(1, FIND), b"identifier", context_id=context_id)
        while len(messages) < max_messages and (message := requestor.receive(5.0)):
            messages.append(message)
            assert len(requestor._assembler._dataset) <= MAX_DATASET_SIZE + BUFFER_SIZE
        requestor.release(5.0)
        end = "released"
    except LocalProtocolError:
        raise  # no bytes of a peer may let us break the protocol
    except ArchiveError as error:
        end = type(error).__name__
    except RemoteProtocolError:  # before the association is open, connect() aborts it
        end = "RemoteProtocolError"
    requestor.abort()
    assert not requestor.is_alive
    assert len(wire.sent) <= len(data) + 4000
    return end, messages
