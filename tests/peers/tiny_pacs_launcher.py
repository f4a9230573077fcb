"""The ``tiny-pacs`` command, bound to the loopback address: it has no option for that."""

import socketserver
import sys

from tiny_pacs.__main__ import main

_bind = socketserver.TCPServer.server_bind


def _bind_loopback(server: socketserver.TCPServer) -> None:
    server.server_address = ("127.0.0.1", server.server_address[1])
    _bind(server)


setattr(socketserver.TCPServer, "server_bind", _bind_loopback)  # noqa: B010
sys.exit(main())
