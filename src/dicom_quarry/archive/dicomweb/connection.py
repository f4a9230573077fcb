"""One HTTP/1.1 connection, read with the standard library; its owner is called once a second while it waits.

``http.client`` is lenient: what it would read as another response than the one that was sent is refused here.
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from email.errors import MissingHeaderBodySeparatorDefect
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse

from dicom_quarry.archive.dicomweb.http_errors import (
    BrokenConnection,
    ConnectError,
    HttpError,
    InvalidResponse,
    ReadTimeout,
    ResponseTimeout,
    WriteTimeout,
)
from dicom_quarry.system.network import cut, keep_alive

#: Seconds between two calls of a request's ``tick``.
TICK = 1.0

#: An idle connection is not used again after so many seconds: its server may be about to close it.
_MAX_IDLE_SECONDS = 5.0

#: Seconds that a server may take to read a request.
_WRITE_TIMEOUT = 30.0

#: Interim responses (1xx) that may come before the response, and bytes of all their headers together.
MAX_INTERIM_RESPONSES = 1_000
_MAX_HEADER_BYTES = 1 << 20

#: The headers of a response, and the whole response, may take this many times the longest silence.
_HEADER_TIMEOUT_FACTOR = 3
_BODY_TIMEOUT_FACTOR = 10

#: Most bytes of the framing of a body (the lengths of chunks, their extensions, trailers) between two pieces.
_MAX_FRAMING_BYTES = 1 << 20

#: Bytes that are buffered while headers and the lengths of chunks are read.
_BUFFER_BYTES = 1 << 15

# As for associations (wire/connection.py): else a response that is sent in two pieces takes 40 ms more.
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class HttpConnection:
    """A connection for one request after the other; each response is read to its end before the next."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        keep_alive(sock)
        self._tick: Callable[[], None] = lambda: None
        self._read_timeout: float | None = None
        self._deadline: tuple[float, float] | None = None  # the moment, and the seconds up to it
        self._framing_bytes_left = _MAX_HEADER_BYTES
        self._is_cut = self._reads_headers = False
        self._file = _ResponseFile(_SocketReader(self), _BUFFER_BYTES)
        self._idle_since = self._ticked_at = time.monotonic()
        self._tick_interval = TICK

    def start_tls(self, tls: ssl.SSLContext, host: str, timeout: float) -> None:
        """Encrypt the connection from here on; raises ConnectError."""
        self._sock.settimeout(timeout)
        try:
            self._sock = tls.wrap_socket(self._sock, server_hostname=host)
        except OSError as error:
            raise ConnectError(str(error)) from error

    def is_reusable(self) -> bool:
        """Return True if the server still keeps it open. Bytes without a request make it unusable, too."""
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return time.monotonic() - self._idle_since < _MAX_IDLE_SECONDS and not poll.poll(0)

    def send_request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        *,
        read_timeout: float | None,
        tick: Callable[[], None],
    ) -> HTTPResponse:
        """Send a request without a body, and read the response up to its body.

        ``read_timeout`` is the longest silence in seconds; with it the headers, and the whole response, have
        a deadline, too. ``tick`` is called about once a second until the response is read, whatever comes;
        what it raises ends the request. Raises HttpError.
        """
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
        if any("\r" in line or "\n" in line for line in lines):
            raise HttpError("a request header contains the end of a line")
        self._tick, self._read_timeout = tick, read_timeout
        began = time.monotonic()
        self._sock.settimeout(_WRITE_TIMEOUT)
        try:
            self._sock.sendall("\r\n".join(lines).encode("ascii"))
        except TimeoutError as error:
            raise WriteTimeout(str(error)) from error
        except OSError as error:
            raise BrokenConnection(str(error)) from error
        # A little less: a wait that ends early must not skip its call.
        self._tick_interval = 0.9 * (TICK if read_timeout is None else min(TICK, read_timeout))
        self._sock.settimeout(TICK if read_timeout is None else min(TICK, read_timeout))
        # Bytes behind the previous response must not answer this request.
        self._file = _ResponseFile(_SocketReader(self), _BUFFER_BYTES)
        self._framing_bytes_left = _MAX_HEADER_BYTES
        self._set_deadline(began, _HEADER_TIMEOUT_FACTOR)
        self._reads_headers = True
        response = self._read_response(method)
        self._reads_headers = False
        self._set_deadline(began, _BODY_TIMEOUT_FACTOR)
        return response

    def _set_deadline(self, began: float, factor: int) -> None:
        seconds = None if self._read_timeout is None else factor * self._read_timeout
        self._deadline = None if seconds is None else (began + seconds, seconds)

    def _read_response(self, method: str) -> HTTPResponse:
        """Return the first response that is not interim: a client must skip those (RFC 9110 15.2)."""
        for _ in range(MAX_INTERIM_RESPONSES + 1):
            response = HTTPResponse(self, method=method)  # type: ignore[arg-type]
            with translate_read_errors():
                response.begin()
            if defect := _find_defect(response):
                raise InvalidResponse(defect)
            if response.status >= HTTPStatus.OK:
                return response
        raise InvalidResponse("interim responses without an end")

    def makefile(self, _mode: str) -> _ResponseFile:
        """Return the file that HTTPResponse reads; the interim responses to a request share it."""
        return self._file

    def read_into(self, buffer: memoryview) -> int:
        """Wait for bytes and call ``tick`` meanwhile; raises ReadTimeout after too long a silence.

        Bytes that trickle in extend no deadline: raises ResponseTimeout.
        """
        began = time.monotonic()
        while True:
            try:
                if _QUICKACK is not None:
                    self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
                count = self._sock.recv_into(buffer)
            except TimeoutError as error:
                self._check_time()
                if self._read_timeout is not None and time.monotonic() - began >= self._read_timeout:
                    raise ReadTimeout("silence") from error
            else:
                if not count and (self._is_cut or self._reads_headers):
                    # The library would take headers without an end for whole ones.
                    raise InvalidResponse("an end in the middle of the headers, or of our own")
                self._framing_bytes_left -= count
                if self._framing_bytes_left < 0:
                    raise InvalidResponse("headers or trailers without an end")
                self._check_time()
                return count

    def expect_piece(self, size: int) -> None:
        """Allow as many bytes as the next piece of a body, of at most ``size`` bytes, may need."""
        self._framing_bytes_left = size + _BUFFER_BYTES + _MAX_FRAMING_BYTES

    def mark_idle(self) -> None:
        """Note that the response is over."""
        self._idle_since = time.monotonic()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def cut(self) -> None:
        """Shut down the connection from any thread: a thread that reads it gets an error at once."""
        self._is_cut = True
        cut(self._sock)

    def _check_time(self) -> None:
        """Call ``tick`` once a second, also while bytes trickle in; raise ResponseTimeout at the deadline."""
        now = time.monotonic()
        if now - self._ticked_at >= self._tick_interval:
            self._ticked_at = now
            self._tick()
        if self._deadline is not None and now >= self._deadline[0]:
            raise ResponseTimeout(self._deadline[1])


