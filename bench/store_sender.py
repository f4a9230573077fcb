"""The sender: C-STORE requests encoded beforehand, so that the receiver is what is measured.

One process for each association. A message is encoded once; for each instance only the digits of its SOP
Instance UID are exchanged, in place, and all of it is written at once.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.synchronize import Barrier
from typing import Any

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from tests.peers.corpus import CT, study_files

from dicom_quarry.model import AE
from dicom_quarry.wire import dimse, pdu
from dicom_quarry.wire.association import Association
from dicom_quarry.wire.negotiation import AssociateAccept, AssociateRequest, propose_contexts

_EXPLICIT = "1.2.840.10008.1.2.1"
_LARGEST_PDU = 131072  # of the sender's own, where the receiver allows more
_DIGITS = 12
_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """Instances to send: their number for each association, and their size in bytes of pixels."""

    pixel_bytes: int
    associations: int
    instances: int

    @property
    def total(self) -> int:
        return self.associations * self.instances

    @property
    def size(self) -> int:
        """Bytes of all datasets."""
        return self.total * len(dataset(0, self.pixel_bytes))


def study_uid(association: int) -> str:
    """The study that an association sends."""
    return f"1.2.826.0.1.3680043.8.498.9.{association + 1}"


def dataset(association: int, pixel_bytes: int) -> bytes:
    """One CT instance, Explicit VR Little Endian, without file meta information."""
    (file,) = study_files("BENCH", "BENCH", series=1, instances=1, pixel_bytes=pixel_bytes)
    ds = pydicom.dcmread(BytesIO(file))
    ds.preamble, ds.file_meta = None, FileMetaDataset()
    ds.StudyInstanceUID = study_uid(association)
    ds.SeriesInstanceUID = f"{study_uid(association)}.1"
    ds.SOPInstanceUID = _sop_uid(association)
    stream = BytesIO()
    dcmwrite(stream, ds, implicit_vr=False, little_endian=True)
    return stream.getvalue()


def _sop_uid(association: int) -> str:
    return f"{study_uid(association)}.1." + "8" * _DIGITS


class _Message:
    """The request for one instance after the other, in the same memory."""

    def __init__(self, association: int, pixel_bytes: int, context_id: int, max_pdu: int) -> None:
        uid = _sop_uid(association)
        command = dimse.encode(dimse.c_store_rq(1, CT, uid))
        size = min(max_pdu or _LARGEST_PDU, _LARGEST_PDU)
        data = dataset(association, pixel_bytes)
        self.bytes = bytearray(b"".join(pdu.encode_message(context_id, command, data, size)))
        self._places = list(_found(self.bytes, uid.encode()))
        self._number = 10 ** (_DIGITS - 1)

    def next(self) -> bytearray:
        self._number += 1
        for end in self._places:
            self.bytes[end - _DIGITS : end] = b"%d" % self._number
        return self.bytes


def _found(data: bytearray, wanted: bytes) -> Iterator[int]:
    at = data.find(wanted)
    while at >= 0:
        yield at + len(wanted)
        at = data.find(wanted, at + 1)


class _Connection:
    """A plain socket with an association on it."""

    def __init__(self, peer: AE) -> None:
        self._sock = socket.create_connection((peer.host, peer.port), _TIMEOUT)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # As in the receiver, the kernel's own time-out spares a poll() before each call.
        self._sock.settimeout(None)
        self._association = Association(max_pdu=_LARGEST_PDU, is_requestor=True)
        request = AssociateRequest(peer.title, "SENDER", propose_contexts([(CT, [_EXPLICIT])]), _LARGEST_PDU)
        self._sock.sendall(self._association.request(request))
        accept = self._event()
        if not isinstance(accept, AssociateAccept) or accept.results[0].result:
            raise SystemExit(f"{peer} does not take what the bench sends: {accept}")
        self.context_id = accept.results[0].context_id
        self.max_pdu = self._association.peer_max_pdu

    def _event(self) -> object:
        reader = self._association.reader
        while True:
            for event in self._association.events():
                return event
            reader.buffer_updated(self._sock.recv_into(reader.get_buffer()) or self._gone())

    def store(self, message: bytearray) -> None:
        """Send one instance and wait for its success."""
        self._sock.sendall(message)
        answer = b""
        while len(answer) < 6 or len(answer) < 6 + int.from_bytes(answer[2:6], "big"):
            if hasattr(socket, "TCP_QUICKACK"):
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            answer += self._sock.recv(4096) or bytes(self._gone())
        status = answer.rfind(b"\0\0\0\x09\x02\0\0\0")  # (0000,0900)
        if status < 0 or answer[status + 8 : status + 10] != b"\0\0":
            raise SystemExit(f"an instance was refused: {answer!r}")

    def _gone(self) -> int:
        raise SystemExit("the receiver closed the connection")

    def release(self) -> None:
        self._sock.sendall(self._association.release())
        self._sock.settimeout(5.0)
        self._sock.recv(10)
        self._sock.close()


def _send(peer: AE, load: Load, association: int, start: Barrier, ended: Any) -> None:
    try:
        connection = _Connection(peer)
        message = _Message(association, load.pixel_bytes, connection.context_id, connection.max_pdu)
        start.wait(_TIMEOUT)
        for _ in range(load.instances):
            connection.store(message.next())
        ended.put(time.monotonic())
        connection.release()
    except BaseException:
        # No thread waits for a sender that has failed.
        start.abort()
        ended.put(None)
        raise


def send(peer: AE, load: Load) -> float:
    """Send a load; the seconds from the first byte to the last response, with open associations."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(load.associations + 1)
    ended = context.Queue()
    senders = [
        context.Process(target=_send, args=(peer, load, number, start, ended), daemon=True)
        for number in range(load.associations)
    ]
    for sender in senders:
        sender.start()
    start.wait(_TIMEOUT)
    began = time.monotonic()
    ends = [ended.get(timeout=_TIMEOUT) for _ in senders]
    for sender in senders:
        sender.join(_TIMEOUT)
    if None in ends:
        raise SystemExit("a sender failed")
    return float(max(ends) - began)
