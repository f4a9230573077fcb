"""An HTTP server that never comes to the end of a response, in one of many ways."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from itertools import count, repeat
from typing import Any, Self

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

#: What is sent at first, and then again and again.
DRIPS: dict[str, tuple[bytes, Iterator[bytes]]] = {
    "silence": (b"", repeat(b"")),
    "100 Continue": (b"", repeat(b"HTTP/1.1 100 Continue\r\n\r\n")),
    "a header": (_HEAD + b"X-A: ", repeat(b"a")),
    "headers": (_HEAD, (b"X-%d: a\r\n" % number for number in count())),
    "a body": (_HEAD + b"Content-Length: 100000000\r\n\r\n[", repeat(b" ")),
    "chunks": (_CHUNKED + b"1\r\n[\r\n", repeat(b"1\r\n \r\n")),
    "a chunk extension": (_CHUNKED + b"2;a=", repeat(b"a")),
    "trailers": (_CHUNKED + b"2\r\n[]\r\n0\r\n", repeat(b"X: a\r\n")),
}


class DrippingWeb:
    """Server that sends the ``drip`` every ``pause`` seconds, to each request; ``calls`` counts these."""

    def __init__(self, drip: str, pause: float) -> None:
        self.first, self.again = DRIPS[drip]
        self.pause = pause
        self.calls = 0
        self.over = threading.Event()
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.web = self  # type: ignore[attr-defined]
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        web: Any = self.server.web  # type: ignore[attr-defined]
        sock: socket.socket = self.request
        if not sock.recv(1 << 16):
            return
        web.calls += 1
        try:
            sock.sendall(web.first)
            while not web.over.wait(web.pause):
                sock.sendall(next(web.again))
        except OSError:
            pass
