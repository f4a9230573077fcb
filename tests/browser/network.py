"""The network of a browser under test: a proxy that has nothing, and counts who connects to it."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from typing import Self

_NOTHING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass
class Network:
    """What the pages of one test did on the network, and what their console complained about.

    ``requests`` are URLs other than those that the test opened itself. ``connections`` are the first bytes
    of each connection that a page from a file opened, to any host: its browser context has ``proxy`` as its
    only way out. ``errors`` are exceptions and console errors, among them violations of the content security
    policy.
    """

    requests: list[str] = field(default_factory=list)
    connections: list[bytes] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    @property
    def proxy(self) -> str:
        """The address of the proxy."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                try:
                    self.connections.append(connection.recv(200))
                    connection.sendall(_NOTHING)
                except OSError:
                    self.connections.append(b"")
