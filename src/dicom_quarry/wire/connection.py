"""Transport connection, and the requestor of an association over it: the only module of wire with I/O.

Every socket has TCP_NODELAY set, TCP_QUICKACK is set again before each read (Linux), and every message is one
write. Many archives write a message in two pieces with Nagle's algorithm on. Without the quick
acknowledgement, each query and each instance would then wait 40 ms.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from dicom_quarry.errors import ConnectionLost, Rejected, RemoteProtocolError, Unreachable
from dicom_quarry.model import AE, Sink
from dicom_quarry.wire import dimse, error_messages
from dicom_quarry.wire.association import (
    Aborted,
    Association,
    Event,
    Rejection,
    Released,
    ReleaseRequested,
)
from dicom_quarry.wire.c_store import DimseMessage, MessageAssembler, Sender
from dicom_quarry.wire.dimse import Command
from dicom_quarry.wire.negotiation import (
    AssociateAccept,
    AssociateRequest,
    Roles,
    accepted_contexts,
    propose_contexts,
)
from dicom_quarry.wire.pdu import PDVFragment

#: Maximum length, in bytes, of a P-DATA-TF that this side announces (PS3.8 D.1), chosen by measurement.
DEFAULT_MAX_PDU = 131072
#: Seconds without progress of a write after which the connection counts as lost.
SEND_TIMEOUT = 60.0

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class SocketConnection:
    """A connected socket, read into an association's buffer."""

    def __init__(self, sock: socket.socket, association: Association) -> None:
        self._sock = sock
        self._association = association
        self._read_timeout = -1.0
        self.is_tls = isinstance(sock, ssl.SSLSocket)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.is_tls:
            # The kernel's time-outs on a blocking socket spare the poll() that Python puts before every read.
            sock.settimeout(None)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_TIMEOUT))

    def read_once(self, timeout: float) -> int:
        """Read once; return the number of bytes, or 0 after ``timeout`` seconds without any.

        Raises ConnectionLost at the end of the connection.
        """
        # A remaining time-out shrinks with every read: a difference of a tenth is not worth a system call.
        if not timeout <= self._read_timeout <= 1.1 * timeout:
            self._set_timeout(timeout)
        reader = self._association.reader
        try:
            if _QUICKACK is not None:
                self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            count = self._sock.recv_into(reader.get_buffer())
        except (BlockingIOError, TimeoutError):
            return 0
        except OSError as error:
            raise ConnectionLost(f"the connection was cut ({error.strerror or error})") from error
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
        if self.is_tls:
            self._set_timeout(SEND_TIMEOUT)
        try:
            for piece in pieces:
                self._sock.sendall(piece)
        except (BlockingIOError, TimeoutError) as error:
            raise ConnectionLost(f"it took no data for {SEND_TIMEOUT:g} s") from error
        except OSError as error:
            raise ConnectionLost(f"the connection was cut ({error.strerror or error})") from error

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


