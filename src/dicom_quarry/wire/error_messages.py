"""Messages for associations that could not be opened: the reason, and the next step for the user."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicom_quarry.wire.association import Rejection
    from dicom_quarry.wire.negotiation import AssociateRequest


# Reason and next step by (source, reason) of PS3.8 table 9-21.
_REJECTIONS = {
    (1, 1): (
        "it gave no reason",
        ". Check that the archive allows the calling AE title {calling} from this computer's address",
    ),
    (1, 2): ("it does not support the DICOM application context", ""),
    (1, 3): (
        "it does not know the calling AE title {calling}",
        ". Register this AE title in the archive",
    ),
    (1, 7): (
        "it does not answer to the AE title {called}",
        ". Correct the archive's AE title in your settings",
    ),
    (2, 1): ("it gave no reason", ""),
    (2, 2): ("it does not support this version of the DICOM protocol", ""),
    (3, 1): ("it is overloaded", ""),
    (3, 2): ("it has reached its limit of associations", ""),
}
_UNKNOWN_REJECTION = ("the reason is not defined in DICOM", "")

_SET_CA = ". If you trust it, set ca = to the file of the authority (CA) that signed it"
_USE_CERTIFICATE_NAME = ". Use a host name that the certificate contains"

# By the codes of X.509 verification: openssl-verification-options(1).
_REMEDIES = {
    10: ". Have it renewed on the archive's side",
    **dict.fromkeys((18, 19, 20, 21), _SET_CA),
    **dict.fromkeys((62, 64), _USE_CERTIFICATE_NAME),
}


def describe_rejection(where: str, request: AssociateRequest, rejection: Rejection) -> str:
    """Return the message for an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    reason, remedy = _REJECTIONS.get((rejection.source, rejection.reason), _UNKNOWN_REJECTION)
    code = f"result {rejection.result}, source {rejection.source}, reason {rejection.reason}"
    for_now = " for now" if rejection.is_transient else ""
    text = f"{reason} ({code}){remedy}".format(calling=request.calling, called=request.called)
    return f"{where} rejected the association{for_now}: {text}"


def describe_connect_error(host: str, port: int, timeout: float, error: OSError) -> str:
    """Return the message for a connection that could not be opened; ``timeout`` is in seconds."""
    where = f"{host}:{port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = _REMEDIES.get(error.verify_code, "")
        return f"the certificate of {where} is not trusted: {error.verify_message}{remedy}"
    if isinstance(error, ssl.SSLError):
        return describe_tls_error(where, error)
    if isinstance(error, socket.gaierror):
        return f"the host name {host} is unknown. Check its spelling, or use the IP address"
    if isinstance(error, TimeoutError):
        return (
            f"{where} did not answer within {timeout:g} s. "
            "Check the address, and whether a firewall blocks this port"
        )
    if isinstance(error, ConnectionRefusedError):
        return f"{where} refused the connection. Check that the archive is running and that this is its port"
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return f"the network has no route to {where}. Check the address and this computer's network settings"
    return f"no connection to {where}: {error.strerror or error}"


def may_lack_cipher(error: OSError) -> bool:
    """Return True for a failed handshake that may have no cipher or version of TLS in common."""
    if isinstance(error, ssl.SSLEOFError):
        return True
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    return any(word in reason for word in ("HANDSHAKE_FAILURE", "INSUFFICIENT_SECURITY", "PROTOCOL"))


def describe_aes_profile(where: str) -> str:
    """Return the message for a peer that knows the older AES profile of TLS alone (PS3.15 B.3, retired)."""
    return (
        f"{where} uses the older AES profile of TLS (TLS_RSA_WITH_AES_128_CBC_SHA), which Quarry uses "
        'only on request. Ask the PACS team for the BCP 195 profile, or set tls-profile = "aes" for it '
        "in quarry.toml"
    )


def describe_tls_error(where: str, error: ssl.SSLError) -> str:
    """Return the message for a failed TLS handshake; an OpenSSL "alert" was sent by the peer."""
    if isinstance(error, ssl.SSLEOFError):
        return (
            f"{where} closed the connection during the TLS handshake. "
            "Check that this port uses TLS, and that the archive accepts our certificate"
        )
    reason = (error.reason or "unknown").replace("_", " ").lower()
    if "alert" in reason:
        alert = reason.partition("alert ")[2]
        return (
            f"{where} refused the TLS connection ({alert}). "
            "Check whether the archive expects another client certificate"
        )
    if reason in ("wrong version number", "unknown protocol", "http request"):
        return f"{where} did not answer with TLS. Check that this is the archive's port for TLS"
    return f"TLS with {where} failed: {reason}"


def describe_early_close(where: str, cause: BaseException | None, *, is_tls: bool) -> str:
    """Return the message for a connection that ended before the answer to the association request."""
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        # With TLS 1.3 the peer verifies our certificate after our side of the handshake is complete.
        return describe_tls_error(where, cause)
    doubt = "expects another client certificate" if is_tls else "expects TLS"
    return (
        f"{where} closed the connection without an answer to the association request. "
        f"Check whether the archive allows this computer, and whether it {doubt}"
    )
