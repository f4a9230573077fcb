"""A relay before an HTTP server that can hold its answers up."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

#: Bytes of an answer that pass while ``flow`` is clear: less than any instance.
_FEW = 600


class WebRelay:
    """Listens on a free port and forwards to ``target``; while ``flow`` is clear no instance passes whole.

    ``stored`` gives transfer syntax and dataset of every instance that the archive holds, by SOP UID.
    """

    def __init__(self, target: int, stored: Callable[[], dict[str, tuple[str, bytes]]]) -> None:
        self.stored = stored
        self.flow = threading.Event()
        self.flow.set()
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flow.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def forget(self) -> None:
        """Forget the recorded requests."""

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._target), timeout=10)
                server.settimeout(None)
                for source, sink, answers in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pump, args=(source, sink, answers), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if answers and not self.flow.is_set():
                    sink.sendall(data[:_FEW])
                    data = data[_FEW:]
                    self.flow.wait(60)
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
