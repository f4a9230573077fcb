"""TLS as PS3.15 B.12 wants it, the BCP 195 profile (RFC 9325): 1.2 and 1.3, forward secrecy, AEAD alone."""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from pathlib import Path

from dicom_quarry.errors import ConfigError

# RFC 9325 4.2 for TLS 1.2; the suites of TLS 1.3 all qualify.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!PSK:!DSS"

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

# By the codes of X.509 verification: openssl-verification-options(1).
_DATE_ERRORS = {9: "is not valid yet", 10: "has expired: get a new one"}


def acceptor_context(certificate: Path, key: Path | None = None, ca: Path | None = None) -> ssl.SSLContext:
    """For the receiver. With ``ca``, senders must show a certificate that it signed. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    _load_identity(context, certificate, key)
    if ca is not None:
        _load_authority(context, ca)
        # A job hears its own receiver, whoever has signed its certificate.
        _trust_only(context, certificate)
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


def self_test_context(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """To hear a receiver of our own: it shows this certificate, and so do we. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.check_hostname = False
    _load_identity(context, certificate, key)
    _trust_only(context, certificate)
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE


def _load_identity(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    def no_password() -> str:
        raise ConfigError(f"the key {key or certificate} is protected by a password: use one that is not")

    _check_readable(certificate, *([key] if key else []))
    try:
        context.load_cert_chain(certificate, key, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"the certificate {certificate} does not belong to the key {key or 'in the same file'}"
        elif key is None:
            why = f"{certificate} is no PEM file with a certificate and its key: name the key's file, too"
        else:
            why = f"{certificate} and {key} are not a certificate and its key in PEM"
        raise ConfigError(why) from error
    _check_dates(certificate, key)


def _load_authority(context: ssl.SSLContext, ca: Path) -> None:
    _check_readable(ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ConfigError(f"{ca} has no certificate of an authority in PEM") from error


def _trust_only(context: ssl.SSLContext, certificate: Path) -> None:
    """Trust the first certificate of a file: not those of its authorities, which may stand behind it."""
    found = _PEM.search(certificate.read_text(encoding="ascii", errors="replace"))
    if found:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=found[0])


def _check_readable(*paths: Path) -> None:
    """OpenSSL does not say which of two files it could not read."""
    for path in paths:
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _check_dates(certificate: Path, key: Path | None) -> None:
    """Refuse a certificate that nobody will take today.

    The ssl module does not tell its dates, but a peer's view of it does: so we meet ourselves, in memory.
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
    """A handshake as far as the client's judgement; raises SSLCertVerificationError."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = client.wrap_bio(to_client, to_server)
    server_tls = server.wrap_bio(to_server, to_client, server_side=True)
    with suppress(ssl.SSLWantReadError):
        client_side.do_handshake()
    with suppress(ssl.SSLWantReadError):
        server_tls.do_handshake()
    with suppress(ssl.SSLWantReadError):
        client_side.do_handshake()
