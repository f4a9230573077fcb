"""Why an association could not be had, in words that say what to do."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicom_quarry.wire.association import Rejection
    from dicom_quarry.wire.negotiation import AssociateRequest

_TRANSIENT = 2  # result, PS3.8 table 9-21

# By (source, reason) of PS3.8 table 9-21.
_REJECTIONS = {
    (1, 1): "it gave no reason; is the calling AE title {calling} admitted there, from this computer?",
    (1, 2): "it does not support DICOM's application context",
    (1, 3): "it does not know the calling AE title {calling}; have it registered there",
    (1, 7): "it does not go by the AE title {called}; check the title of the archive",
    (2, 1): "it gave no reason",
    (2, 2): "it does not support this version of the protocol",
    (3, 1): "it is congested for now",
    (3, 2): "it has as many associations as it takes",
}

_SET_CA = "; if it is the right one, set ca = to the file of the authority that signed it"
_USE_CERTIFICATE_NAME = "; use a name of the host that stands in it"

# By the codes of X.509 verification: openssl-verification-options(1).
_REMEDIES = {
    10: "; it has to be renewed there",
    **dict.fromkeys((18, 19, 20, 21), _SET_CA),
    **dict.fromkeys((62, 64), _USE_CERTIFICATE_NAME),
}


def describe_rejection(where: str, request: AssociateRequest, rejection: Rejection) -> str:
    """The sentence for an A-ASSOCIATE-RJ."""
    known = _REJECTIONS.get((rejection.source, rejection.reason))
    code = f"result {rejection.result}, source {rejection.source}, reason {rejection.reason}"
    why = known.format(calling=request.calling, called=request.called) if known else "for an unknown reason"
    how = "rejected the association for now" if rejection.result == _TRANSIENT else "rejected the association"
    return f"{where} {how}: {why} ({code})"


def describe_connect_error(host: str, port: int, timeout: float, error: OSError) -> str:
    """The sentence for a connection that could not be made."""
    where = f"{host}:{port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = _REMEDIES.get(error.verify_code, "")
        return f"the certificate of {where} is not trusted: {error.verify_message}{remedy}"
    if isinstance(error, ssl.SSLError):
        return describe_tls_error(where, error)
    if isinstance(error, socket.gaierror):
        return f"the name {host} is not known to this computer: check its spelling, or give the IP address"
    if isinstance(error, TimeoutError):
        return f"{where} did not answer within {timeout:g} s: a wrong address, or a firewall in between"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {where}: is the archive running, and is this its port?"
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return f"there is no route to {where}: check the address and this computer's network"
    return f"no connection to {where}: {error.strerror or error}"


def describe_tls_error(where: str, error: ssl.SSLError) -> str:
    """The sentence for TLS that the two sides could not agree on; an alert is the peer's word."""
    if isinstance(error, ssl.SSLEOFError):
        return f"{where} ended the connection while TLS began: does this port speak TLS, and does it know us?"
    reason = (error.reason or "unknown").replace("_", " ").lower()
    if "alert" in reason:
        alert = reason.partition("alert ")[2]
        return f"{where} refused our TLS ({alert}): does it want another certificate of ours?"
    if reason in ("wrong version number", "unknown protocol", "http request"):
        return f"{where} does not answer in TLS: is this its port for TLS?"
    return f"TLS with {where} failed: {reason}"


def describe_early_close(where: str, cause: BaseException | None, *, is_tls: bool) -> str:
    """The sentence for a connection that ended before the association request was answered."""
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        # With TLS 1.3 a certificate of ours is judged after our side of the handshake is done.
        return describe_tls_error(where, cause)
    doubt = "does it want another certificate of ours?" if is_tls else "does it expect TLS?"
    return (
        f"{where} closed the connection without an answer to the association request: "
        f"does it admit this computer, and {doubt}"
    )
