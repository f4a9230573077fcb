"""Settings of TCP sockets that every connection has."""

from __future__ import annotations

import socket
from contextlib import suppress

#: Seconds of silence before the first probe, seconds between probes, and probes without an answer after which
#: the kernel ends a connection: a peer that was switched off is noticed after two minutes.
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


def keep_alive(sock: socket.socket) -> None:
    """Have the kernel probe a silent peer, so that a connection that was lost without a FIN ends."""
    with suppress(OSError):  # the peer may have ended the connection: the next read reports it
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if option := getattr(socket, name, None):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def cut(sock: socket.socket) -> None:
    """Shut down a connection at once, also under TLS; wakes the thread that reads it, and never raises."""
    with suppress(OSError, ValueError):
        # The method of the plain socket: that of an SSLSocket would end the TLS state under a reading thread.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
