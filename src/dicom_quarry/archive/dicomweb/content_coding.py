"""Content codings of responses (RFC 9110 8.4.1). Quarry requests none, but servers in between compress."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from dicom_quarry.errors import RemoteProtocolError

#: Most bytes that one step decompresses, so that memory stays flat.
_STEP_BYTES = 1 << 20

_GZIP_MAGIC = b"\x1f\x8b"

#: Codings that the standard library cannot decode. Other unknown words ("UTF-8", "binary") are no codings.
_UNREADABLE = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi"})


class UnknownCoding(RemoteProtocolError):
    """A compression that Quarry cannot undo."""


def decode_body(pieces: Iterator[bytes], coding: str) -> Iterator[bytes]:
    """Yield a body without its coding, the value of Content-Encoding.

    A body that is not compressed, although the header names a coding, is taken as it is. Raises
    UnknownCoding, and RemoteProtocolError for damaged data.
    """
    names = {name.strip().lower() for name in coding.split(",")}
    if unreadable := sorted(names & _UNREADABLE):
        raise UnknownCoding(
            f"the archive sends a compressed response ({unreadable[0]}), which was not requested"
        )
    if names & {"gzip", "x-gzip", "deflate"}:
        return _inflate(pieces)
    return pieces


def _inflate(pieces: Iterator[bytes]) -> Iterator[bytes]:
    start = b""
    while len(start) < len(_GZIP_MAGIC) and (piece := next(pieces, b"")):
        start += piece
    if not _is_compressed(start):
        if start:
            yield start
        yield from pieces
        return
    decoder = _Decoder()
    yield from decoder.feed(start)
    for piece in pieces:
        yield from decoder.feed(piece)
    decoder.end()


class _Decoder:
    """Decompresses gzip (RFC 1952), of several members too, or zlib (RFC 1950)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=47)
        self._behind = b""  # bytes behind a member, too few to recognise the next

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what these bytes decompress to; raises RemoteProtocolError for damaged data."""
        is_full = False
        while data or is_full:
            if self._member.eof:
                data = self._behind + data
                if not data.startswith(_GZIP_MAGIC):
                    self._behind = data[: len(_GZIP_MAGIC)]  # the next member, or padding
                    return
                self._member = zlib.decompressobj(wbits=47)
            try:
                step = self._member.decompress(data, _STEP_BYTES)
            except zlib.error:
                raise RemoteProtocolError("the archive's compressed response is damaged") from None
            is_full = len(step) == _STEP_BYTES
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            yield step

    def end(self) -> None:
        """Note the end of the body; raises RemoteProtocolError if data is missing."""
        if not self._member.eof:
            raise RemoteProtocolError("the archive's compressed response is not complete")


def _is_compressed(start: bytes) -> bool:
    """Return True for the beginning of gzip (RFC 1952) or zlib (RFC 1950)."""
    is_zlib = len(start) > 1 and start[0] & 0x0F == 8 and int.from_bytes(start[:2], "big") % 31 == 0
    return start.startswith(_GZIP_MAGIC) or is_zlib
