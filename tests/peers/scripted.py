"""Archive that runs a script of a test, message by message, over a real socket.

It accepts every presentation context that is not refused, in the first transfer syntax offered, and grants
every role.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Container
from typing import Self

from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from dicom_quarry.model import AE
from tests.peers.relay import MessageReader, RelayedMessage, items

#: Called for every request but C-CANCEL, which the script reads itself where it wants to.
Script = Callable[["Conversation", RelayedMessage], None]

SUCCESS, PENDING = 0x0000, 0xFF00


class Over(Exception):
    """The requestor has released, aborted or gone."""


class Conversation:
    """One association, seen by the script."""

    def __init__(self, sock: socket.socket, refused: Container[str]) -> None:
        self._sock = sock
        self._contexts: dict[int, str] = {}
        self.accepted: dict[int, tuple[str, str]] = {}  # abstract and transfer syntax, by context ID
        self._messages: deque[RelayedMessage] = deque()
        self._reader = MessageReader(self._contexts, True, self._messages.append)
        self._refused = refused
        self.proposed: dict[str, list[str]] = {}  # transfer syntaxes, by abstract syntax
        self.roles: list[bytes] = []  # role selection items (PS3.7 D.3.3.4), as they were proposed
        self.released = False

    def read(self) -> RelayedMessage:
        """The next message; raises Over at the end."""
        while not self._messages:
            kind, pdu = self._pdu()
            if kind == 1:
                self._sock.sendall(self._accept(pdu[6:]))
            elif kind == 5:
                self._sock.sendall(b"\x06\0\0\0\0\x04\0\0\0\0")
                self.released = True
                raise Over
            elif kind == 4:
                self._reader.feed(pdu)
            else:
                raise Over
        return self._messages.popleft()

    def answer(
        self,
        to: RelayedMessage,
        status: int,
        dataset: Dataset | bytes = b"",
        *,
        comment: str = "",
        **numbers: int,
    ) -> None:
        """Respond to a request; ``numbers`` are ``remaining``, ``completed``, ``failed``, ``warning``."""
        data = dataset if isinstance(dataset, bytes) else _encoded(dataset)
        elements = {
            0x0002: to.command[0x0002],
            0x0100: struct.pack("<H", to.field | 0x8000),
            0x0120: to.command[0x0110],
            0x0800: struct.pack("<H", 1 if data else 0x0101),
            0x0900: struct.pack("<H", status),
        }
        if comment:
            elements[0x0902] = comment.encode("latin-1") + b" " * (len(comment) % 2)
        for name, value in numbers.items():
            elements[_COUNTERS[name]] = struct.pack("<H", value)
        self.send(to.context_id, elements, data)

    def context(self, abstract: str, syntax: str = "") -> int:
        """The presentation context accepted for a class, and a transfer syntax where one is given."""
        return next(
            number
            for number, (one, transfer) in self.accepted.items()
            if one == abstract and syntax in ("", transfer)
        )

    def store(self, context_id: int, sop_class: str, sop_uid: str, data: bytes, message_id: int = 1) -> None:
        """Ask to have an instance stored; the response is to be read."""
        self.send(context_id, store_rq(sop_class, sop_uid, message_id), data)

    def flood(self, to: RelayedMessage, status: int) -> None:
        """Respond without an end, as fast as the connection takes it."""
        elements = {0x0002: to.command[0x0002], 0x0100: struct.pack("<H", to.field | 0x8000)}
        elements |= {0x0120: to.command[0x0110], 0x0800: b"\x01\x01", 0x0900: struct.pack("<H", status)}
        many = _message(to.context_id, elements) * 1000
        while True:
            self._sock.sendall(many)

    def send(self, context_id: int, elements: dict[int, bytes], data: bytes = b"") -> None:
        """Send any message, valid or not."""
        self._sock.sendall(_message(context_id, elements, data))

    def send_part(self, context_id: int, elements: dict[int, bytes], data: bytes) -> None:
        """Send a message whose dataset does not end."""
        self._sock.sendall(_message(context_id, elements) + _p_data(context_id, 0, data))

    def send_data(self, context_id: int, data: bytes) -> None:
        """Send a dataset alone."""
        self._sock.sendall(_p_data(context_id, 2, data))

    def send_pieces(self, pieces: Callable[[], None], ending: bytes, *, cut: int | None = None) -> None:
        """Send what ``pieces`` sends, or its first ``cut`` bytes, and an ending, all in one segment."""
        sock, collected = self._sock, _Collector()
        self._sock = collected  # type: ignore[assignment]
        try:
            pieces()
        finally:
            self._sock = sock
        sock.sendall(bytes(collected.data[:cut]) + ending)

    def reset(self) -> None:
        """Reset the connection (RST)."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()
        raise Over

    def receives_anything(self, seconds: float) -> bool:
        """Return True if the requestor sends anything within ``seconds``."""
        return bool(select.select([self._sock], [], [], seconds)[0])

    def abort(self) -> None:
        """A-ABORT (PS3.8 9.3.8)."""
        self._sock.sendall(ABORT)
        raise Over

    def _pdu(self) -> tuple[int, bytes]:
        header = self._exactly(6)
        return header[0], header + self._exactly(struct.unpack_from(">L", header, 2)[0])

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self._sock.recv(size - len(data))
            if not piece:
                raise Over
            data += piece
        return bytes(data)

    def _accept(self, request: bytes) -> bytes:
        """The A-ASSOCIATE-AC to a request (PS3.8 9.3.3)."""
        answers = [_item(0x10, b"1.2.840.10008.3.1.1.1")]
        for kind, item in items(request[68:]):
            if kind == 0x20:
                answers.append(self._judge(item))
            elif kind == 0x50:
                self.roles = [value for number, value in items(item) if number == 0x54]
        roles = b"".join(_item(0x54, role) for role in self.roles)
        answers.append(_item(0x50, _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.3") + roles))
        body = request[:68] + b"".join(answers)
        return b"\x02\0" + struct.pack(">L", len(body)) + body

    def _judge(self, context: bytes) -> bytes:
        parts = items(context[4:])
        (abstract,) = (_text(value) for number, value in parts if number == 0x30)
        syntaxes = [_text(value) for number, value in parts if number == 0x40]
        self.proposed.setdefault(abstract, []).extend(syntaxes)
        result = 3 if abstract in self._refused else 0
        if not result:
            self.accepted[context[0]] = abstract, syntaxes[0]
        self._contexts[context[0]] = syntaxes[0]
        return _item(0x21, bytes([context[0], 0, result, 0]) + _item(0x40, syntaxes[0].encode()))


class _Collector:
    """Takes the place of a socket, and keeps what is sent."""

    def __init__(self) -> None:
        self.data = bytearray()

    def sendall(self, data: bytes) -> None:
        self.data += data


#: PDUs that end an association, and the code that does it without one.
ABORT, RELEASE = b"\x07\0\0\0\0\x04\0\0\0\0", b"\x05\0\0\0\0\x04\0\0\0\0"

_COUNTERS = {"remaining": 0x1020, "completed": 0x1021, "failed": 0x1022, "warning": 0x1023}


def store_rq(sop_class: str, sop_uid: str, message_id: int) -> dict[int, bytes]:
    """The elements of a C-STORE-RQ (PS3.7 9.3.1.1)."""
    return {
        0x0002: _padded(sop_class),
        0x0100: struct.pack("<H", 1),
        0x0110: struct.pack("<H", message_id),
        0x0700: struct.pack("<H", 0),
        0x0800: struct.pack("<H", 1),
        0x1000: _padded(sop_uid),
    }


def _padded(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def _text(value: bytes) -> str:
    return value.decode().rstrip("\0 ")


def _message(context_id: int, elements: dict[int, bytes], data: bytes = b"") -> bytes:
    command = b"".join(struct.pack("<HHL", 0, n, len(v)) + v for n, v in sorted(elements.items()))
    command = struct.pack("<HHLL", 0, 0, 4, len(command)) + command
    return _p_data(context_id, 3, command) + (_p_data(context_id, 2, data) if data else b"")


def _p_data(context_id: int, control: int, data: bytes) -> bytes:
    pdv = struct.pack(">LBB", len(data) + 2, context_id, control) + data
    return b"\x04\0" + struct.pack(">L", len(pdv)) + pdv


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def _encoded(ds: Dataset) -> bytes:
    data = encode(ds, is_implicit_vr=True, is_little_endian=True)
    assert data is not None, "pydicom does not encode this"
    return data


class ScriptedArchive:
    """Runs a script for every association, each in a thread; ``requests`` are all requests that came.

    With a ``limit`` it turns down further associations: by result/source/reason, or abort, close or silence.
    """

    def __init__(
        self, script: Script, *, refused: Container[str] = (), limit: int = 0, turn_down: str = "2/3/2"
    ) -> None:
        self._limit = limit
        self._turn_down = turn_down
        self._open = self.most_open = self.turned_down = 0
        self._changed = threading.Condition()
        self._script = script
        self._refused = refused
        self.requests: list[RelayedMessage] = []
        self.associations = self.released = self.ended = 0
        self.errors: list[BaseException] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.ae = AE("SCRIPTED", "127.0.0.1", self._server.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def hang_up(self) -> None:
        """Close every connection, as an archive does with idle ones."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a script does not end"
        assert not self.errors, self.errors

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.associations += 1
                self._sockets.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        conversation = Conversation(sock, self._refused)
        is_admitted = False
        try:
            is_admitted = self._admit(sock)
            while is_admitted:
                request = conversation.read()
                self.requests.append(request)
                if request.field != 0x0FFF:
                    self._script(conversation, request)
        except (Over, OSError):
            pass
        except AssertionError as error:
            self.errors.append(error)
        finally:
            self.released += conversation.released
            self.ended += 1
            sock.close()
            with self._changed:
                self._open -= is_admitted
                self._changed.notify_all()

    def _admit(self, sock: socket.socket) -> bool:
        """Count an association, or turn it down."""
        with self._changed:
            is_full = bool(self._limit) and self._open >= self._limit
            self.turned_down += is_full
            if is_full and self._turn_down == "silence":
                self._changed.wait_for(lambda: self._open < self._limit, 60)
                is_full = False
            if not is_full:
                self._open += 1
                self.most_open = max(self.most_open, self._open)
                return True
        sock.recv(65536)
        if self._turn_down == "abort":
            sock.sendall(ABORT)
        elif self._turn_down != "close":
            sock.sendall(b"\x03\0\0\0\0\x04\0" + bytes(map(int, self._turn_down.split("/"))))
        return False
