"""Decompression of a deflated dataset (PS3.5 A.5)."""

from __future__ import annotations

import zlib


class Inflater:
    """Decompressor of a deflated dataset, with or without a zlib header."""

    __slots__ = ("_inflate", "_start")

    def __init__(self) -> None:
        self._inflate: zlib._Decompress | None = None
        self._start = b""  # bytes before it is known whether there is a header

    @property
    def eof(self) -> bool:
        """True at the end of the compressed data."""
        return self._inflate is not None and self._inflate.eof

    @property
    def unconsumed_tail(self) -> bytes:
        """The input that the last call did not use."""
        return self._inflate.unconsumed_tail if self._inflate else b""

    def decompress(self, data: memoryview | bytes, max_length: int) -> bytes:
        """Decompress the next bytes. Raises zlib.error."""
        if self._inflate is None:
            data = self._start + bytes(data)
            if len(data) < 2:
                self._start = data
                return b""
            # A raw stream with these bits would begin with a stored block, whose padding is zero in practice.
            has_header = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        return self._inflate.decompress(data, max_length)
