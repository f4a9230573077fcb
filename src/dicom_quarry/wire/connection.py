"""Transport connection of an association: the only module of wire with I/O.

Every socket has TCP_NODELAY set, TCP_QUICKACK is set again before each read (Linux), and every message is one
write. Many archives write a message in two pieces with Nagle's algorithm on. Without the quick
acknowledgement, each query and each instance would then wait 40 ms.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Iterable
from contextlib import suppress

from dicom_quarry.errors import ConnectionLost, Unreachable
from dicom_quarry.model import AE
from dicom_quarry.system.network import keep_alive
from dicom_quarry.wire import error_messages
from dicom_quarry.wire.association import Association
from dicom_quarry.wire.tls import aes_probe_context

#: Maximum length, in bytes, of a P-DATA-TF that this side announces (PS3.8 D.1), chosen by measurement.
DEFAULT_MAX_PDU = 131072
#: Seconds without progress of a write after which the connection counts as lost.
SEND_TIMEOUT = 60.0

#: Errors of a socket; OpenSSL's, of a connection that another thread shuts down, can be a ValueError.
_SOCKET_ERRORS = (OSError, ValueError)

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class SocketConnection:
    """A connected socket, read into an association's buffer."""

    def __init__(self, sock: socket.socket, association: Association) -> None:
        self._sock = sock
        self._association = association
        self._read_timeout = -1.0
        self.is_tls = isinstance(sock, ssl.SSLSocket)
        keep_alive(sock)
        with suppress(OSError):  # a peer may have closed the connection: the next read reports it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.is_tls:
            # The kernel's time-outs on a blocking socket spare the poll() that Python puts before every read.
            sock.settimeout(None)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_TIMEOUT))

    def read_once(self, timeout: float) -> int:
        """Read once; return the number of bytes, or 0 after ``timeout`` seconds without any.

        Raises ConnectionLost at the end of the connection.
        """
        reader = self._association.reader
        try:
            # A remaining time-out shrinks with every read: a tenth more is not worth a system call.
            if not timeout <= self._read_timeout <= 1.1 * timeout:
                self._set_timeout(timeout)
            if _QUICKACK is not None:
                self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            count = self._sock.recv_into(reader.get_buffer())
        except (BlockingIOError, TimeoutError):
            return 0
        except _SOCKET_ERRORS as error:
            raise _cut(error) from error
        if not count:
            raise ConnectionLost("the connection was closed without a release")
        reader.buffer_updated(count)
        return count

    def _set_timeout(self, timeout: float) -> None:
        self._read_timeout = timeout
        if self.is_tls:
            self._sock.settimeout(max(timeout, 0.001))
        else:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(timeout))

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send the pieces, each with one write; raises ConnectionLost."""
        try:
            if self.is_tls:
                self._set_timeout(SEND_TIMEOUT)
            for piece in pieces:
                self._sock.sendall(piece)
        except (BlockingIOError, TimeoutError) as error:
            raise ConnectionLost(f"it took no data for {SEND_TIMEOUT:g} s") from error
        except _SOCKET_ERRORS as error:
            raise _cut(error) from error

    @property
    def has_data(self) -> bool:
        """True if a read would return at once: bytes have come, or the connection has ended."""
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        return bool(poller.poll(0))

    def shutdown(self, final_pdu: bytes = b"", *, in_use: bool = False) -> None:
        """Send a final PDU if that is possible at once, and shut down both directions; never raises.

        This wakes a thread that is reading. ``in_use``: another thread may be reading, and OpenSSL does not
        allow a write at the same time; over TLS the final PDU is then left out.
        """
        with suppress(OSError):
            if final_pdu and not self.is_tls:
                self._sock.send(final_pdu, socket.MSG_DONTWAIT)
            elif final_pdu and not in_use:
                self._set_timeout(1.0)
                self._sock.sendall(final_pdu)
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close_gracefully(self, final_pdu: bytes, timeout: float) -> None:
        """Send a final PDU, and wait for the peer to close (PS3.8 9.1.5); never raises.

        Closing with bytes unread would reset the connection, and the peer might never see the final PDU.
        """
        deadline = time.monotonic() + timeout
        try:
            if final_pdu:
                self.send([final_pdu])
            self._sock.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self.read_once(left)
                self._association.reader.discard()
        except (ConnectionLost, OSError):
            pass

    def close(self) -> None:
        """Close the socket; no thread may be using it."""
        self._sock.close()


def _cut(error: Exception) -> ConnectionLost:
    return ConnectionLost(f"the connection was cut ({getattr(error, 'strerror', None) or error})")


def _timeval(seconds: float) -> bytes:
    # Zero would mean no time-out at all.
    micros = max(int(seconds * 1_000_000), 1000)
    return struct.pack("@ll", micros // 1_000_000, micros % 1_000_000)


def connect(peer: AE, timeout: float, tls: ssl.SSLContext | None) -> socket.socket:
    """Connect to a peer, within ``timeout`` seconds; raises Unreachable."""
    sock: socket.socket | None = None
    try:
        sock = socket.create_connection((peer.host, peer.port), timeout)
        if tls is not None:
            sock = secured = tls.wrap_socket(sock, server_hostname=peer.host, do_handshake_on_connect=False)
            secured.do_handshake()
        return sock
    except OSError as error:
        message = error_messages.describe_connect_error(peer.host, peer.port, timeout, error)
        has_no_cipher = isinstance(sock, ssl.SSLSocket) and sock.cipher() is None
        _close(sock)
        if has_no_cipher and error_messages.may_lack_cipher(error) and _accepts_aes_profile(peer, timeout):
            message = error_messages.describe_aes_profile(f"{peer.host}:{peer.port}")
        raise Unreachable(message) from error
    except BaseException:
        _close(sock)
        raise


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()


def _accepts_aes_profile(peer: AE, timeout: float) -> bool:
    """Return True if a handshake of the older AES profile gets as far as the choice of its cipher."""
    try:
        with (
            socket.create_connection((peer.host, peer.port), timeout) as sock,
            aes_probe_context().wrap_socket(sock, do_handshake_on_connect=False) as secured,
        ):
            try:
                secured.do_handshake()
            except OSError:
                pass  # the peer may require a certificate
            return secured.cipher() is not None
    except (OSError, ValueError):
        return False