def _timeval(seconds: float) -> bytes:
    # Zero would mean no time-out at all.
    micros = max(int(seconds * 1_000_000), 1000)
    return struct.pack("@ll", micros // 1_000_000, micros % 1_000_000)


def _connect(peer: AE, timeout: float, tls: ssl.SSLContext | None) -> socket.socket:
    try:
        sock = socket.create_connection((peer.host, peer.port), timeout)
        try:
            return tls.wrap_socket(sock, server_hostname=peer.host) if tls else sock
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise Unreachable(
            error_messages.describe_connect_error(peer.host, peer.port, timeout, error)
        ) from error


class Requestor:
    """Requestor of an association: created by :meth:`connect`, used by one thread.

    ``accepted`` maps each abstract syntax to the first accepted context ID and its transfer syntax. ``roles``
    are the proposed roles that the peer accepted. ``last_store_at`` is when a piece of an instance last came
    (monotonic clock).
    """

    def __init__(self, peer: AE, connection: SocketConnection, association: Association) -> None:
        self.peer = peer
        self.accepted: Mapping[str, tuple[int, str]] = {}
        self.roles: Mapping[str, Roles] = {}
        self.last_store_at = 0.0
        self._connection = connection
        self._association = association
        self._assembler = MessageAssembler({})
        # Raised only after the messages that came before it were returned.
        self._pending_error: ConnectionLost | None = None
        self._is_alive = True
        self._state_lock = threading.Lock()
        self._use_lock = threading.Lock()

    @classmethod
    def connect(
        cls,
        peer: AE,
        *,
        calling: str,
        contexts: Sequence[tuple[str, Sequence[str]]],
        connect_timeout: float = 10.0,
        answer_timeout: float = 30.0,
        max_pdu: int = DEFAULT_MAX_PDU,
        tls: ssl.SSLContext | None = None,
        roles: Mapping[str, Roles] | None = None,
    ) -> Requestor:
        """Connect and negotiate, with one presentation context per pair of abstract and transfer syntaxes.

        ``roles`` are the proposed SCU and SCP roles of this side by SOP class (PS3.7 D.3.3.4). Time-outs are
        in seconds. Raises Unreachable or Rejected.
        """
        proposed = propose_contexts(contexts)
        association = Association(max_pdu=max_pdu, is_requestor=True)
        requestor = cls(
            peer, SocketConnection(_connect(peer, connect_timeout, tls), association), association
        )
        try:
            requestor._negotiate(
                AssociateRequest(peer.title, calling, proposed, max_pdu, roles or {}), answer_timeout
            )
        except BaseException:
            requestor.abort()
            raise
        return requestor

    def _negotiate(self, request: AssociateRequest, timeout: float) -> None:
        where = f"{self.peer.host}:{self.peer.port}"
        deadline = time.monotonic() + timeout
        try:
            self._connection.send([self._association.request(request)])
            while (left := deadline - time.monotonic()) > 0:
                self._connection.read_once(left)
                for event in self._association.events():
                    return self._handle_answer(request, event)
        except ConnectionLost as error:
            raise Unreachable(
                error_messages.describe_early_close(where, error.__cause__, is_tls=self._connection.is_tls)
            ) from error
        except RemoteProtocolError as error:
            raise Unreachable(
                f"{where} did not answer with DICOM. Check that this is the archive's DICOM port"
            ) from error
        raise Unreachable(
            f"{where} accepted the connection but did not answer the association request within "
            f"{timeout:g} s. Check that this is the archive's DICOM port, and whether it expects TLS"
        )

    def _handle_answer(self, request: AssociateRequest, event: Event) -> None:
        if isinstance(event, Rejection):
            raise Rejected(
                error_messages.describe_rejection(str(self.peer), request, event), permanent=event.result != 2
            )
        if not isinstance(event, AssociateAccept):
            raise Unreachable(f"{self.peer} aborted instead of answering the association request")
        contexts = accepted_contexts(request, event)
        # Reversed, so that the first context of an abstract syntax remains.
        items = reversed(contexts.items())
        self.accepted = {one.abstract_syntax: (number, one.transfer_syntax) for number, one in items}
        self.roles = event.roles
        self._assembler = MessageAssembler(contexts)

    def accept_c_store(self, sink: Sink, called_ae: str) -> None:
        """Accept C-STORE requests of the peer for a C-GET (PS3.4 C.4.3); ``called_ae`` is our AE title."""
        self._assembler.accept_c_store(sink, Sender(self.peer.title, called_ae, self.peer.host))

    @property
    def is_alive(self) -> bool:
        """False once the association has ended; without a read, an end by the peer is not noticed."""
        return self._is_alive

    def send(self, command: Command, dataset: bytes = b"", *, context_id: int) -> None:
        """Send one message; raises ConnectionLost."""
        with self._exclusive_use():
            with self._state_lock:
                self._check_alive()
                pieces = self._association.send(context_id, dimse.encode(command), dataset)
            self._connection.send(pieces)

    def receive(self, timeout: float) -> DimseMessage | None:
        """Return the next whole message, or None if none came within ``timeout`` seconds.

        Raises ConnectionLost when the association has ended or had to be aborted.
        """
        deadline = time.monotonic() + timeout
        left = timeout
        with self._exclusive_use():
            self._handle_events()  # bytes that came in one read with the answer to the association request
            while not self._assembler.messages:
                if left < 0:
                    return None
                if self._pending_error is not None:
                    raise self._pending_error
                self._check_alive()
                self._connection.read_once(left)
                self._handle_events()
                left = deadline - time.monotonic()
            return self._assembler.messages.pop(0)

    @contextmanager
    def _exclusive_use(self) -> Iterator[None]:
        """Hold the socket for this thread, so that abort() in another thread does not close it meanwhile."""
        try:
            with self._use_lock:
                yield
        except ConnectionLost as error:
            self.abort()
            raise ConnectionLost(f"{self.peer}: {error}") from error
        except RemoteProtocolError as error:
            self.abort()
            raise ConnectionLost(f"{self.peer} broke the protocol: {error}") from error
        finally:
            if not self._is_alive:
                self._close()

    def _close(self) -> None:
        self._assembler.abort()
        self._connection.close()

    def _check_alive(self) -> None:
        if not self._is_alive:
            raise ConnectionLost("the association has ended")

    def _handle_events(self) -> None:
        with self._state_lock:
            for event in self._association.events():
                if isinstance(event, PDVFragment):
                    self._handle_fragment(event)
                elif isinstance(event, ReleaseRequested):
                    self._connection.send([self._association.confirm_release()])
                    self._pending_error = ConnectionLost("it released the association")
                elif isinstance(event, Aborted):
                    self._pending_error = ConnectionLost("it aborted the association")

    def _handle_fragment(self, fragment: PDVFragment) -> None:
        response = self._assembler.feed(fragment)
        if self._assembler.is_receiving:
            self.last_store_at = time.monotonic()
        if response is not None:
            self._connection.send(self._association.send(fragment.context_id, dimse.encode(response)))

    def release(self, timeout: float = 5.0) -> None:
        """Release the association (PS3.8 7.2), or abort it without a confirmation in time; never raises."""
        deadline = time.monotonic() + timeout
        try:
            with self._exclusive_use():
                self._check_alive()
                with self._state_lock:
                    request = self._association.release()
                self._connection.send([request])
                while (left := deadline - time.monotonic()) > 0 and not self._is_released():
                    self._connection.read_once(left)
        except ConnectionLost:
            pass
        self.abort()

    def _is_released(self) -> bool:
        with self._state_lock:
            for event in self._association.events():
                if isinstance(event, ReleaseRequested):  # a collision: PS3.8 7.2.2.7
                    self._connection.send([self._association.confirm_release()])
                elif isinstance(event, Released | Aborted):
                    return True
        return False

    def abort(self) -> None:
        """Abort the association; never raises, and may be called from any thread."""
        idle = self._use_lock.acquire(blocking=False)
        with self._state_lock:
            self._is_alive = False
            abort_pdu = self._association.abort()
        self._connection.shutdown(abort_pdu, in_use=not idle)
        if idle:
            self._close()
            self._use_lock.release()
