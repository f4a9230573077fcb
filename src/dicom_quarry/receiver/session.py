"""One connection to the receiver: TLS handshake, association, C-ECHO and C-STORE, end; one thread each."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Protocol

from dicom_quarry.errors import ConnectionLost, RemoteProtocolError
from dicom_quarry.model import Sink
from dicom_quarry.receiver.access_control import AccessDenial, AccessScope
from dicom_quarry.system.error_trace import format_trace
from dicom_quarry.system.network import cut
from dicom_quarry.wire import dimse
from dicom_quarry.wire.association import Aborted, Association, Event, Rejection, ReleaseRequested, State
from dicom_quarry.wire.c_store import CStoreHandler, IncomingInstance, Sender
from dicom_quarry.wire.connection import DEFAULT_MAX_PDU, SocketConnection
from dicom_quarry.wire.dimse import Command, CommandField, CommandReader
from dicom_quarry.wire.negotiation import (
    APPLICATION_CONTEXT,
    AcceptorPolicy,
    AssociateRequest,
    accepted_contexts,
    is_verification,
)
from dicom_quarry.wire.pdu import PDVFragment

logger = logging.getLogger(__name__)

#: Seconds between two checks of the time-outs, and of the receiver's stop, while no bytes come.
_TICK = 0.5
#: Seconds that the peer has to close the connection after our last PDU (the ARTIM timer, PS3.8 9.1.5).
_ARTIM = 2.0
#: Bytes. Within a message, fewer than this in ``stall_timeout`` seconds count as a stalled transfer.
_STALL_BYTES = 4096

#: Seconds of silence, between messages and within one, after which an association gives way to a new one
#: where there are too many.
_SILENT_BETWEEN = 1.0
_SILENT_WITHIN_MESSAGE = 10.0

#: Seconds that the peer of a failed handshake has to read the TLS alert before the connection is closed.
_CLOSE_TIMEOUT = 2.0

_AES_REMEDY = 'set tls-profile = "aes" for the older AES profile (TLS_RSA_WITH_AES_128_CBC_SHA)'
#: Messages by OpenSSL's reason; an alert was sent by the peer.
_TLS_FAILURES = {
    "WRONG_VERSION_NUMBER": "it does not use TLS",
    "HTTP_REQUEST": "it does not use TLS",
    "UNKNOWN_PROTOCOL": "it does not use TLS",
    "UNSUPPORTED_PROTOCOL": f"its TLS version is too old: TLS 1.2 or 1.3 is needed, or {_AES_REMEDY}",
    "NO_SHARED_CIPHER": "it offers no cipher suite of the BCP 195 profile: change that at the sender, or "
    + _AES_REMEDY,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it sent no client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority (CA) of our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it reports that our certificate has expired",
}

# PS3.8 table 9-21: rejected-permanent for a violation of the protocol.
_VERSION_UNKNOWN = Rejection(result=1, source=2, reason=2)
_APPLICATION_CONTEXT_UNKNOWN = Rejection(result=1, source=1, reason=2)


@dataclass(frozen=True, slots=True)
class ReceiverLimits:
    """Limits of a receiver; times are in seconds, ``max_pdu`` is in bytes.

    An archive may be silent for a long time between two instances of a C-MOVE: an idle association is kept
    without limit unless ``idle_timeout`` is set. Associations for C-ECHO alone have limits of their own.
    """

    max_associations: int = 64
    max_per_peer: int = 32
    max_echo: int = 16
    echo_idle_timeout: float = 15.0
    max_pending: int = 64  # connections without an association; one more closes the oldest
    request_timeout: float = 30.0
    idle_timeout: float | None = None
    stall_timeout: float = 120.0
    max_pdu: int = DEFAULT_MAX_PDU


class SessionHost(Protocol):
    """The receiver, as its sessions use it."""

    sink: Sink
    limits: ReceiverLimits
    tls: ssl.SSLContext | None
    is_stopping: bool

    def admit(self, session: Session, request: AssociateRequest) -> AccessScope | AccessDenial:
        """Accept an association and count it, or return the denial."""

    def on_handshake_failed(self, session: Session, reason: str) -> None:
        """Record a peer whose TLS handshake failed."""

    def on_aborted(self, session: Session, reason: str) -> None:
        """Record an association that was aborted for an error of the peer."""

    def record_instance(self, incoming: IncomingInstance) -> None:
        """Record an instance whose response is about to be sent."""


class Session:
    """The session of one peer: its association, and the responses to its C-ECHO and C-STORE requests."""

    def __init__(self, sock: socket.socket, address: str, host: SessionHost) -> None:
        self.address = address
        self._sock = sock
        self._host = host
        self._association = Association(max_pdu=host.limits.max_pdu, is_requestor=False)
        self._messages = CommandReader(())
        self._store_handler = CStoreHandler(host.sink, {}, Sender("", "", address), host.record_instance)
        self._is_finished = False
        self._is_handling = False
        self._idle_timeout = host.limits.idle_timeout
        self._last_activity = self._window_start = time.monotonic()
        self._window_bytes = 0

    def run(self) -> None:
        """Serve the connection until it ends; never raises."""
        try:
            self._channel = SocketConnection(self._start_tls(), self._association)
        except (OSError, ValueError) as error:  # ValueError: cut during the handshake
            logger.info("no TLS connection with %s: %s", self.address, type(error).__name__)
            if why := _describe_tls_failure(error):
                self._host.on_handshake_failed(self, why)
            _close_after_failure(self._sock)
            return
        try:
            while not self._is_finished:
                count = self._channel.read_once(_TICK)
                # The commit of an instance may take long: its association is not idle then.
                self._is_handling = count > 0
                for event in self._association.events():
                    self._handle_event(event)
                self._check_timeouts(count)
                self._is_handling = False
        except ConnectionLost as loss:
            logger.info("association with %s: %s", self.address, loss)
        except RemoteProtocolError as error:
            logger.warning("association with %s aborted, it broke the protocol: %s", self.address, error)
            self._host.on_aborted(self, f"it broke the DICOM protocol: {error}")
        except Exception as error:  # noqa: BLE001 - top of the thread: one session must not end the receiver
            logger.error("association with %s aborted: internal error\n%s", self.address, format_trace(error))
        finally:
            self._close()

    def abort(self) -> None:
        """Shut down the connection at once; may be called from any thread."""
        cut(self._sock)

    def close_socket(self) -> None:
        """Close the socket, if it is still open; for the end of the session's thread, or if it has none."""
        self._sock.close()

    def spare_seconds(self, now: float) -> float:
        """Return for how long the association has not been needed; negative while it is.

        Between two messages a short silence is enough. Within a message a sender may pause for longer.
        """
        if self._is_handling:
            return -1.0
        silent = now - self._last_activity
        return silent - (_SILENT_WITHIN_MESSAGE if self._messages.is_within_message else _SILENT_BETWEEN)

    def _start_tls(self) -> socket.socket:
        if self._host.tls:
            self._sock.settimeout(self._host.limits.request_timeout)
            # Assigned before the handshake, so that abort() can end it.
            self._sock = secured = self._host.tls.wrap_socket(
                self._sock, server_side=True, do_handshake_on_connect=False
            )
            secured.do_handshake()
        return self._sock

    def _close(self) -> None:
        try:
            self._store_handler.abort()
        finally:
            self._channel.close_gracefully(self._association.abort(), _ARTIM)
            self._channel.close()

    def _check_timeouts(self, count: int) -> None:
        """Raise ConnectionLost after a time-out, or between messages once the receiver is stopping.

        ``count`` is the number of bytes of the last read. The time-outs are those for the association
        request, for a stalled message and for an idle association.
        """
        now = time.monotonic()
        limits = self._host.limits
        self._window_bytes += count
        if count:
            self._last_activity = now
        if self._association.state is State.AWAITING_REQUEST:
            if now - self._window_start > limits.request_timeout:
                raise ConnectionLost(f"no association request within {limits.request_timeout:g} s")
        elif self._messages.is_within_message:
            if now - self._window_start > limits.stall_timeout:
                if self._window_bytes < _STALL_BYTES:
                    raise ConnectionLost(
                        f"only {self._window_bytes} bytes of a message in {limits.stall_timeout:g} s"
                    )
                self._window_start, self._window_bytes = now, 0
        else:
            self._window_start, self._window_bytes = now, 0
            if self._host.is_stopping:
                raise ConnectionLost("the receiver is stopping")
            if self._idle_timeout is not None and now - self._last_activity > self._idle_timeout:
                raise ConnectionLost(f"idle for {self._idle_timeout:g} s")

    # ---- the association

    def _handle_event(self, event: Event) -> None:
        match event:
            case PDVFragment():
                self._handle_fragment(event)
            case AssociateRequest():
                self._handle_associate_request(event)
            case ReleaseRequested():
                self._channel.send([self._association.confirm_release()])
                self._is_finished = True
            case Aborted():
                raise ConnectionLost("aborted by the sender")

    def _handle_associate_request(self, request: AssociateRequest) -> None:
        rejection = self._check_protocol(request)
        decision = rejection or self._host.admit(self, request)
        if isinstance(decision, AccessDenial):
            rejection = decision.rejection
        if rejection:
            self._channel.send([self._association.reject(rejection)])
            self._is_finished = True
            return
        policy = AcceptorPolicy(self._host.limits.max_pdu)
        if decision is AccessScope.ECHO:
            policy = AcceptorPolicy(self._host.limits.max_pdu, accepts=is_verification)
            self._idle_timeout = self._host.limits.echo_idle_timeout
        accept = policy.answer(request)
        accepted = accepted_contexts(request, accept)
        storage = {
            number: one.transfer_syntax
            for number, one in accepted.items()
            if not is_verification(one.abstract_syntax)
        }
        sender = Sender(request.calling, request.called, self.address)
        self._store_handler = CStoreHandler(self._host.sink, storage, sender, self._host.record_instance)
        self._messages = CommandReader(accepted)
        self._channel.send([self._association.accept(accept)])

    @staticmethod
    def _check_protocol(request: AssociateRequest) -> Rejection | None:
        if not request.protocol_version & 1:
            return _VERSION_UNKNOWN
        if request.application_context != APPLICATION_CONTEXT:
            return _APPLICATION_CONTEXT_UNKNOWN
        return None

    # ---- messages

    def _handle_fragment(self, fragment: PDVFragment) -> None:
        message = self._messages.feed(fragment)
        if isinstance(message, Command):
            self._handle_command(fragment.context_id, message)
        elif message is not None:
            self._send_response(fragment.context_id, self._store_handler.feed(message))

    def _handle_command(self, context_id: int, command: Command) -> None:
        match command.field:
            case CommandField.C_STORE_RQ:
                self._send_response(context_id, self._store_handler.begin(context_id, command))
            case CommandField.C_ECHO_RQ if not command.has_dataset:
                self._send_response(context_id, dimse.response(command, dimse.SUCCESS))
            case CommandField.C_CANCEL_RQ if not command.has_dataset:
                pass  # C-STORE cannot be cancelled
            case _:
                raise RemoteProtocolError(f"{command.field.name} is not a request to a Storage SCP")

    def _send_response(self, context_id: int, response: Command | None) -> None:
        if response is not None:
            self._channel.send(self._association.send(context_id, dimse.encode(response)))


def _describe_tls_failure(error: Exception) -> str:
    """Return the message for a failed TLS handshake; empty if the peer just closed the connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or not isinstance(error, ssl.SSLError):
        return ""
    reason = error.reason or "unknown"
    return _TLS_FAILURES.get(reason) or f"TLS failed: {reason.replace('_', ' ').lower()}"


def _close_after_failure(sock: socket.socket) -> None:
    """Close after a failed handshake; never raises.

    Closing with bytes unread would reset the connection, and the peer might never see the alert.
    """
    deadline = time.monotonic() + _CLOSE_TIMEOUT
    try:
        # The methods of the plain socket: TLS has failed.
        socket.socket.shutdown(sock, socket.SHUT_WR)
        sock.settimeout(_CLOSE_TIMEOUT)
        while time.monotonic() < deadline and socket.socket.recv(sock, 4096):
            pass
    except (OSError, ValueError):
        pass
    sock.close()
