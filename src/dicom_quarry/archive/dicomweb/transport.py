"""HTTP to one server for one thread: the connection, the proxy, cookies.

It uses the standard library's http.client: docs/architecture.md has the reasons, under Decisions.
"""

from __future__ import annotations

import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.client import HTTPResponse
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from dicom_quarry.archive.dicomweb.connection import HttpConnection, translate_read_errors
from dicom_quarry.archive.dicomweb.cookies import CookieJar
from dicom_quarry.archive.dicomweb.http_errors import (
    BrokenConnection,
    ConnectError,
    InvalidResponse,
    ProxyError,
    ReadTimeout,
)
from dicom_quarry.errors import OperatorActionRequired
from dicom_quarry.model import BaseUri

#: Most bytes of a body that are read at once.
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; ``authorization`` is the value of Proxy-Authorization, or empty."""

    host: str
    port: int
    authorization: str = ""

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Read ``http://[USER:PASSWORD@]HOST[:PORT]``; raises ValueError."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("not the address of an HTTP proxy")
        authorization = ""
        if parts.username or parts.password:
            login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            authorization = "Basic " + b64encode(login.encode()).decode()
        return cls(parts.hostname, parts.port or 80, authorization)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers that only the proxy may see."""
        return [("Proxy-Authorization", self.authorization)] if self.authorization else []


def find_proxy(setting: str, base: BaseUri) -> Proxy | None:
    """Return the proxy to a server; ``setting`` is a URL, "environment", or empty.

    Raises OperatorActionRequired where the environment names an unusable one.
    """
    url = _find_environment_proxy(base) if setting == "environment" else setting
    try:
        return Proxy.parse(url) if url else None
    except ValueError as error:
        raise OperatorActionRequired(
            "the environment names a proxy that cannot be used: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY must "
            "have the form http://HOST:PORT"
        ) from error


def _find_environment_proxy(base: BaseUri) -> str | None:
    proxies = getproxies()
    proxy = proxies.get(base.scheme) or proxies.get("all")
    return None if not proxy or proxy_bypass(f"{base.host}:{base.port}") else proxy


