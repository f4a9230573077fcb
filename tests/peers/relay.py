"""Relay between two application entities that records every message, and can fail like a network.

Its reader of PDUs is independent of the product's, so that it can verify it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Self

from pydicom.filereader import read_dataset

from dicom_quarry.model import AE

C_STORE, C_GET, C_FIND, C_MOVE, C_ECHO, C_CANCEL = 0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0FFF


@dataclass(frozen=True, slots=True)
class RelayedMessage:
    """A message that crossed the relay: its command set by element number, and its dataset as sent."""

    command: dict[int, bytes]
    dataset: bytes
    transfer_syntax: str
    context_id: int
    from_client: bool
    at: float

    @property
    def field(self) -> int:
        """The command field (PS3.7 E.1)."""
        return int.from_bytes(self.command[0x0100], "little")

    @property
    def status(self) -> int | None:
        """The status of a response."""
        value = self.command.get(0x0900)
        return None if value is None else int.from_bytes(value, "little")

    def text(self, element: int) -> str:
        """A command element as text without padding."""
        return self.command.get(element, b"").decode("latin-1").rstrip("\0 ")

    def identifier(self) -> dict[str, str]:
        """The keys of a query or retrieval by keyword; several values joined by a back-slash."""
        implicit = self.transfer_syntax == "1.2.840.10008.1.2"
        little = self.transfer_syntax != "1.2.840.10008.1.2.2"
        ds = read_dataset(BytesIO(self.dataset), implicit, little)
        return {
            e.keyword: "\\".join(map(str, e.value)) if e.VM > 1 else str("" if e.value is None else e.value)
            for e in ds
        }


class MessageReader:
    """Reader of one direction of an association (PS3.8 9.3); ``on_message`` gets each complete message."""

    def __init__(
        self, contexts: dict[int, str], from_client: bool, on_message: Callable[[RelayedMessage], None]
    ) -> None:
        self._contexts = contexts
        self._from_client = from_client
        self._on_message = on_message
        self._buffer = bytearray()
        self._command = bytearray()
        self._dataset: list[bytes] = []
        self._read: dict[int, bytes] | None = None

    def feed(self, data: bytes) -> None:
        """Read the next bytes, split anywhere."""
        self._buffer += data
        while len(self._buffer) >= 6:
            kind, length = self._buffer[0], struct.unpack_from(">L", self._buffer, 2)[0]
            if len(self._buffer) < 6 + length:
                return
            body = bytes(self._buffer[6 : 6 + length])
            del self._buffer[: 6 + length]
            if kind == 2:
                self._accepted(body)
            elif kind == 4:
                self._values(body)

    def _accepted(self, body: bytes) -> None:
        """Note the transfer syntax of every accepted presentation context (PS3.8 9.3.3)."""
        for kind, item in items(body[68:]):
            if kind == 0x21 and item[2] == 0:
                self._contexts[item[0]] = item[8:].decode("ascii").rstrip("\0 ")

    def _values(self, body: bytes) -> None:
        offset = 0
        while offset < len(body):
            (length,) = struct.unpack_from(">L", body, offset)
            context, control = body[offset + 4], body[offset + 5]
            self._value(context, control, body[offset + 6 : offset + 4 + length])
            offset += 4 + length

    def _value(self, context: int, control: int, data: bytes) -> None:
        if control & 1:
            self._command += data
            if control & 2:
                self._read = _elements(bytes(self._command))
                self._command.clear()
                if self._read[0x0800] == b"\x01\x01":
                    self._finish(context)
        else:
            self._dataset.append(data)
            if control & 2:
                self._finish(context)

    def _finish(self, context: int) -> None:
        assert self._read is not None
        syntax = self._contexts.get(context, "")
        message = RelayedMessage(
            self._read, b"".join(self._dataset), syntax, context, self._from_client, time.monotonic()
        )
        self._read, self._dataset = None, []
        self._on_message(message)


def items(body: bytes) -> list[tuple[int, bytes]]:
    """The items, or sub-items, of an association PDU: type and content (PS3.8 9.3.2)."""
    found, offset = [], 0
    while offset + 4 <= len(body):
        kind, length = body[offset], struct.unpack_from(">H", body, offset + 2)[0]
        found.append((kind, body[offset + 4 : offset + 4 + length]))
        offset += 4 + length
    return found


def _elements(data: bytes) -> dict[int, bytes]:
    elements, offset = {}, 0
    while offset + 8 <= len(data):
        _, number, length = struct.unpack_from("<HHL", data, offset)
        elements[number] = data[offset + 8 : offset + 8 + length]
        offset += 8 + length
    return elements


@dataclass(eq=False)
class Relay:
    """Relay on a free port that forwards to ``target`` and records all ``messages``.

    In front of a receiver it records the bytes that were sent, in front of an archive its requests. ``cut()``
    simulates the loss of the network. While ``flow`` is clear, nothing of the target passes after an
    instance. While ``holds_moves`` returns True, no C-MOVE request reaches the target.
    """

    target: AE
    messages: list[RelayedMessage] = field(default_factory=list)
    holds_moves: Callable[[], bool] = field(default=lambda: False)
    connections: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._down = False
        self.flow = threading.Event()
        self.flow.set()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        self._run(self._accept)

    @property
    def ae(self) -> AE:
        """The target as seen through the relay."""
        return AE(self.target.title, "127.0.0.1", self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        for thread in list(self._threads):
            thread.join(10)

    def cut(self) -> None:
        """Lose the network: every connection ends, and new ones end at once, until :meth:`mend`."""
        with self._lock:
            self._down = True
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Restore the network."""
        with self._lock:
            self._down = False

    def requests(self, command: int) -> list[RelayedMessage]:
        """Return the requests of this kind that reached the target."""
        with self._lock:
            return [one for one in self.messages if one.from_client and one.field == command]

    def moves(self) -> Counter[str]:
        """Count the C-MOVE requests of each study."""
        return Counter(one.identifier()["StudyInstanceUID"] for one in self.requests(C_MOVE))

    def stored(self) -> dict[str, tuple[str, bytes]]:
        """Transfer syntax and dataset of every instance that crossed, by SOP Instance UID."""
        with self._lock:
            stores = [one for one in self.messages if one.field == C_STORE]
        return {one.text(0x1000): (one.transfer_syntax, one.dataset) for one in stores}

    def forget(self) -> None:
        """Forget the recorded messages."""
        with self._lock:
            self.messages.clear()

    def _run(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self.connections += 1
                self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((self.target.host, self.target.port), timeout=10)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        with self._lock:
            self._open |= {client, server}
            down = self._down
        if down:
            self._end(client, server)
            return
        contexts: dict[int, str] = {}
        ends = threading.Semaphore(0)
        on_request = partial(self._on_request, client)
        self._run(lambda: self._pump(client, server, MessageReader(contexts, True, on_request), ends))
        self._run(lambda: self._pump(server, client, MessageReader(contexts, False, self._on_message), ends))

        def close() -> None:
            ends.acquire()
            ends.acquire()
            self._end(client, server)

        self._run(close)

    def _end(self, *sockets: socket.socket) -> None:
        with self._lock:
            self._open -= set(sockets)
            for sock in sockets:
                sock.close()

    def _on_request(self, client: socket.socket, message: RelayedMessage) -> None:
        while message.field == C_MOVE and self.holds_moves():
            readable, _, _ = select.select([client], [], [], 0.02)
            if readable and not client.recv(1, socket.MSG_PEEK):
                raise ConnectionAbortedError("who sent it has ended, so nobody waits for it")
        self._record(message)

    def _on_message(self, message: RelayedMessage) -> None:
        self._record(message)
        if message.field == C_STORE:
            self.flow.wait(60)

    def _record(self, message: RelayedMessage) -> None:
        with self._lock:
            self.messages.append(message)

    def _pump(
        self, source: socket.socket, target: socket.socket, reader: MessageReader, ends: threading.Semaphore
    ) -> None:
        try:
            # A relay that waits for delayed acknowledgements would be all that a test measures.
            target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):
                while True:
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                    data = source.recv(1 << 18)
                    if not data:
                        break
                    reader.feed(data)
                    target.sendall(data)
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)
        finally:
            ends.release()
