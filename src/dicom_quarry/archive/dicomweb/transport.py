"""The transport under httpx: one connection for one thread, over the standard library's HTTP.

In the place of httpcore and h11, which take three times the processor time for a small request, and copy each
byte of a large answer three times more.
"""

from __future__ import annotations

import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from urllib.request import getproxies, proxy_bypass

import httpx

from dicom_quarry.archive.dicomweb.connection import Connection, Waiting, reading
from dicom_quarry.errors import Unusable
from dicom_quarry.model import BaseUri

#: Bytes of a body that are read at once, at most.
_READ = 1 << 18

_PORTS = {"http": 80, "https": 443}


def make_transport(waiting: Waiting, base: BaseUri, *, tls: ssl.SSLContext, proxy: str) -> Transport:
    """The way to one server for one thread.

    ``proxy`` is a URL, "environment", or empty. Raises Unusable where the environment names what is none.
    """
    way = _environments(base) if proxy == "environment" else proxy
    try:
        return Transport(waiting, tls, httpx.Proxy(way) if way else None)
    except (ValueError, httpx.InvalidURL) as error:
        raise Unusable(
            "the environment names a proxy that cannot be used: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY are "
            "to be http://HOST:PORT"
        ) from error


def _environments(base: BaseUri) -> str | None:
    """The proxy that the environment names for a server."""
    named = getproxies()
    proxy = named.get(base.scheme) or named.get("all")
    if not proxy or proxy_bypass(f"{base.host}:{base.port}"):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class Transport(httpx.BaseTransport):
    """Requests without a body, over one connection that is kept open for the next.

    Who we are, redirects and time-outs are for its owner to judge. A server's cookies come back to it: some
    that stand behind a balancer need that. Raises httpx's errors.
    """

    def __init__(self, waiting: Waiting, tls: ssl.SSLContext, proxy: httpx.Proxy | None) -> None:
        """Raises ValueError for a proxy that speaks no HTTP."""
        if proxy is not None and proxy.url.scheme != "http":
            raise ValueError(f"a proxy that speaks {proxy.url.scheme}")
        self._waiting = waiting
        self._tls = tls
        self._proxy = proxy
        self._kept: Connection | None = None
        self._cookies = httpx.Cookies()
        self._closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask; the body is to be streamed, and to be closed."""
        timeout = request.extensions["timeout"]
        connection, self._kept = self._kept, None
        if connection is not None and not connection.is_good():
            connection.close()
            connection = None
        if connection is None:
            connection = self._connect(request.url, timeout)
        if self._cookies:
            self._cookies.set_cookie_header(request)
        # By a proxy, without TLS, the target is the whole URL (RFC 9112 3.2.2).
        by_proxy = self._proxy is not None and request.url.scheme == "http"
        target = str(request.url).encode("ascii") if by_proxy else request.url.raw_path
        headers = [*request.headers.raw, *(self._shown() if by_proxy else ())]
        try:
            answer = connection.ask(request.method.encode("ascii"), target, headers, timeout)
        except BaseException:
            connection.close()
            raise
        came = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.getheaders()]
        stream = _Body(self, connection, answer)
        response = httpx.Response(answer.status, headers=came, stream=stream, request=request)
        if "Set-Cookie" in response.headers:
            self._cookies.extract_cookies(response)
        return response

    def close(self) -> None:
        """Close the connection, also one that is in use, when its answer is over."""
        self._closed = True
        connection, self._kept = self._kept, None
        if connection is not None:
            connection.close()

    def keep(self, connection: Connection) -> None:
        """The answer is over: the connection may serve the next request."""
        if self._closed or self._kept is not None:
            connection.close()
        else:
            self._kept = connection

    def _connect(self, url: httpx.URL, timeout: Mapping[str, float | None]) -> Connection:
        at = self._proxy.url if self._proxy is not None else url
        patience = timeout["connect"]
        try:
            sock = socket.create_connection((_host(at), at.port or _PORTS[at.scheme]), timeout=patience)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error)) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, self._waiting)
        if url.scheme == "http":
            return connection
        try:
            if self._proxy is not None:
                self._tunnel(connection, url, timeout)
            connection.secure(self._tls, _host(url), patience)
        except BaseException:
            connection.close()
            raise
        return connection

    def _tunnel(self, connection: Connection, url: httpx.URL, timeout: Mapping[str, float | None]) -> None:
        """Have the proxy put us through (RFC 9110 9.3.6)."""
        authority = url.netloc if url.port else url.netloc + b":443"
        headers = [(b"Host", authority), *self._shown()]
        try:
            answer = connection.ask(b"CONNECT", authority, headers, {**timeout, "read": timeout["connect"]})
        except httpx.ReadTimeout as error:
            raise httpx.ConnectTimeout("the proxy is silent") from error
        except (httpx.ReadError, httpx.RemoteProtocolError) as error:
            raise httpx.ProxyError("it broke off") from error
        if not httpx.codes.is_success(answer.status):
            raise httpx.ProxyError(f"{answer.status} {answer.reason}")

    def _shown(self) -> list[tuple[bytes, bytes]]:
        """Who we are to the proxy."""
        if self._proxy is None or self._proxy.raw_auth is None:
            return []
        return [(b"Proxy-Authorization", b"Basic " + b64encode(b":".join(self._proxy.raw_auth)))]


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii")


class _Body(httpx.SyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, transport: Transport, connection: Connection, answer: HTTPResponse) -> None:
        self._transport = transport
        self._connection = connection
        self._answer = answer
        self._whole = not answer.chunked and answer.length == 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with reading():
                piece = self._answer.read1(_READ)
            if not piece:
                break
            yield piece
        if self._answer.length:
            raise httpx.RemoteProtocolError(f"{self._answer.length} bytes are missing")
        self._whole = True

    def close(self) -> None:
        """Over: what was not read to its end has no end that the next answer could begin behind."""
        if self._whole and not self._answer.will_close:
            self._connection.rest()
            self._transport.keep(self._connection)
        else:
            self._connection.close()
