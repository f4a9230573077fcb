"""The sockets under httpx: whoever waits for a server is asked once a second whether to go on waiting."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from dicom_quarry.errors import Unusable
from dicom_quarry.model import BaseUri

#: Seconds between two looks at whether to go on waiting.
TICK = 1.0

#: More than httpcore asks of a socket at once: large bodies come in fewer pieces.
_READ = 1 << 18

# As for associations (wire/sockets.py): what a server writes in two pieces would take 40 ms more.
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class Waiting(threading.local):
    """What the calling thread does while it hears nothing: ``tick`` may raise, which ends its request."""

    def __init__(self) -> None:
        self.tick: Callable[[], None] = lambda: None

    @contextmanager
    def by(self, tick: Callable[[], None]) -> Iterator[None]:
        """Have this called, until the context ends."""
        self.tick, before = tick, self.tick
        try:
            yield
        finally:
            self.tick = before


def make_transport(
    waiting: Waiting, base: BaseUri, *, tls: ssl.SSLContext, proxy: str
) -> httpx.HTTPTransport:
    """The way to one server for one thread: one connection, kept open.

    No more than that of httpx: who we are, redirects and time-outs are for its owner to judge. ``proxy`` is a
    URL, "environment", or empty for none. Raises Unusable where the environment's proxy is none.
    """
    # One streams while nothing else is asked; a second is for the moment at which the first is being closed.
    limits = httpx.Limits(max_connections=2, max_keepalive_connections=1, keepalive_expiry=5.0)
    way = _environments(base) if proxy == "environment" else proxy or None
    try:
        transport = httpx.HTTPTransport(verify=tls, proxy=way, limits=limits)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise Unusable(
            "the environment names a proxy that cannot be used: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY are "
            "to be http://HOST:PORT"
        ) from error
    # httpx has no argument for what is a public one of httpcore.
    transport._pool._network_backend = _Backend(waiting)
    return transport


def _environments(base: BaseUri) -> str | None:
    """The proxy that the environment names for a server."""
    named = getproxies()
    proxy = named.get(base.scheme) or named.get("all")
    if not proxy or proxy_bypass(base.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class _Backend(httpcore.SyncBackend):
    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._waiting)


class _Stream(httpcore.NetworkStream):
    """A stream that ticks while it waits; a time-out is of the whole wait."""

    def __init__(self, inner: httpcore.NetworkStream, waiting: Waiting) -> None:
        self._inner = inner
        self._socket: socket.socket = inner.get_extra_info("socket")
        self._waiting = waiting

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        began = time.monotonic()
        while True:
            try:
                if _QUICKACK is not None:
                    self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
                return self._inner.read(
                    max(max_bytes, _READ), TICK if timeout is None else min(TICK, timeout)
                )
            except httpcore.ReadTimeout:
                self._waiting.tick()
                if timeout is not None and time.monotonic() - began >= timeout:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._waiting)

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)