class HttpTransport:
    """Sends GET requests to the server of ``base``, over one connection that is kept open for the next.

    Credentials, redirects and repetitions are for its owner. A server's cookies are sent back to it.
    """

    def __init__(
        self, base: BaseUri, *, tls: ssl.SSLContext, proxy: Proxy | None, connect_timeout: float
    ) -> None:
        """Raises ConnectError for a host name that cannot be used."""
        self._base = base
        self._tls = tls
        self._proxy = proxy
        self._connect_timeout = connect_timeout
        self._origin = find_origin(base)
        self._cookies = CookieJar(base)
        self._lock = threading.Lock()
        self._idle_connection: HttpConnection | None = None
        self._used_connection: HttpConnection | None = None
        self._closed = False

    def get(
        self,
        target: str,
        headers: Mapping[str, str],
        *,
        read_timeout: float | None,
        tick: Callable[[], None],
    ) -> Response:
        """Request a path with its query; the response must be closed.

        ``read_timeout`` is the longest silence in seconds. ``tick`` is called about once a second until the
        response is read; what it raises ends the request. Raises HttpError.
        """
        connection = self._take_idle()
        if connection is not None and not connection.is_reusable():
            connection.close()
            connection = None
        if connection is None:
            connection = self._connect()
        self._used_connection = connection
        try:
            if self._closed:
                raise BrokenConnection("this side closed it")
            path = target.partition("?")[0]
            fields = self._complete_headers(path, headers)
            # A proxy needs the whole URL, unless it only tunnels (RFC 9112 3.2.2).
            if self._proxy is not None and self._base.scheme == "http":
                target = f"{self._origin}{target}"
                fields += self._proxy.headers
            message = connection.send_request("GET", target, fields, read_timeout=read_timeout, tick=tick)
        except BaseException:
            connection.close()
            raise
        for cookie in message.headers.get_all("Set-Cookie", ()):
            self._cookies.store(cookie, path, datetime.now(UTC))
        return Response(self, connection, message)

    def close(self) -> None:
        """Close the connection; one in use is closed when its response is."""
        self._closed = True
        self.release_idle()

    def release_idle(self) -> None:
        """Close the connection unless it is in use; from any thread."""
        connection = self._take_idle()
        if connection is not None:
            connection.close()

    def _take_idle(self) -> HttpConnection | None:
        with self._lock:
            connection, self._idle_connection = self._idle_connection, None
        return connection

    def cut(self) -> None:
        """Cut the connection in use, from any thread, and refuse further requests."""
        self._closed = True
        connection = self._used_connection
        if connection is not None:
            connection.cut()

    def release(self, connection: HttpConnection) -> None:
        """Keep the connection of a response that was read to its end for the next request."""
        with self._lock:
            is_kept = not self._closed and self._idle_connection is None
            if is_kept:
                connection.mark_idle()
                self._idle_connection = connection
        if not is_kept:
            connection.close()

    def _complete_headers(self, path: str, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        """Add Host and Cookie, unless the settings name them."""
        given = {name.lower() for name in headers}
        fields = list(headers.items())
        if "host" not in given:
            fields.insert(0, ("Host", self._origin.partition("://")[2]))
        if "cookie" not in given and (cookie := self._cookies.header(path, datetime.now(UTC))):
            fields.append(("Cookie", cookie))
        return fields

    def _connect(self) -> HttpConnection:
        peer = self._proxy or self._base
        try:
            sock = socket.create_connection((peer.host, peer.port), timeout=self._connect_timeout)
        except (OSError, UnicodeError) as error:
            raise ConnectError(str(error)) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = HttpConnection(sock)
        if self._base.scheme == "http":
            return connection
        try:
            if self._proxy is not None:
                self._open_tunnel(connection, self._proxy)
            connection.start_tls(self._tls, self._base.host, self._connect_timeout)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_tunnel(self, connection: HttpConnection, proxy: Proxy) -> None:
        """Have the proxy connect to the server (CONNECT, RFC 9110 9.3.6)."""
        host = _ascii_host(self._base)
        authority = f"{f'[{host}]' if ':' in host else host}:{self._base.port}"
        try:
            answer = connection.send_request(
                "CONNECT",
                authority,
                [("Host", authority), *proxy.headers],
                read_timeout=self._connect_timeout,
                tick=lambda: None,
            )
        except ReadTimeout as error:
            raise ConnectError("the proxy does not answer") from error
        except (BrokenConnection, InvalidResponse) as error:
            raise ProxyError(None) from error
        if answer.status // 100 != 2:
            raise ProxyError(answer.status)


def find_origin(base: BaseUri) -> str:
    """Return scheme, host and port (RFC 6454), the port where it is not the scheme's own.

    Raises ConnectError for a host name that cannot be used.
    """
    return str(replace(base, host=_ascii_host(base), path=""))


def _ascii_host(base: BaseUri) -> str:
    """Return the host as a request names it; raises ConnectError for an invalid name."""
    try:
        return base.host if base.host.isascii() else base.host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ConnectError(str(error)) from error


class Response:
    """A response, its body still to be read: ``status`` is that of HTTP."""

    def __init__(self, transport: HttpTransport, connection: HttpConnection, message: HTTPResponse) -> None:
        self._transport = transport
        self._connection = connection
        self._message = message
        self._is_complete = not message.chunked and message.length == 0
        self.status = message.status

    def header(self, name: str, default: str = "") -> str:
        """Return a header by its name in any case; of several the values, separated by commas."""
        values = self._message.headers.get_all(name)
        return default if values is None else ", ".join(values)

    def iter_raw(self) -> Iterator[bytes]:
        """Read the body in pieces as they come, without decoding them; raises HttpError."""
        while True:
            self._connection.expect_piece(_CHUNK_BYTES)
            with translate_read_errors():
                piece = self._message.read1(_CHUNK_BYTES)
            if not piece:
                break
            yield piece
        self._complete()

    def read_into(self, buffer: memoryview) -> int:
        """Read the next bytes of the body as they come; return 0 at its end. Raises HttpError."""
        self._connection.expect_piece(len(buffer))
        with translate_read_errors():
            if self._message.chunked:
                # The library's readinto would wait until the buffer is full.
                piece = self._message.read1(len(buffer))
                count = len(piece)
                buffer[:count] = piece
            else:
                count = self._message.readinto(buffer)
        if not count:
            self._complete()
        return count

    def _complete(self) -> None:
        if self._message.length:
            raise InvalidResponse(f"{self._message.length} bytes are missing")
        self._is_complete = True

    def close(self) -> None:
        """End the response. A connection with an unread rest of it cannot serve another request."""
        if self._is_complete and not self._message.will_close:
            self._transport.release(self._connection)
        else:
            self._connection.close()
