"""Proxy for HTTP: tunnels by CONNECT (RFC 9110 9.3.6), and forwards requests with a whole URL."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """Proxy on a free port; ``request_lines`` are those that came, ``refusal`` a status to refuse them."""

    def __init__(self, refusal: int | None = None) -> None:
        self.request_lines: list[str] = []
        self.refusal = refusal
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            request: socket.socket

            def handle(self) -> None:
                proxy.serve(self.request)

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self, client: socket.socket) -> None:
        """One connection: all that comes after its first request goes where that wanted to go."""
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := client.recv(1 << 16)):
                return
            head += data
        line = head.partition(b"\r\n")[0].decode()
        self.request_lines.append(line)
        if self.refusal is not None:
            client.sendall(f"HTTP/1.1 {self.refusal} No\r\nContent-Length: 0\r\n\r\n".encode())
            return
        method, target, _ = line.split(" ")
        place = urlsplit(f"//{target}" if method == "CONNECT" else target)
        with socket.create_connection((place.hostname or "", place.port or 80)) as server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                server.sendall(head)
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
