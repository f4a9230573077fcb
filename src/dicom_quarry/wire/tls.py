"""TLS as PS3.15 B.12 wants it, the BCP 195 profile (RFC 9325): 1.2 and 1.3, forward secrecy, AEAD alone."""

from __future__ import annotations

import ssl
from pathlib import Path

from dicom_quarry.errors import ConfigError

# RFC 9325 4.2 for TLS 1.2; the suites of TLS 1.3 all qualify.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!PSK:!DSS"


def acceptor_context(certificate: Path, key: Path | None = None, ca: Path | None = None) -> ssl.SSLContext:
    """For the receiver. With ``ca``, senders must show a certificate that it signed. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    _load_identity(context, certificate, key)
    if ca is not None:
        _load_authority(context, ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def requestor_context(
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    *,
    check_hostname: bool = True,
) -> ssl.SSLContext:
    """For associations that we ask for; without ``ca``, the system's authorities count. Raises ConfigError.

    ``certificate`` is for archives that want to know us by one. Certificates of devices often name no host:
    then ``check_hostname`` may be False, and the authority must be a private one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.check_hostname = check_hostname
    if ca is None:
        context.load_default_certs()
    else:
        _load_authority(context, ca)
    if certificate is not None:
        _load_identity(context, certificate, key)
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE


def _load_identity(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    def no_password() -> str:
        raise ConfigError(f"the key of {certificate} is protected by a password: use one that is not")

    try:
        context.load_cert_chain(certificate, key, password=no_password)
    except (OSError, ssl.SSLError) as error:
        where = f"{certificate} and {key}" if key else certificate
        raise ConfigError(f"{where} cannot be used as certificate and key (PEM): {error.strerror}") from error


def _load_authority(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{ca} cannot be used as certificate authority (PEM): {error.strerror}") from error
