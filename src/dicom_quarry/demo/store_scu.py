"""The Storage SCU of sub-operations: pynetdicom's codec to negotiate, a plain socket for the rest.

pynetdicom's own C-STORE costs two milliseconds an instance in queues and polling. This one is limited by the
receiver, whose speed benchmarks measure.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from types import TracebackType
from typing import Any, Self

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from dicom_quarry.demo.encoding import Element, encode_command_set
from dicom_quarry.demo.synthetic_instances import encode_dataset
from dicom_quarry.demo.synthetic_studies import LITTLE_ENDIAN, DemoInstance
from dicom_quarry.version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

#: Sub-operations that could not be sent have no C-STORE status; this one is counted as a failure.
NOT_SENT = 0xC000

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # PS3.7 A.2.1
_ASSOCIATE_AC, _DATA_TF, _RELEASE_RP = 0x02, 0x04, 0x06  # PS3.8 9.3.1
_RELEASE_RQ = struct.pack(">BBII", 0x05, 0, 4, 0)
_COMMAND, _LAST = 0x01, 0x02  # message control header, PS3.8 E.2
_MAX_PDU_LENGTH = 16384
_MAX_WRITE = 1 << 17
_TIMEOUT = 60.0


class AssociationFailed(Exception):
    """The destination cannot be reached, refuses the association, or ended it."""


class StoreSCU:
    """An association with a Storage SCP, open from the first sub-operation to the last.

    ``source_address`` is the address to connect from; None lets the system choose.
    """

    source_address: tuple[str, int] | None = None

    def __init__(
        self, address: tuple[str, int], called: str, calling: str, instances: Iterable[DemoInstance]
    ) -> None:
        pairs = dict.fromkeys(pair for i in instances for pair in _presentation_contexts(i))
        self._calling = calling
        self._contexts: dict[tuple[str, str], int] = {}
        try:
            self._socket = socket.create_connection(
                address, timeout=_TIMEOUT, source_address=self.source_address
            )
        except OSError as error:
            raise AssociationFailed(str(error)) from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._negotiate(called, list(pairs))
        except OSError as error:
            self._socket.close()
            raise AssociationFailed(str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def store(
        self, instance: DemoInstance, message_id: int, originator: tuple[str, int] | None = None
    ) -> int:
        """Send one instance; returns the receiver's status (PS3.7 9.3.1.2), raises AssociationFailed."""
        candidates = [pair for pair in _presentation_contexts(instance) if pair in self._contexts]
        if not candidates:
            return NOT_SENT
        command = self._encode_command(instance, message_id, originator)
        context = self._contexts[candidates[0]]
        try:
            # one write for a small instance: the receiver is not woken for the command alone
            pdus = self._encode_pdus(context, [command], _COMMAND)
            self._write(
                chain(pdus, self._encode_pdus(context, encode_dataset(instance, candidates[0][1]), 0))
            )
            return self._read_status()
        except OSError as error:
            raise AssociationFailed(str(error)) from error

    def release(self) -> None:
        """Release the association and close the connection (PS3.8 7.2)."""
        try:
            self._socket.sendall(_RELEASE_RQ)
            while self._read_pdu()[0] != _RELEASE_RP:
                pass
        except OSError:
            pass  # the connection is closed already
        finally:
            self._socket.close()

    def _negotiate(self, called: str, pairs: list[tuple[str, str]]) -> None:
        request: Any = A_ASSOCIATE()
        request.application_context_name = UID(_APPLICATION_CONTEXT)
        request.calling_ae_title, request.called_ae_title = self._calling, called
        request.presentation_context_definition_list = _build_contexts(pairs)
        request.user_information = _user_information()
        pdu: Any = A_ASSOCIATE_RQ()
        pdu.from_primitive(request)
        self._socket.sendall(pdu.encode())
        kind, body = self._read_pdu()
        if kind != _ASSOCIATE_AC:
            raise ConnectionRefusedError("the destination rejected the association")
        answer: Any = A_ASSOCIATE_AC()
        answer.decode(struct.pack(">BBI", kind, 0, len(body)) + body)
        primitive = answer.to_primitive()
        limit = primitive.maximum_length_received or _MAX_WRITE
        self._max_fragment = min(limit, _MAX_WRITE) - 6
        for context in primitive.presentation_context_definition_results_list:
            if context.result == 0:
                self._contexts[pairs[context.context_id // 2]] = context.context_id

    def _encode_command(
        self, instance: DemoInstance, message_id: int, originator: tuple[str, int] | None
    ) -> bytes:
        """Encode the command set of a C-STORE-RQ (PS3.7 9.3.1.1)."""
        elements: list[Element] = [
            (0x00000002, "UI", instance.sop_class),
            (0x00000100, "US", 0x0001),
            (0x00000110, "US", message_id),
            (0x00000700, "US", 0),
            (0x00000800, "US", 0x0001),
            (0x00001000, "UI", instance.sop_uid),
        ]
        if originator:
            elements += [(0x00001030, "AE", originator[0]), (0x00001031, "US", originator[1])]
        return encode_command_set(elements)

    def _encode_pdus(
        self, context: int, pieces: Iterable[bytes | memoryview], control: int
    ) -> Iterator[bytes]:
        """Encode P-DATA-TF PDUs of one fragment each (PS3.8 9.3.5); yields headers and fragments in turn."""
        for fragment, last in _split_fragments(pieces, self._max_fragment):
            size = len(fragment)
            end = control | (_LAST if last else 0)
            yield struct.pack(">BBIIBB", _DATA_TF, 0, size + 6, size + 2, context, end)
            yield fragment

    def _write(self, pieces: Iterable[bytes]) -> None:
        """Send pieces, joined to large writes."""
        out = bytearray()
        for piece in pieces:
            out += piece
            if len(out) >= _MAX_WRITE:
                self._socket.sendall(out)
                out.clear()
        self._socket.sendall(out)

    def _read_status(self) -> int:
        command = b""
        while True:
            kind, body = self._read_pdu()
            if kind != _DATA_TF:
                raise ConnectionAbortedError("the destination ended the association")
            length, _, control = struct.unpack_from(">IBB", body)
            command += body[6 : 4 + length]
            if control & _LAST:
                return _parse_status(command)

    def _read_pdu(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBI", self._read(6))
        return kind, self._read(length)

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            if sys.platform == "linux":
                # a receiver with Nagle's algorithm on writes its response in two pieces, and holds back the
                # second until the first is acknowledged, which the kernel delays by 40 ms
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            more = self._socket.recv(count - len(data))
            if not more:
                raise ConnectionResetError("the destination closed the connection")
            data += more
        return bytes(data)


class CGetStoreSCU(StoreSCU):
    """A Storage SCU over the association of a C-GET, which stays open (PS3.4 C.4.3)."""

    def __init__(self, assoc: Any) -> None:
        self._assoc = assoc
        self._socket = assoc.dul.socket.socket
        self._max_fragment = min(assoc.requestor.maximum_length or _MAX_WRITE, _MAX_WRITE) - 6
        self._contexts = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0])): context.context_id
            for context in assoc.accepted_contexts
            if context.as_scu
        }

    def release(self) -> None:
        """Do nothing: the peer releases its association."""

    def _read_status(self) -> int:
        while self._assoc.dul.is_alive() and not self._assoc.acse.is_aborted():
            _, response = self._assoc.dimse.get_msg(block=True)
            if response is not None:
                return int(response.Status)
        raise ConnectionAbortedError("the peer ended the association")