def _find_defect(response: HTTPResponse) -> str:
    """Describe the defect for which the library would read another response than was sent; empty for none."""
    headers = response.headers
    lengths = headers.get_all("Content-Length", ())
    # "identity" was a coding until RFC 7230.
    codings = [one for one in headers.get_all("Transfer-Encoding", ()) if one.strip().lower() != "identity"]
    if response.status == HTTPStatus.SWITCHING_PROTOCOLS:
        return "another protocol, which was not requested"
    if any(isinstance(one, MissingHeaderBodySeparatorDefect) for one in headers.defects):
        return "a malformed header, which hides those behind it"
    if any(one.lower() != "chunked" for one in codings):
        return "a transfer coding that was not requested"
    if not codings and (len(set(lengths)) > 1 or (lengths and response.length is None)):
        return "a malformed length"
    return ""


class _SocketReader(io.RawIOBase):
    def __init__(self, connection: HttpConnection) -> None:
        super().__init__()
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._connection.read_into(buffer)


class _ResponseFile(io.BufferedReader):
    """A file that stays open: an interim response that is discarded would close it."""

    def close(self) -> None:
        """Leave the closing to the connection."""

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read what has come, in one call: the body of a response does not wait for a full buffer."""
        return self.readinto1(buffer)


@contextmanager
def translate_read_errors() -> Iterator[None]:
    """Turn the library's and the system's errors into HttpErrors."""
    try:
        yield
    except HTTPException as error:
        raise InvalidResponse(type(error).__name__) from error
    except OSError as error:
        raise BrokenConnection(str(error)) from error
