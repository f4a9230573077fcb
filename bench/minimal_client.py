"""The least that a client can do: fetch studies of known UIDs, and drop their bytes.

What it reaches is an archive's ceiling. It queries, writes, hashes and proves nothing, and acknowledges each
instance at once. It sets TCP_NODELAY and re-arms TCP_QUICKACK, as DCMTK-based archives need both.

    python -m bench.minimal_client move|get|wado ARCHIVE@HOST:PORT OWN@HOST:PORT PARALLEL FILE-OF-STUDY-UIDS

For ``wado`` the first address is the base URL. Prints JSON: seconds, processor time, instances, bytes.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dicom_quarry.archive.dimse.identifier import IMPLICIT_LITTLE, MODELS, encode
from dicom_quarry.model import AE
from dicom_quarry.wire import dimse, negotiation
from dicom_quarry.wire.negotiation import AcceptorPolicy, AssociateRequest, propose_contexts

_PDU = struct.Struct(">BxL")
_PDV = struct.Struct(">LBB")
_BUFFER = 1 << 19
_CT = "1.2.840.10008.5.1.4.1.1.2"
_SYNTAXES = ("1.2.840.10008.1.2.1", IMPLICIT_LITTLE)


class Connection:
    """A socket that is read in large pieces; what nobody needs is dropped where it was received."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._data = bytearray(_BUFFER)
        self._view = memoryview(self._data)
        self._start = self._end = 0

    def _fill(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == _BUFFER:
            rest = self._end - self._start
            self._data[:rest] = self._data[self._start : self._end]
            self._start, self._end = 0, rest
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        received = self.sock.recv_into(self._view[self._end :])
        if not received:
            raise EOFError
        self._end += received

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        while self._end - self._start < size:
            self._fill()
        self._start += size
        return bytes(self._view[self._start - size : self._start])

    def skip(self, size: int) -> None:
        """Drop the next ``size`` bytes."""
        while size > (here := self._end - self._start):
            size -= here
            self._start = self._end
            self._fill()
        self._start += size

    def send(self, kind: int, body: bytes) -> None:
        self.sock.sendall(_PDU.pack(kind, len(body)) + body)

    def send_message(self, context: int, command: dimse.Command, dataset: bytes = b"") -> None:
        parts = [(3, dimse.encode(command))] + ([(2, dataset)] if dataset else [])
        for control, data in parts:
            self.send(4, _PDV.pack(len(data) + 2, context, control) + data)


@dataclass(slots=True)
class Tally:
    """Instances and bytes that arrived."""

    instances: int = 0
    size: int = 0


def serve(connection: Connection, tally: Tally) -> int | None:
    """Acknowledge instances until the association ends (None), or a final response comes (its status)."""
    command = b""
    while True:
        kind, length = _PDU.unpack(connection.take(6))
        if kind == 5:
            connection.skip(length)
            connection.send(6, bytes(4))
            return None
        if kind != 4:
            raise ConnectionError(f"PDU of type {kind}")
        while length:
            size, context, control = _PDV.unpack(connection.take(6))
            length -= 4 + size
            if control & 1:
                command += connection.take(size - 2)
                if not control & 2:
                    continue
                request, command = dimse.decode(command), b""
                if request.field & 0x8000 and request.status not in (0xFF00, 0xFF01):
                    connection.skip(length)
                    return request.status
            else:
                connection.skip(size - 2)
                tally.size += size - 2
                if control & 2:
                    tally.instances += 1
                    connection.send_message(context, dimse.response(request, 0x0000))


def accept(sock: socket.socket, tally: Tally) -> None:
    """Be the sink of one association."""
    with closing(sock):
        connection = Connection(sock)
        _, length = _PDU.unpack(connection.take(6))
        request = negotiation.decode_request(connection.take(length))
        connection.send(2, negotiation.encode_accept(AcceptorPolicy(0).answer(request)))
        serve(connection, tally)


def requestor(archive: AE, calling: str, transport: str) -> Connection:
    """Open an association for C-MOVE, or for C-GET of CT images."""
    model = MODELS["study"]
    if transport == "get":
        contexts = propose_contexts([(model.get, [IMPLICIT_LITTLE]), (_CT, _SYNTAXES)])
        roles = {_CT: (False, True)}
    else:
        contexts, roles = propose_contexts([(model.move, [IMPLICIT_LITTLE])]), {}
    connection = Connection(socket.create_connection((archive.host, archive.port)))
    request = AssociateRequest(archive.title, calling, contexts, 0, roles)
    connection.send(1, negotiation.encode_request(request))
    kind, length = _PDU.unpack(connection.take(6))
    connection.skip(length)
    if kind != 2:
        raise ConnectionError("the association was rejected")
    return connection


def by_dimse(transport: str, archive: AE, own: AE, tally: Tally) -> Callable[[], Callable[[str], None]]:
    """Return what makes a worker's function to fetch one study."""
    if transport == "move":
        listener = socket.create_server((own.host, own.port), backlog=64)
        threading.Thread(target=_listen, args=(listener, tally), daemon=True).start()
    model = MODELS["study"]

    def worker() -> Callable[[str], None]:
        connection = requestor(archive, own.title, transport)

        def fetch(uid: str) -> None:
            if transport == "move":
                command = dimse.c_move_rq(1, model.move, own.title)
            else:
                command = dimse.c_get_rq(1, model.get)
            keys = encode({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": uid})
            connection.send_message(1, command, keys)
            if (status := serve(connection, tally)) != 0x0000:
                raise ConnectionError(f"status {status}")

        return fetch

    return worker


def _listen(listener: socket.socket, tally: Tally) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=accept, args=(sock, tally), daemon=True).start()


def by_wado(base: str, tally: Tally) -> Callable[[], Callable[[str], None]]:
    """Return what makes a worker's function, over a connection that is kept."""
    url = urlsplit(base)
    headers = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}

    def worker() -> Callable[[str], None]:
        connection = http.client.HTTPConnection(url.hostname or "", url.port)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        scratch = bytearray(_BUFFER)

        def fetch(uid: str) -> None:
            connection.request("GET", f"{url.path}/studies/{uid}", headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise ConnectionError(f"status {answer.status}")
            while size := answer.readinto(scratch):
                tally.size += size

        return fetch

    return worker


def run(worker: Callable[[], Callable[[str], None]], uids: Sequence[str], parallel: int) -> None:
    """Fetch all studies, each worker over its own connection."""
    waiting = iter(uids)
    lock = threading.Lock()

    def work() -> None:
        fetch = worker()
        while True:
            with lock:
                uid = next(waiting, None)
            if uid is None:
                return
            fetch(uid)

    with ThreadPoolExecutor(parallel) as pool:
        for done in [pool.submit(work) for _ in range(parallel)]:
            done.result()


def main(transport: str, archive: str, own: str, parallel: str, uids: str) -> None:
    tally = Tally()
    if transport == "wado":
        worker = by_wado(archive, tally)
    else:
        worker = by_dimse(transport, AE.parse_remote(archive), AE.parse_remote(own), tally)
    studies = Path(uids).read_text().split()
    before, began = os.times(), time.monotonic()
    run(worker, studies, int(parallel))
    seconds, after = time.monotonic() - began, os.times()
    busy = after.user + after.system - before.user - before.system
    print(json.dumps({"seconds": seconds, "busy": busy, "instances": tally.instances, "size": tally.size}))


if __name__ == "__main__":
    main(*sys.argv[1:])
