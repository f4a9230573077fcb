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
from dicom_quarry.archive.dicomweb.connection import Waiting
from dicom_quarry.archive.dicomweb.http_errors import admitted, told
from dicom_quarry.archive.dicomweb.status import in_words
from dicom_quarry.archive.dicomweb.transport import Transport, make_transport
from dicom_quarry.config.credentials import HttpAccess
from dicom_quarry.errors import Lost, Unusable
from dicom_quarry.model import BaseUri
from dicom_quarry.version import __version__
from dicom_quarry.wire.tls import requestor_context

# It writes whole URLs.
logging.getLogger("httpx").setLevel(logging.WARNING)

#: A kept connection that ended before a request shows it at once; so many seconds are that.
_AT_ONCE = 1.0

_MOST_REDIRECTS = 5

#: Seconds that a server may take to read a request of ours.
_WRITE_PATIENCE = 30.0

Query = Mapping[str, str] | list[tuple[str, str]]


class Http:
    """Requests to one server, from any thread. ``connect`` is how long a connection may take, in seconds."""

    def __init__(self, base: BaseUri, access: HttpAccess, *, connect: float = 10.0) -> None:
        """Raises ConfigError for certificates and secrets that cannot be used."""
        self.base = base
        self._credentials = Credentials(access)
        self._proxy = access.proxy
        self._connect = connect
        self._tls = _tls(base, access)
        self._waiting = Waiting()
        self._lock = threading.Lock()
        self._ways: dict[int, Transport] = {}
        self._closed = False

    @contextmanager
    def get(
        self,
        path: str,
        query: Query = (),  # type: ignore[assignment]
        *,
        accept: str,
        silence: float | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[httpx.Response]:
        """The answer to a GET below the base, its body to be streamed by ``iter_raw`` within the context.

        ``silence`` seconds without a byte are Lost; ``tick`` is called about once a second while nothing is
        heard, and may raise. Raises Unreachable, Lost, and Unusable where we are not let in.
        """

        def go_on() -> None:
            if self._closed:
                raise Lost("the archive was closed on this side")
            tick()

        url = httpx.URL(f"{self.base}{path}", params=query or None)
        with self._waiting.by(go_on), told(self.base, self._proxy, self._connect, silence):
            with admitted(self.base):
                response = self._ask(url, accept, silence)
            try:
                yield response
            finally:
                response.close()

    def hang_up(self) -> None:
        """Close the calling thread's connection."""
        with self._lock:
            way = self._ways.pop(threading.get_ident(), None)
        if way is not None:
            way.close()

    def close(self) -> None:
        """Ask nothing more; what is in progress on other threads ends as Lost."""
        self._closed = True
        self.hang_up()

    def _ask(self, url: httpx.URL, accept: str, silence: float | None) -> httpx.Response:
        """Ask, with new credentials where the old ones are refused, and where the server sends us to."""
        headers = {
            "Accept": accept,
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",
            "User-Agent": f"quarry/{__version__}",
        }
        renewed = False
        for _ in range(_MOST_REDIRECTS):
            shown = self._credentials.headers()
            response = self._send(url, {**headers, **shown}, silence)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                response.close()
                if renewed or not self._credentials.renew(shown.get("Authorization", "")):
                    raise Unusable(f"{self.base}: {in_words(response.status_code)}")
                renewed = True
            elif response.has_redirect_location:
                response.close()
                url = self._followed(url, response)
            else:
                return response
        raise Unusable(f"{self.base} sends us from one address to the next without an end")

    def _followed(self, url: httpx.URL, response: httpx.Response) -> httpx.URL:
        """Where a redirect leads: nowhere but to the same server, which alone may see our credentials."""
        try:
            target = url.join(response.headers["Location"])
        except httpx.InvalidURL:
            raise Lost(f"{self.base} sends us to something that is no address") from None
        if (target.scheme, target.host, target.port) == (url.scheme, url.host, url.port):
            return target
        where = f"{target.scheme}://{target.host}"
        raise Unusable(
            f"{self.base} sends us to another server ({where}): if that is right, give its address"
        )

    def _send(self, url: httpx.URL, headers: Mapping[str, str], silence: float | None) -> httpx.Response:
        """Send it; once more, on a new connection, if the one that was kept turns out to have ended."""
        me = threading.get_ident()
        with self._lock:
            way = self._ways.get(me)
            fresh = way is None
            if way is None:
                way = make_transport(self._waiting, self.base, tls=self._tls, proxy=self._proxy)
                self._ways[me] = way
        if self._closed:
            raise Lost("the archive was closed on this side")
        timeout = httpx.Timeout(self._connect, read=silence, write=_WRITE_PATIENCE)
        request = httpx.Request("GET", url, headers=headers, extensions={"timeout": timeout.as_dict()})
        asked = time.monotonic()
        try:
            return way.handle_request(request)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if fresh or time.monotonic() - asked > _AT_ONCE:
                raise
            return way.handle_request(request)


def _tls(base: BaseUri, access: HttpAccess) -> ssl.SSLContext:
    if base.scheme == "https":
        return requestor_context(access.ca, access.certificate, access.key)
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and is not needed
