"""Errors of an HTTP request, and the one table that turns each into an ArchiveError."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from dicom_quarry.archive.dicomweb.status import describe
from dicom_quarry.errors import ArchiveError, ConnectionLost, OperatorActionRequired, Unreachable
from dicom_quarry.model import BaseUri
from dicom_quarry.wire import error_messages


class HttpError(Exception):
    """A request that got no usable response."""


class ConnectError(HttpError):
    """No connection, by TCP or TLS; the cause is the system's error."""


class ProxyError(HttpError):
    """The proxy opened no tunnel; ``status`` is its HTTP status, None where it sent none."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"HTTP {status}" if status else "no response")
        self.status = status


class ReadTimeout(HttpError):
    """No byte of the response came for too long."""


class ResponseTimeout(HttpError):
    """The response was not complete in time, though bytes of it came; ``seconds`` is that time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not complete within {seconds:g} s")
        self.seconds = seconds


class WriteTimeout(HttpError):
    """The server did not read the request in time."""


class BrokenConnection(HttpError):
    """The connection failed while the request was sent or the response was read."""


class InvalidResponse(HttpError):
    """The response breaks the rules of HTTP/1.1 (RFC 9112), or ended before its end."""


@contextmanager
def translate_errors(
    base: BaseUri, proxy: str, connect_timeout: float, read_timeout: float | None
) -> Iterator[None]:
    """Turn each HttpError of a request and its response into an ArchiveError; time-outs are in seconds.

    Raises Unreachable, ConnectionLost and OperatorActionRequired.
    """
    try:
        yield
    except ConnectError as error:
        raise Unreachable(_describe_connect_error(base, proxy, connect_timeout, error)) from error
    except ProxyError as error:
        raise _make_proxy_error(base, error) from error
    except ReadTimeout as error:
        raise ConnectionLost(f"{base} sent nothing for {read_timeout or 0:.0f} s") from error
    except ResponseTimeout as error:
        raise ConnectionLost(f"{base} did not complete its response within {error.seconds:.0f} s") from error
    except InvalidResponse as error:
        raise ConnectionLost(
            f"{base} ended the connection in the middle of a response, or does not speak HTTP"
        ) from error
    except HttpError as error:
        raise ConnectionLost(f"the connection to {base} was lost: {error}") from error


@contextmanager
def translate_tls_rejection(base: BaseUri) -> Iterator[None]:
    """Recognise a rejected client certificate; for a request until its response begins.

    With TLS 1.3 a server verifies the client's certificate after the client has finished the handshake
    (RFC 8446 2). Its alert is therefore read in place of a response.
    """
    try:
        yield
    except (BrokenConnection, InvalidResponse) as error:
        if base.scheme != "https":
            raise
        cause = _find_os_error(error)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            raise Unreachable(error_messages.describe_tls_error(f"{base.host}:{base.port}", cause)) from error
        # The alert may have been lost, or was never sent; a server that breaks down looks the same.
        raise ConnectionLost(
            f"{base} ended the connection without a response, or does not speak HTTP. "
            "Check whether it requires another client certificate"
        ) from error


def _describe_connect_error(base: BaseUri, proxy: str, connect_timeout: float, error: ConnectError) -> str:
    cause = _find_os_error(error) or OSError("the host name is not valid")
    direct = error_messages.describe_connect_error(base.host, base.port, connect_timeout, cause)
    if not proxy or isinstance(cause, ssl.SSLError):  # a proxy is reached without TLS
        return direct
    if proxy == "environment":
        return f"{direct} (or this concerns the proxy that the environment names)"
    where = urlsplit(proxy)
    why = error_messages.describe_connect_error(
        where.hostname or "", where.port or 80, connect_timeout, cause
    )
    return f"no connection to {base} through the proxy: {why}"


def _make_proxy_error(base: BaseUri, error: ProxyError) -> ArchiveError:
    if error.status == 407:
        return OperatorActionRequired(f"no connection to {base} through the proxy: {describe(407)}")
    status = f" (HTTP {error.status})" if error.status else ""
    return Unreachable(f"no connection to {base} through the proxy: it refused the connection{status}")


def _find_os_error(error: BaseException) -> OSError | None:
    """Return the system's error that led to this one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
