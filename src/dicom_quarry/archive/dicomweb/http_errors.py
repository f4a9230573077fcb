"""httpx's errors as ours, each once. Their own texts may hold URLs, with patient identifiers in them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from dicom_quarry.archive.dicomweb.status import describe
from dicom_quarry.errors import ArchiveError, ConnectionLost, OperatorActionRequired, Unreachable
from dicom_quarry.model import BaseUri
from dicom_quarry.wire import error_messages


@contextmanager
def translate_errors(
    base: BaseUri, proxy: str, connect_timeout: float, read_timeout: float | None
) -> Iterator[None]:
    """For a request and its answer: raises Unreachable, Lost and Unusable; both times are in seconds."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Unreachable(_describe_connect_error(base, proxy, connect_timeout, error)) from error
    except httpx.ProxyError as error:
        raise _make_proxy_error(base, error) from error
    except httpx.UnsupportedProtocol as error:
        raise Unreachable(f"no way to {base}: {type(error).__name__}") from error
    except httpx.ReadTimeout as error:
        raise ConnectionLost(f"{base} was silent for {read_timeout or 0:.0f} s") from error
    except httpx.RemoteProtocolError as error:
        raise ConnectionLost(
            f"{base} broke off in the middle of an answer, or does not speak HTTP"
        ) from error
    except httpx.HTTPError as error:
        raise ConnectionLost(f"the connection to {base} was lost: {type(error).__name__}") from error


@contextmanager
def translate_tls_rejection(base: BaseUri) -> Iterator[None]:
    """For a request until its answer begins: with TLS 1.3 a server judges our certificate after our side of
    the handshake is done (RFC 8446 2), so its refusal is read in place of an answer.
    """
    try:
        yield
    except (httpx.ReadError, httpx.RemoteProtocolError) as error:
        if base.scheme != "https":
            raise
        cause = _find_os_error(error)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            raise Unreachable(error_messages.describe_tls_error(f"{base.host}:{base.port}", cause)) from error
        # Its word may have been lost, or it said none; and a server that breaks down does the same.
        raise ConnectionLost(
            f"{base} ended the connection without an answer, or does not speak HTTP: "
            "does it want another certificate of ours?"
        ) from error


def _describe_connect_error(
    base: BaseUri, proxy: str, connect_timeout: float, error: httpx.TransportError
) -> str:
    missing = TimeoutError() if isinstance(error, httpx.TimeoutException) else OSError()
    cause = _find_os_error(error) or missing
    direct = error_messages.describe_connect_error(base.host, base.port, connect_timeout, cause)
    if not proxy or isinstance(cause, ssl.SSLError):  # no TLS is spoken with a proxy
        return direct
    if proxy == "environment":
        return f"{direct} (or it is the proxy that the environment names)"
    where = urlsplit(proxy)
    why = error_messages.describe_connect_error(
        where.hostname or "", where.port or 80, connect_timeout, cause
    )
    return f"no way to {base} by the proxy: {why}"


def _make_proxy_error(base: BaseUri, error: httpx.ProxyError) -> ArchiveError:
    """The status of an answer to CONNECT is all that is known of it: its text begins with it."""
    status = str(error)[:3]
    if status == "407":
        return OperatorActionRequired(f"no way to {base} by the proxy: {describe(407)}")
    known = f" (HTTP {status})" if status.isdecimal() else ""
    return Unreachable(f"no way to {base} by the proxy: it does not let us through{known}")


def _find_os_error(error: BaseException) -> OSError | None:
    """What the system said, which was wrapped."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
