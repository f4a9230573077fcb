"""TLS with whoever connects, and why it failed in words for our own user."""

from __future__ import annotations

import socket
import ssl
import time

#: How long a peer that failed has to read why before the connection is closed.
_CLOSE_TIMEOUT = 2.0

#: By OpenSSL's reason; an alert is the peer's word.
_REASONS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it does not speak TLS",
    "UNKNOWN_PROTOCOL": "it does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "its version of TLS is too old: 1.2 or 1.3 is needed",
    "NO_SHARED_CIPHER": "it offers no cipher suite of the BCP 195 profile",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has no certificate to show",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not take our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that our certificate has expired",
}


def wrap_socket(sock: socket.socket, tls: ssl.SSLContext, timeout: float) -> ssl.SSLSocket:
    """Wrap a connection for TLS; the hands are still to be shaken."""
    sock.settimeout(timeout)
    return tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


def describe_failure(error: Exception) -> str:
    """The sentence for a handshake that failed; empty where the peer just went away."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or not isinstance(error, ssl.SSLError):
        return ""
    reason = error.reason or "unknown"
    return _REASONS.get(reason) or f"TLS failed: {reason.replace('_', ' ').lower()}"


def close_after_failure(sock: socket.socket) -> None:
    """Close after a failed handshake; never raises.

    Closing with bytes unread would reset the connection, and the peer might never see the alert.
    """
    deadline = time.monotonic() + _CLOSE_TIMEOUT
    try:
        # Below TLS, which has failed.
        socket.socket.shutdown(sock, socket.SHUT_WR)
        sock.settimeout(_CLOSE_TIMEOUT)
        while time.monotonic() < deadline and socket.socket.recv(sock, 4096):
            pass
    except (OSError, ValueError):
        pass
    sock.close()
