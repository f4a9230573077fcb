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

from dicom_quarry.archive.dicomweb.connection import HttpConnection, TickHook, translate_read_errors
from dicom_quarry.errors import OperatorActionRequired
from dicom_quarry.model import BaseUri

#: Bytes of a body that are read at once, at most.
_CHUNK_BYTES = 1 << 18

_PORTS = {"http": 80, "https": 443}


def make_http_transport(
    tick_hook: TickHook, base: BaseUri, *, tls: ssl.SSLContext, proxy: str
) -> HttpTransport:
    """The way to one server for one thread.

    ``proxy`` is a URL, "environment", or empty. Raises Unusable where the environment names what is none.
    """
    proxy_url = _find_environment_proxy(base) if proxy == "environment" else proxy
    try:
        return HttpTransport(tick_hook, tls, httpx.Proxy(proxy_url) if proxy_url else None)
    except (ValueError, httpx.InvalidURL) as error:
        raise OperatorActionRequired(
            "the environment names a proxy that cannot be used: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY are "
            "to be http://HOST:PORT"
        ) from error


def _find_environment_proxy(base: BaseUri) -> str | None:
    """The proxy that the environment names for a server."""
    named = getproxies()
    proxy = named.get(base.scheme) or named.get("all")
    if not proxy or proxy_bypass(f"{base.host}:{base.port}"):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class HttpTransport(httpx.BaseTransport):
    """Requests without a body, over one connection that is kept open for the next.

    Who we are, redirects and time-outs are for its owner to judge. A server's cookies come back to it: some
    that stand behind a balancer need that. Raises httpx's errors.
    """

    def __init__(self, tick_hook: TickHook, tls: ssl.SSLContext, proxy: httpx.Proxy | None) -> None:
        """Raises ValueError for a proxy that speaks no HTTP."""
        if proxy is not None and proxy.url.scheme != "http":
            raise ValueError(f"a proxy that speaks {proxy.url.scheme}")
        self._tick_hook = tick_hook
        self._tls = tls
        self._proxy = proxy
        self._idle_connection: HttpConnection | None = None
        self._cookies = httpx.Cookies()
        self._closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask; the body is to be streamed, and to be closed."""
        timeout = request.extensions["timeout"]
        connection, self._idle_connection = self._idle_connection, None
        if connection is not None and not connection.is_reusable():
            connection.close()
            connection = None
        if connection is None:
            connection = self._connect(request.url, timeout)
        if self._cookies:
            self._cookies.set_cookie_header(request)
        # By a proxy, without TLS, the target is the whole URL (RFC 9112 3.2.2).
        by_proxy = self._proxy is not None and request.url.scheme == "http"
        target = str(request.url).encode("ascii") if by_proxy else request.url.raw_path
        headers = [*request.headers.raw, *(self._proxy_headers() if by_proxy else ())]
        try:
            response_head = connection.send_request(request.method.encode("ascii"), target, headers, timeout)
        except BaseException:
            connection.close()
            raise
        response_headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in response_head.getheaders()
        ]
        stream = _ResponseBody(self, connection, response_head)
        response = httpx.Response(
            response_head.status, headers=response_headers, stream=stream, request=request
        )
        if "Set-Cookie" in response.headers:
            self._cookies.extract_cookies(response)
        return response

    def close(self) -> None:
        """Close the connection, also one that is in use, when its answer is over."""
        self._closed = True
        connection, self._idle_connection = self._idle_connection, None
        if connection is not None:
            connection.close()

    def release(self, connection: HttpConnection) -> None:
        """The answer is over: the connection may serve the next request."""
        if self._closed or self._idle_connection is not None:
            connection.close()
        else:
            self._idle_connection = connection

    def _connect(self, url: httpx.URL, timeout: Mapping[str, float | None]) -> HttpConnection:
        endpoint = self._proxy.url if self._proxy is not None else url
        connect_timeout = timeout["connect"]
        try:
            sock = socket.create_connection(
                (_host(endpoint), endpoint.port or _PORTS[endpoint.scheme]), timeout=connect_timeout
            )
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error)) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = HttpConnection(sock, self._tick_hook)
        if url.scheme == "http":
            return connection
        try:
            if self._proxy is not None:
                self._tunnel(connection, url, timeout)
            connection.start_tls(self._tls, _host(url), connect_timeout)
        except BaseException:
            connection.close()
            raise
        return connection

    def _tunnel(
        self, connection: HttpConnection, url: httpx.URL, timeout: Mapping[str, float | None]
    ) -> None:
        """Have the proxy put us through (RFC 9110 9.3.6)."""
        authority = url.netloc if url.port else url.netloc + b":443"
        headers = [(b"Host", authority), *self._proxy_headers()]
        try:
            answer = connection.send_request(
                b"CONNECT", authority, headers, {**timeout, "read": timeout["connect"]}
            )
        except httpx.ReadTimeout as error:
            raise httpx.ConnectTimeout("the proxy is silent") from error
        except (httpx.ReadError, httpx.RemoteProtocolError) as error:
            raise httpx.ProxyError("it broke off") from error
        if not httpx.codes.is_success(answer.status):
            raise httpx.ProxyError(f"{answer.status} {answer.reason}")

    def _proxy_headers(self) -> list[tuple[bytes, bytes]]:
        """Who we are to the proxy."""
        if self._proxy is None or self._proxy.raw_auth is None:
            return []
        return [(b"Proxy-Authorization", b"Basic " + b64encode(b":".join(self._proxy.raw_auth)))]


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii")


class _ResponseBody(httpx.SyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, transport: HttpTransport, connection: HttpConnection, answer: HTTPResponse) -> None:
        self._transport = transport
        self._connection = connection
        self._response = answer
        self._is_complete = not answer.chunked and answer.length == 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with translate_read_errors():
                piece = self._response.read1(_CHUNK_BYTES)
            if not piece:
                break
            yield piece
        if self._response.length:
            raise httpx.RemoteProtocolError(f"{self._response.length} bytes are missing")
        self._is_complete = True

    def close(self) -> None:
        """Over: what was not read to its end has no end that the next answer could begin behind."""
        if self._is_complete and not self._response.will_close:
            self._connection.mark_idle()
            self._transport.release(self._connection)
        else:
            self._connection.close()
