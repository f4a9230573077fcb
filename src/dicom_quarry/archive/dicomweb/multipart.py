"""A sans-I/O reader of ``multipart/related`` (RFC 2046 5.1, RFC 2387; PS3.18 8.6.1.2): bytes in, events out.

No part is kept in memory. A part is complete when a boundary follows it, the body with its closing boundary.
The reader owns the buffer that a body is read into, and gives out views of it: pixel data is not copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from enum import Enum, auto
from typing import Final

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.system.numbers import parse_number

#: Most bytes of a part's headers, and before the first boundary: servers send hundreds at most.
_MAX_HEADERS: Final = 1 << 14
_MAX_PREAMBLE: Final = 1 << 16

#: Most parts of a body: no study has so many instances.
_MAX_PARTS: Final = 500_000

#: The largest length of a part that is believed, in bytes.
MAX_LENGTH: Final = 10**18

#: RFC 2046 allows 70 characters, Orthanc sends 73.
_BOUNDARY: Final = re.compile(r"[!-~](?:[ -~]{0,198}[!-~])?")

#: A first line that is a boundary, behind empty ones.
_FIRST_LINE: Final = re.compile(rb"[\r\n]*(--[!-~]{1,200})[ \t]*\r?\n")

_MAX_FIRST_LINE: Final = 300

#: Bytes of the buffer at first, more than is ever kept, and once a read has filled it.
_FIRST_BUFFER: Final = 1 << 16
_LARGE_BUFFER: Final = 1 << 20

_CR, _LF = 0x0D, 0x0A


@dataclass(frozen=True, slots=True)
class PartStart:
    """The beginning of a part, with its headers by lower-case name; its bytes follow."""

    headers: Mapping[str, str]


class MultipartMarker(Enum):
    """The end of a part, or of the body."""

    PART_END = auto()
    CLOSED = auto()  # the closing boundary: the body is complete


#: A memoryview has the next bytes of the part.
MultipartEvent = PartStart | memoryview | MultipartMarker


class _ReaderState(Enum):
    START = auto()  # before the first line is complete
    PREAMBLE = auto()
    DELIMITER = auto()  # behind a boundary: the end of a line, or two dashes
    HEADERS = auto()
    DATA = auto()
    EPILOGUE = auto()


def parse_boundary(content_type: str) -> str | None:
    """Return the boundary from a Content-Type: empty where it names none; None where it is not multipart."""
    message = Message()
    message["Content-Type"] = content_type
    if message.get_content_maintype() != "multipart":
        return None
    boundary = message.get_param("boundary")
    return boundary if isinstance(boundary, str) and _BOUNDARY.fullmatch(boundary) else ""


class MultipartReader:
    """Reads a body in pieces of any size; ``closed`` becomes True with its closing boundary.

    Use it in a loop: read into ``get_buffer()``, report the number of bytes with ``buffer_updated()``,
    exhaust ``events()``. ``boundary`` is the one that the header names. A first line that is another one is
    believed.
    """

    def __init__(self, boundary: str) -> None:
        # A line feed alone ends a line, too.
        self._delimiter = b"\n--" + boundary.encode("ascii") if boundary else b""
        self._state = _ReaderState.START
        self._data = bytearray(_FIRST_BUFFER)
        self._view = memoryview(self._data)
        # The first boundary may be the first line: it gets a line feed, too.
        self._data[0] = _LF
        self._start, self._end = 0, 1
        self._preamble_size = 0
        self._part_size = self._part_count = 0
        self._part_length: int | None = None  # as its headers announce it
        self._has_bare_feeds = False  # lines of the part's headers end in a line feed alone
        self.closed = False

    def get_buffer(self) -> memoryview:
        """Return the memory for the next bytes; memoryviews from before are no longer valid."""
        rest = bytes(self._view[self._start : self._end])
        if self._end == len(self._data) < _LARGE_BUFFER:
            self._data = bytearray(_LARGE_BUFFER)
            self._view = memoryview(self._data)
        self._start, self._end = 0, len(rest)
        self._view[: self._end] = rest
        return self._view[self._end :]

    def buffer_updated(self, count: int) -> None:
        """Add the ``count`` bytes that were read into the buffer."""
        self._end += count

    @property
    def kept(self) -> int:
        """The number of bytes that wait for those behind them."""
        return self._end - self._start

    def feed(self, data: bytes) -> Iterator[MultipartEvent]:
        """Yield the events in bytes from elsewhere, which are copied; exhaust it before the next call."""
        rest = memoryview(data)
        while rest:
            buffer = self.get_buffer()
            size = min(len(buffer), len(rest))
            buffer[:size] = rest[:size]
            self.buffer_updated(size)
            rest = rest[size:]
            yield from self.events()

    def events(self) -> Iterator[MultipartEvent]:
        """Yield the events in the bytes so far; raises RemoteProtocolError for a malformed body."""
        while self._start < self._end:
            match self._state:
                case _ReaderState.DATA | _ReaderState.PREAMBLE:
                    begin = self._start
                    self._start, after = self._find_boundary()
                    if self._state is _ReaderState.PREAMBLE:
                        self._skip_preamble(self._start - begin)
                    elif self._start > begin:
                        self._part_size += self._start - begin
                        yield self._view[begin : self._start]
                    if after < 0:
                        return
                    if self._state is _ReaderState.DATA:
                        yield MultipartMarker.PART_END
                    self._state, self._start = _ReaderState.DELIMITER, after
                case _ReaderState.DELIMITER:
                    if self._data.startswith(b"--", self._start, self._end):
                        self._state, self.closed = _ReaderState.EPILOGUE, True
                        yield MultipartMarker.CLOSED
                        continue
                    # _find_boundary has seen the end of the line.
                    feed = self._data.index(b"\n", self._start, self._end)
                    self._has_bare_feeds = self._data[feed - 1] != _CR
                    self._state, self._start = _ReaderState.HEADERS, feed + 1
                case _ReaderState.HEADERS:
                    headers = self._take_headers()
                    if headers is None:
                        return
                    self._count_part()
                    self._state = _ReaderState.DATA
                    self._part_size, self._part_length = 0, _parse_length(headers)
                    yield PartStart(headers)
                case _ReaderState.START:
                    if not self._read_first_line(bytes(self._view[1 : self._end])):
                        return
                    self._state = _ReaderState.PREAMBLE
                case _ReaderState.EPILOGUE:
                    self._start = self._end

    def end(self) -> Iterator[MultipartEvent]:
        """Yield the last events of the body; raises RemoteProtocolError if its closing boundary is missing.

        A last part is complete if it is as long as its headers announce, or a boundary follows.
        """
        if self.closed:
            return
        if self._state is _ReaderState.DATA:
            rest = bytes(self._view[self._start : self._end])
            end = self._last_content_end(rest)
            tails = [line + self._delimiter + tail for line in (b"", b"\r") for tail in (b"--", b"\r")]
            if end >= 0 and any(tail.startswith(rest[end:]) for tail in tails):
                yield memoryview(rest)[:end]
                yield MultipartMarker.PART_END
        raise RemoteProtocolError("the response ends without its closing boundary")

    def _last_content_end(self, rest: bytes) -> int:
        """Return the end of the last part's content in the rest, by a boundary or its length; else -1."""
        found = rest.find(self._delimiter)
        if found >= 0:
            return self._content_end(rest, found, 0)
        missing = -1 if self._part_length is None else self._part_length - self._part_size
        return missing if missing <= len(rest) else -1

    def _read_first_line(self, data: bytes) -> bool:
        """Learn the boundary from the first line; return False while that is not complete."""
        if self._delimiter and data.lstrip(b"\r\n").startswith(self._delimiter[1:]):
            return True
        found = _FIRST_LINE.match(data)
        if found is None and len(data) < _MAX_FIRST_LINE and b"\n" not in data.lstrip(b"\r\n"):
            return False
        if found is not None:
            self._delimiter = b"\n" + found[1]
        if not self._delimiter:
            raise RemoteProtocolError("the response is not multipart: its boundary is missing")
        return True

    def _find_boundary(self) -> tuple[int, int]:
        """Return the end of the bytes before a boundary, and the end of it; -1 while it is missing."""
        data, start, size = self._data, self._start, self._end
        while (found := data.find(self._delimiter, start, size)) >= 0:
            after = found + len(self._delimiter)
            follows = _is_delimiter(data, after, size)
            if follows is None:
                return _line_end(data, found, self._start), -1
            if follows:
                return self._content_end(data, found, self._start), after
            start = found + 1
        return self._safe_end(), -1

    def _content_end(self, data: bytes | bytearray, feed: int, at: int) -> int:
        """Return the end of the content before the line feed of a boundary.

        A carriage return before it belongs to the boundary, unless the part's length or the other lines show
        that lines end without one here.
        """
        if self._part_length is not None:
            is_content = self._part_size + feed - at == self._part_length
        else:
            is_content = self._has_bare_feeds
        return feed if is_content else _line_end(data, feed, at)

    def _safe_end(self) -> int:
        """Return the index up to which no byte can belong to a boundary."""
        data, at, size = self._data, self._start, self._end
        found = data.find(b"\n", max(at, size - len(self._delimiter)), size)
        while found >= 0:
            if self._delimiter.startswith(data[found:size]):
                return _line_end(data, found, at)
            found = data.find(b"\n", found + 1, size)
        return size - 1 if data[size - 1] == _CR else size

    def _skip_preamble(self, count: int) -> None:
        self._preamble_size += count
        if self._preamble_size > _MAX_PREAMBLE:
            raise RemoteProtocolError("the response is not multipart: its boundary is missing")

    def _count_part(self) -> None:
        self._part_count += 1
        if self._part_count > _MAX_PARTS:
            raise RemoteProtocolError(f"the response has more than {_MAX_PARTS:,} parts")

    def _take_headers(self) -> dict[str, str] | None:
        """Return the headers, and go behind them; None while the empty line is missing."""
        at, lines = self._start, list[bytes]()
        while (found := self._data.find(b"\n", at, self._end)) >= 0:
            line = bytes(self._view[at:found]).removesuffix(b"\r")
            self._has_bare_feeds &= len(line) == found - at
            at = found + 1
            if not line:
                self._start = at
                return _parse_headers(lines)
            lines.append(line)
            if at - self._start > _MAX_HEADERS:
                break
        if self._end - self._start > _MAX_HEADERS:
            raise RemoteProtocolError("the headers of a part have no end")
        return None


def _is_delimiter(data: bytearray, at: int, size: int) -> bool | None:
    """Return whether this is a boundary by what follows it; None while too few bytes are known.

    Two dashes make it the closing one. Else only white space may follow in the line (RFC 2046 5.1.1);
    anything else is content that looks like a boundary.
    """
    if data.startswith(b"--", at, size):
        return True
    end = at
    while end < size and data[end] in b" \t" and end - at < _MAX_HEADERS:
        end += 1
    rest = bytes(data[end : min(end + 2, size)])
    if rest[:1] == b"\n" or rest == b"\r\n":
        return True
    return None if rest in (b"", b"\r") or (end == at and rest == b"-") else False


def _line_end(data: bytes | bytearray, feed: int, at: int) -> int:
    """Return the end of the line before a line feed: a carriage return before it is not content."""
    return feed - 1 if feed > at and data[feed - 1] == _CR else feed


def _parse_length(headers: Mapping[str, str]) -> int | None:
    return parse_number(headers.get("content-length", ""), MAX_LENGTH)


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    """Return headers by name; of several the last counts, lines that are no headers are ignored."""
    headers = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers
