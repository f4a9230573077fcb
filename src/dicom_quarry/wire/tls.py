"""TLS contexts of two profiles of PS3.15.

- ``bcp195``: BCP 195 RFC 9325 (B.12), TLS 1.2 and 1.3 with forward secrecy and AEAD only.
- ``aes``: the same, and for older devices the retired AES profile (B.3): TLS_RSA_WITH_AES_128_CBC_SHA in TLS
  1.0 to 1.2, with an RSA key. It is used only where the settings name it.
"""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Literal

from dicom_quarry.errors import ConfigError

# RFC 9325 4.2 for TLS 1.2; the suites of TLS 1.3 all qualify.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!PSK:!DSS"
# OpenSSL's name of TLS_RSA_WITH_AES_128_CBC_SHA. Its security level 0 allows TLS 1.0.
_AES_CIPHER = "AES128-SHA:@SECLEVEL=0"

TlsProfile = Literal["bcp195", "aes"]

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

# By the codes of X.509 verification: openssl-verification-options(1).
_DATE_ERRORS = {
    9: "is not valid yet. Check this computer's clock, or get a new one",
    10: "has expired. Get a new one",
}


def acceptor_context(
    certificate: Path, key: Path | None = None, ca: Path | None = None, *, profile: TlsProfile = "bcp195"
) -> ssl.SSLContext:
    """Create the context of a receiver; with ``ca``, senders need a certificate that it signed.

    Raises ConfigError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context, profile)
    _load_identity(context, certificate, key)
    if ca is not None:
        _load_authority(context, ca)
        # A job tests its own receiver with this certificate, which another authority may have signed.
        _trust_only(context, certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def requestor_context(
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    *,
    check_hostname: bool = True,
    profile: TlsProfile = "bcp195",
) -> ssl.SSLContext:
    """Create the context for associations that Quarry requests. Raises ConfigError.

    Without ``ca``, the system's authorities are trusted. ``certificate`` is for archives that require a
    client certificate. Certificates of devices often contain no host name: then ``check_hostname`` may be
    False, and the authority must be a private one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context, profile)
    context.check_hostname = check_hostname
    if ca is None:
        context.load_default_certs()
    else:
        _load_authority(context, ca)
    if certificate is not None:
        _load_identity(context, certificate, key)
    return context


def self_test_context(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """Create the context for a self-test of our own receiver, with its certificate on both sides.

    Raises ConfigError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.check_hostname = False
    _load_identity(context, certificate, key)
    _trust_only(context, certificate)
    return context


def aes_probe_context() -> ssl.SSLContext:
    """Create a context that knows the AES profile alone, to find out whether a peer does; it trusts any peer.

    Nothing is sent over such a connection.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_AES_CIPHER)
    return context


def _harden(context: ssl.SSLContext, profile: TlsProfile = "bcp195") -> None:
    is_aes = profile == "aes"
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED if is_aes else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{_CIPHERS}:{_AES_CIPHER}" if is_aes else _CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE


def _load_identity(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    def no_password() -> str:
        raise ConfigError(
            f"the key {key or certificate} is protected by a password. Use a key without a password"
        )

    _check_readable(certificate, *([key] if key else []))
    try:
        context.load_cert_chain(certificate, key, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"the certificate {certificate} does not belong to the key {key or 'in the same file'}"
        elif key is None:
            why = (
                f"{certificate} is not a PEM file with a certificate and its key. "
                "Set the file of the key, too"
            )
        else:
            why = f"{certificate} and {key} are not a certificate and its key in PEM format"
        raise ConfigError(why) from error
    _check_dates(certificate, key)


def _load_authority(context: ssl.SSLContext, ca: Path) -> None:
    _check_readable(ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ConfigError(f"{ca} does not contain an authority's certificate in PEM format") from error


def _trust_only(context: ssl.SSLContext, certificate: Path) -> None:
    """Trust the first certificate of a file only, not the authorities that may follow it."""
    found = _PEM.search(certificate.read_text(encoding="ascii", errors="replace"))
    if found:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=found[0])


def _check_readable(*paths: Path) -> None:
    """Raise ConfigError for a file that cannot be read: OpenSSL does not report which of two it was."""
    for path in paths:
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _check_dates(certificate: Path, key: Path | None) -> None:
    """Raise ConfigError for a certificate that has expired or is not valid yet.

    The ssl module does not expose the dates of an own certificate. A handshake with a client in memory
    verifies them.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    _trust_only(client, certificate)
    try:
        _handshake_in_memory(client, server)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _DATE_ERRORS:
            raise ConfigError(f"the certificate {certificate} {_DATE_ERRORS[error.verify_code]}") from error


def _handshake_in_memory(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Run a handshake until the client verifies the certificate; raises SSLCertVerificationError."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = client.wrap_bio(to_client, to_server)
    server_tls = server.wrap_bio(to_server, to_client, server_side=True)
    with suppress(ssl.SSLWantReadError):
        client_side.do_handshake()
    with suppress(ssl.SSLWantReadError):
        server_tls.do_handshake()
    with suppress(ssl.SSLWantReadError):
        client_side.do_handshake()
