"""HTTP to a DICOMweb server: a connection for each thread, credentials, redirects, errors.

URLs with a query contain patient identifiers: they never reach a message or a log.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import quote, urljoin, urlsplit

from dicom_quarry.archive.dicomweb.auth import Credentials
from dicom_quarry.archive.dicomweb.http_errors import (
    BrokenConnection,
    InvalidResponse,
    translate_errors,
    translate_tls_rejection,
)
from dicom_quarry.archive.dicomweb.status import describe
from dicom_quarry.archive.dicomweb.transport import HttpTransport, Response, find_origin, find_proxy
from dicom_quarry.config.credentials import HttpSettings
from dicom_quarry.errors import ConnectionLost, OperatorActionRequired
from dicom_quarry.model import BaseUri
from dicom_quarry.version import __version__
from dicom_quarry.wire.tls import requestor_context

#: A failure within so many seconds shows that the kept connection had already ended.
_STALE_WITHIN_SECONDS = 1.0

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}

# Hosts of redirects reach a message: names and addresses alone.
_HOST = re.compile(r"[0-9A-Za-z._:-]*")

#: What may remain in a path or a query (RFC 3986 3.3, 3.4); anything else is percent-encoded.
_UNQUOTED = "/?:@!$&'()*+,;=-._~%"


class HttpClient:
    """Requests to one server, from any thread; ``connect_timeout`` is in seconds."""

    def __init__(self, base: BaseUri, access: HttpSettings, *, connect_timeout: float = 10.0) -> None:
        """Raises ConfigError for certificates and secrets that cannot be used."""
        self.base = base
        self._credentials = Credentials(access)
        self._proxy = access.proxy
        self._connect_timeout = connect_timeout
        self._tls = _make_tls_context(base, access)
        self._lock = threading.Lock()
        self._transports: dict[int, HttpTransport] = {}
        self._closed = False

    @contextmanager
    def get(
        self,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        accept: str,
        read_timeout: float | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[Response]:
        """Send a GET for a path below the base; read the body with ``iter_raw`` within the context.

        The values of ``query`` are percent-encoded where they must be.
        ``read_timeout`` is the longest silence in seconds. ``tick`` is called about once a second while no
        bytes come; what it raises ends the request. Raises Unreachable, ConnectionLost, and
        OperatorActionRequired where credentials or settings are wrong.
        """

        def check_open() -> None:
            if self._closed:
                raise ConnectionLost("Quarry closed its connection to the archive")
            tick()

        target = f"{self.base.path}{path}" or "/"
        if query:
            target += "?" + "&".join(f"{name}={value}" for name, value in query)
        with translate_errors(self.base, self._proxy, self._connect_timeout, read_timeout):
            with translate_tls_rejection(self.base):
                response = self._request(target, accept, read_timeout, check_open)
            try:
                yield response
            finally:
                response.close()

    def release_thread(self) -> None:
        """Close the calling thread's connection."""
        with self._lock:
            transport = self._transports.pop(threading.get_ident(), None)
        if transport is not None:
            transport.close()

    def release_idle(self) -> None:
        """Close the connections of all threads that no request uses now."""
        with self._lock:
            transports = list(self._transports.values())
        for transport in transports:
            transport.release_idle()

    def close(self) -> None:
        """Refuse further requests, and cut those in progress on other threads: they end as ConnectionLost."""
        self._closed = True
        self.release_thread()
        with self._lock:
            others = list(self._transports.values())
        for transport in others:
            transport.cut()

    def _request(
        self, target: str, accept: str, read_timeout: float | None, tick: Callable[[], None]
    ) -> Response:
        """Send the request, again with new credentials after a refusal, and follow redirects."""
        headers = {
            "Accept": accept,
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",
            "User-Agent": f"quarry/{__version__}",
        }
        renewed = False
        for _ in range(_MAX_REDIRECTS):
            credentials = self._credentials.headers()
            response = self._send(target, {**headers, **credentials}, read_timeout, tick)
            if response.status == HTTPStatus.UNAUTHORIZED:
                response.close()
                if renewed or not self._credentials.renew(credentials.get("Authorization", "")):
                    raise OperatorActionRequired(f"{self.base}: {describe(response.status)}")
                renewed = True
            elif response.status in _REDIRECTS and response.header("Location"):
                response.close()
                target = self._resolve_redirect(target, response.header("Location"))
            else:
                return response
        raise OperatorActionRequired(f"{self.base} redirects without an end. Check its address")

    def _resolve_redirect(self, target: str, location: str) -> str:
        """Return the target of a redirect. Only the same server may see the credentials."""
        origin = find_origin(self.base)
        try:
            parts = urlsplit(urljoin(f"{origin}{target}", location))
            host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
        except ValueError:
            host = "?"
        if not _HOST.fullmatch(host):
            raise ConnectionLost(f"{self.base} redirects to an invalid address")
        if (parts.scheme, host, port) != (self.base.scheme, urlsplit(origin).hostname, self.base.port):
            raise OperatorActionRequired(
                f"{self.base} redirects to another server ({parts.scheme}://{host}). "
                "If that is the right one, put its address into quarry.toml"
            )
        # Headers are read as Latin-1.
        target = quote(parts.path or "/", safe=_UNQUOTED, encoding="latin-1")
        return f"{target}?{quote(parts.query, safe=_UNQUOTED, encoding='latin-1')}" if parts.query else target

    def _send(
        self,
        target: str,
        headers: Mapping[str, str],
        read_timeout: float | None,
        tick: Callable[[], None],
    ) -> Response:
        """Send a request; repeat it on a new connection if the kept one turns out to have ended."""
        thread_id = threading.get_ident()
        with self._lock:
            transport = self._transports.get(thread_id)
            is_new = transport is None
            if transport is None:
                transport = HttpTransport(
                    self.base,
                    tls=self._tls,
                    proxy=find_proxy(self._proxy, self.base),
                    connect_timeout=self._connect_timeout,
                )
                self._transports[thread_id] = transport
        if self._closed:
            raise ConnectionLost("Quarry closed its connection to the archive")
        sent_at = time.monotonic()
        try:
            return transport.get(target, headers, read_timeout=read_timeout, tick=tick)
        except (InvalidResponse, BrokenConnection):
            if self._closed or is_new or time.monotonic() - sent_at > _STALE_WITHIN_SECONDS:
                raise
            return transport.get(target, headers, read_timeout=read_timeout, tick=tick)


def _make_tls_context(base: BaseUri, access: HttpSettings) -> ssl.SSLContext:
    if base.scheme == "https":
        return requestor_context(access.ca, access.certificate, access.key)
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts no certificate, and is not used