def _presentation_contexts(instance: DemoInstance) -> list[tuple[str, str]]:
    """Return the presentation contexts that an instance can be sent in, that of its own syntax first."""
    own = instance.series.profile.syntax
    syntaxes = dict.fromkeys((own, *LITTLE_ENDIAN)) if own in LITTLE_ENDIAN else (own,)
    return [(instance.sop_class, syntax) for syntax in syntaxes]


def _build_contexts(pairs: list[tuple[str, str]]) -> list[Any]:
    contexts: list[Any] = []
    for number, (sop_class, syntax) in enumerate(pairs):
        context: Any = build_context(sop_class, syntax)
        context.context_id = 2 * number + 1
        contexts.append(context)
    return contexts


def _user_information() -> list[Any]:
    maximum: Any = MaximumLengthNotification()
    maximum.maximum_length_received = _MAX_PDU_LENGTH
    implementation: Any = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version: Any = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [maximum, implementation, version]


def _split_fragments(pieces: Iterable[bytes | memoryview], size: int) -> Iterator[tuple[bytes, bool]]:
    """Cut pieces into fragments of ``size``; yields each, and True with the last."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        start = 0
        while len(buffer) - start > size:
            yield bytes(buffer[start : start + size]), False
            start += size
        del buffer[:start]
    yield bytes(buffer), True


def _parse_status(command: bytes) -> int:
    """Read the status (0000,0900) of a command set: implicit VR little endian (PS3.7 6.3.1)."""
    offset = 0
    while offset + 8 <= len(command):
        group, element, length = struct.unpack_from("<HHI", command, offset)
        if (group, element) == (0x0000, 0x0900):
            return int(struct.unpack_from("<H", command, offset + 8)[0])
        offset += 8 + length
    return NOT_SENT
