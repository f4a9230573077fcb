"""HTTP to a DICOMweb server: a connection for each thread, who we are, where we are sent to, what went wrong.

No URL with a query stands in a message or a log: it has patient identifiers in it.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx

from dicom_quarry.archive.dicomweb.auth import Credentials
from dicom_quarry.archive.dicomweb.connection import TickHook
from dicom_quarry.archive.dicomweb.status import describe, translate_errors, translate_tls_rejection
from dicom_quarry.archive.dicomweb.transport import HttpTransport, make_http_transport
from dicom_quarry.config.credentials import HttpSettings
from dicom_quarry.errors import ConnectionLost, OperatorActionRequired
from dicom_quarry.model import BaseUri
from dicom_quarry.version import __version__
from dicom_quarry.wire.tls import requestor_context

# It writes whole URLs.
logging.getLogger("httpx").setLevel(logging.WARNING)

#: A kept connection that ended before a request shows it at once; so many seconds are that.
_STALE_WITHIN_SECONDS = 1.0

_MAX_REDIRECTS = 5

#: Seconds that a server may take to read a request of ours.
_WRITE_TIMEOUT = 30.0

QueryParameters = Mapping[str, str] | list[tuple[str, str]]


class HttpClient:
    """Requests to one server, from any thread. ``connect`` is how long a connection may take, in seconds."""

    def __init__(self, base: BaseUri, access: HttpSettings, *, connect_timeout: float = 10.0) -> None:
        """Raises ConfigError for certificates and secrets that cannot be used."""
        self.base = base
        self._credentials = Credentials(access)
        self._proxy = access.proxy
        self._connect_timeout = connect_timeout
        self._tls = _make_tls_context(base, access)
        self._tick_hook = TickHook()
        self._lock = threading.Lock()
        self._transports: dict[int, HttpTransport] = {}
        self._closed = False

    @contextmanager
    def get(
        self,
        path: str,
        query: QueryParameters = (),  # type: ignore[assignment]
        *,
        accept: str,
        read_timeout: float | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[httpx.Response]:
        """The answer to a GET below the base, its body to be streamed by ``iter_raw`` within the context.

        ``silence`` seconds without a byte are Lost; ``tick`` is called about once a second while nothing is
        heard, and may raise. Raises Unreachable, Lost, and Unusable where we are not let in.
        """

        def check_open() -> None:
            if self._closed:
                raise ConnectionLost("the archive was closed on this side")
            tick()

        url = httpx.URL(f"{self.base}{path}", params=query or None)
        with (
            self._tick_hook.use(check_open),
            translate_errors(self.base, self._proxy, self._connect_timeout, read_timeout),
        ):
            with translate_tls_rejection(self.base):
                response = self._request(url, accept, read_timeout)
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

    def close(self) -> None:
        """Ask nothing more; what is in progress on other threads ends as Lost."""
        self._closed = True
        self.release_thread()

    def _request(self, url: httpx.URL, accept: str, read_timeout: float | None) -> httpx.Response:
        """Ask, with new credentials where the old ones are refused, and where the server sends us to."""
        headers = {
            "Accept": accept,
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",
            "User-Agent": f"quarry/{__version__}",
        }
        renewed = False
        for _ in range(_MAX_REDIRECTS):
            shown = self._credentials.headers()
            response = self._send(url, {**headers, **shown}, read_timeout)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                response.close()
                if renewed or not self._credentials.renew(shown.get("Authorization", "")):
                    raise OperatorActionRequired(f"{self.base}: {describe(response.status_code)}")
                renewed = True
            elif response.has_redirect_location:
                response.close()
                url = self._resolve_redirect(url, response)
            else:
                return response
        raise OperatorActionRequired(f"{self.base} sends us from one address to the next without an end")

    def _resolve_redirect(self, url: httpx.URL, response: httpx.Response) -> httpx.URL:
        """Where a redirect leads: nowhere but to the same server, which alone may see our credentials."""
        try:
            target = url.join(response.headers["Location"])
        except httpx.InvalidURL:
            raise ConnectionLost(f"{self.base} sends us to something that is no address") from None
        if (target.scheme, target.host, target.port) == (url.scheme, url.host, url.port):
            return target
        where = f"{target.scheme}://{target.host}"
        raise OperatorActionRequired(
            f"{self.base} sends us to another server ({where}): if that is right, give its address"
        )

    def _send(self, url: httpx.URL, headers: Mapping[str, str], read_timeout: float | None) -> httpx.Response:
        """Send it; once more, on a new connection, if the one that was kept turns out to have ended."""
        thread_id = threading.get_ident()
        with self._lock:
            transport = self._transports.get(thread_id)
            fresh = transport is None
            if transport is None:
                transport = make_http_transport(self._tick_hook, self.base, tls=self._tls, proxy=self._proxy)
                self._transports[thread_id] = transport
        if self._closed:
            raise ConnectionLost("the archive was closed on this side")
        timeout = httpx.Timeout(self._connect_timeout, read=read_timeout, write=_WRITE_TIMEOUT)
        request = httpx.Request("GET", url, headers=headers, extensions={"timeout": timeout.as_dict()})
        sent_at = time.monotonic()
        try:
            return transport.handle_request(request)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if fresh or time.monotonic() - sent_at > _STALE_WITHIN_SECONDS:
                raise
            return transport.handle_request(request)


def _make_tls_context(base: BaseUri, access: HttpSettings) -> ssl.SSLContext:
    if base.scheme == "https":
        return requestor_context(access.ca, access.certificate, access.key)
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and is not needed
