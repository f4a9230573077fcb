"""A sink that remembers, and a peer that sends any bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Self

from dicom_quarry.model import AE, InstanceInfo, InstanceRef, Receipt
from dicom_quarry.wire import dimse, negotiation
from dicom_quarry.wire.association import Association, Event
from dicom_quarry.wire.dimse import Command, CommandReader
from dicom_quarry.wire.negotiation import AssociateAccept, AssociateRequest, propose_contexts
from dicom_quarry.wire.pdu import PDVFragment
from dicom_quarry.wire.requestor import Requestor

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


class MemorySink:
    """Keeps datasets in memory; ``on_begin``, ``on_write`` and ``on_commit`` may raise or wait."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.arrivals: list[InstanceInfo] = []
        self.committed: list[tuple[InstanceInfo, bytes]] = []
        self.aborted: list[InstanceInfo] = []
        self.largest_write = 0
        self.on_begin: Callable[[], object] = lambda: None
        self.on_write: Callable[[], object] = lambda: None
        self.on_commit: Callable[[], object] = lambda: None

    def begin(self, arrival: InstanceInfo) -> MemoryWriter:
        self.on_begin()
        with self.lock:
            self.arrivals.append(arrival)
        return MemoryWriter(self, arrival)


class MemoryWriter:
    def __init__(self, sink: MemorySink, arrival: InstanceInfo) -> None:
        self._sink = sink
        self._arrival = arrival
        self._data = bytearray()

    def write(self, *pieces: memoryview) -> None:
        self._sink.on_write()
        self._sink.largest_write = max(self._sink.largest_write, *map(len, pieces))
        self._data += b"".join(pieces)

    def commit(self) -> Receipt:
        self._sink.on_commit()
        with self._sink.lock:
            self._sink.committed.append((self._arrival, bytes(self._data)))
        ref = InstanceRef("", "", self._arrival.sop_uid)
        return Receipt(ref, self._arrival.transfer_syntax, PurePosixPath(), len(self._data), b"")

    def abort(self) -> None:
        with self._sink.lock:
            self._sink.aborted.append(self._arrival)


class RawPeer:
    """One connection to a receiver, driven by hand."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 30, source_address=(source, 0))
        self.association = Association(max_pdu=0, is_requestor=True)
        self._messages = CommandReader(range(256))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def associate(
        self, *syntaxes: tuple[str, list[str]], calling: str = "PACS", called: str = "QUARRY"
    ) -> AssociateAccept:
        contexts = propose_contexts(syntaxes or [(dimse.VERIFICATION, [IMPLICIT]), (CT, [EXPLICIT])])
        answer = self.request(AssociateRequest(called, calling, contexts, 16384))
        assert isinstance(answer, AssociateAccept), answer
        return answer

    def request(self, request: AssociateRequest) -> Event | None:
        self.sock.sendall(self.association.request(request))
        return self.next_event()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def message(self, context_id: int, command: Command, dataset: bytes = b"") -> bytes:
        return b"".join(self.association.send(context_id, dimse.encode(command), dataset))

    def store(self, data: bytes, sop_uid: str = "1.2.3", message_id: int = 1) -> Command:
        """Send one instance and return the response."""
        self.send(self.message(3, dimse.c_store_rq(message_id, CT, sop_uid), data))
        return self.response()

    def next_event(self) -> Event | None:
        """Return the next event; None when the connection has ended."""
        while True:
            for event in self.association.events():
                return event
            try:
                count = self.sock.recv_into(self.association.reader.get_buffer())
            except ConnectionResetError:
                return None
            if not count:
                return None
            self.association.reader.buffer_updated(count)

    def response(self) -> Command:
        while True:
            event = self.next_event()
            assert isinstance(event, PDVFragment), event
            command = self._messages.feed(event)
            if isinstance(command, Command):
                return command

    def is_closed(self) -> bool:
        """Return True if the receiver ends the connection without any further message."""
        return not isinstance(self.next_event(), PDVFragment) and self.next_event() is None


def echo(port: int) -> bool:
    """Return True if a C-ECHO of another peer is answered."""
    association = Requestor.connect(
        AE("QUARRY", "127.0.0.1", port), calling="ANOTHER", contexts=[(dimse.VERIFICATION, [IMPLICIT])]
    )
    association.send(dimse.c_echo_rq(1), context_id=1)
    answer = association.receive(30)
    association.release()
    return answer is not None and answer.command.status == dimse.SUCCESS


def encoded(request: AssociateRequest) -> bytes:
    return negotiation.encode_request(request)
