"""A connection to a server that is read with the standard library, its owner asked while it is waited for."""

from __future__ import annotations

import io
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.errors import MissingHeaderBodySeparatorDefect
from http.client import HTTPException, HTTPResponse

import httpx

#: Seconds between two looks at whether to go on waiting.
TICK = 1.0

#: A connection that was idle for so many seconds is not used again: its server may be about to end it.
_MAX_IDLE_SECONDS = 5.0

# As for associations (wire/sockets.py): what a server writes in two pieces would take 40 ms more.
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class TickHook(threading.local):
    """What the calling thread does while it hears nothing: ``tick`` may raise, which ends its request."""

    def __init__(self) -> None:
        self.tick: Callable[[], None] = lambda: None

    @contextmanager
    def use(self, tick: Callable[[], None]) -> Iterator[None]:
        """Have this called, until the context ends."""
        self.tick, before = tick, self.tick
        try:
            yield
        finally:
            self.tick = before


class HttpConnection:
    """A connection, of which each answer is read to its end before the next request."""

    def __init__(self, sock: socket.socket, tick_hook: TickHook) -> None:
        self._sock = sock
        self._tick_hook = tick_hook
        self._read_timeout: float | None = None
        self._idle_since = time.monotonic()

    def start_tls(self, tls: ssl.SSLContext, host: str, timeout: float | None) -> None:
        """Speak TLS from now on. Raises httpx.ConnectError and ConnectTimeout."""
        self._sock.settimeout(timeout)
        try:
            self._sock = tls.wrap_socket(self._sock, server_hostname=host)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error

    def is_reusable(self) -> bool:
        """Whether the server has not ended it, as far as is known: it has nothing to say unasked."""
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return time.monotonic() - self._idle_since < _MAX_IDLE_SECONDS and not poll.poll(0)

    def send_request(
        self,
        method: bytes,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        timeout: Mapping[str, float | None],
    ) -> HTTPResponse:
        """Send a request and read the beginning of its answer. Raises httpx's errors."""
        lines = [b"%s %s HTTP/1.1" % (method, target), *(b"%s: %s" % one for one in headers), b"", b""]
        if any(b"\r" in line or b"\n" in line for line in lines):
            raise httpx.LocalProtocolError("a line's end within a header")
        self._read_timeout = timeout["read"]
        self._sock.settimeout(timeout["write"])
        try:
            self._sock.sendall(b"\r\n".join(lines))
        except TimeoutError as error:
            raise httpx.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpx.WriteError(str(error)) from error
        self._sock.settimeout(TICK if self._read_timeout is None else min(TICK, self._read_timeout))
        response = HTTPResponse(self, method=method.decode())  # type: ignore[arg-type]
        with translate_read_errors():
            response.begin()
        if damage := _find_defect(response):
            raise httpx.RemoteProtocolError(damage)
        return response

    def makefile(self, _mode: str) -> io.BufferedReader:
        """For an answer: a file that reads the socket, and does not close it."""
        return io.BufferedReader(_SocketReader(self))

    def read_into(self, buffer: memoryview) -> int:
        """Wait for bytes, and tick meanwhile; raises httpx.ReadTimeout after too long a silence."""
        began = time.monotonic()
        while True:
            try:
                if _QUICKACK is not None:
                    self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
                return self._sock.recv_into(buffer)
            except TimeoutError as error:
                self._tick_hook.tick()
                if self._read_timeout is not None and time.monotonic() - began >= self._read_timeout:
                    raise httpx.ReadTimeout("silence") from error

    def mark_idle(self) -> None:
        """Nothing is asked from now on."""
        self._idle_since = time.monotonic()

    def close(self) -> None:
        """End it."""
        self._sock.close()


def _find_defect(response: HTTPResponse) -> str:
    """What is wrong with the beginning of an answer, where the library would take it for another one."""
    headers = response.headers
    lengths, codings = headers.get_all("Content-Length", ()), headers.get_all("Transfer-Encoding", ())
    if response.status < httpx.codes.OK:
        return "an interim answer, which nobody has asked for"
    if any(isinstance(one, MissingHeaderBodySeparatorDefect) for one in headers.defects):
        return "a header that is none, and those behind it passed over"
    if any(one.lower() != "chunked" for one in codings):
        return "a transfer coding that nobody has asked for"
    if not codings and (len(set(lengths)) > 1 or (lengths and response.length is None)):
        return "a length that is none"
    return ""


class _SocketReader(io.RawIOBase):
    def __init__(self, connection: HttpConnection) -> None:
        super().__init__()
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._connection.read_into(buffer)


@contextmanager
def translate_read_errors() -> Iterator[None]:
    """What goes wrong with an answer, as httpx's errors."""
    try:
        yield
    except HTTPException as error:
        raise httpx.RemoteProtocolError(type(error).__name__) from error
    except OSError as error:
        raise httpx.ReadError(str(error)) from error
