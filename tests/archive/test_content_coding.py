"""Bodies that servers in between compress: the same bytes for any split, and nothing damaged is kept."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.archive.dicomweb.content_coding import UnknownCoding, decode_body
from dicom_quarry.errors import RemoteProtocolError


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def decoded(body: bytes, coding: str, size: int = 1 << 18) -> bytes:
    return b"".join(decode_body(pieces(body, size), coding))


@given(st.binary(max_size=500), st.integers(1, 40))
def test_compressed_bodies_are_decoded(body: bytes, size: int) -> None:
    for coding in ("gzip", "x-gzip", "GZIP", "deflate", "gzip, identity"):
        for data in (gzip.compress(body), zlib.compress(body)):
            assert decoded(data, coding, size) == body
    assert decoded(gzip.compress(body) + gzip.compress(body[:9]), "gzip", size) == body + body[:9]
    assert decoded(gzip.compress(body) + bytes(9), "gzip", size) == body


@pytest.mark.parametrize("coding", ["", "identity", "UTF-8", "binary", "8bit", "gzip"])
@pytest.mark.parametrize("body", [b"", b"[", b"[]", b"\r\n--b", bytes(200)])
def test_a_body_that_is_not_compressed_is_taken_as_it_is(coding: str, body: bytes) -> None:
    assert decoded(body, coding) == decoded(body, coding, 1) == body


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "compress"])
def test_a_coding_that_cannot_be_undone_is_named(coding: str) -> None:
    with pytest.raises(UnknownCoding, match=coding.rpartition(" ")[2]):
        decode_body(pieces(b"x", 1), coding)


def test_a_damaged_or_cut_body_is_refused() -> None:
    data = gzip.compress(bytes(range(256)) * 4)
    for bad in (data[:-1], data[:2], data[:40] + b"x" + data[41:]):
        with pytest.raises(RemoteProtocolError, match="compressed"):
            decoded(bad, "gzip")


def test_memory_stays_flat() -> None:
    largest = 0
    for piece in decode_body(pieces(gzip.compress(bytes(1 << 26)), 1 << 18), "gzip"):
        largest = max(largest, len(piece))
    assert largest <= 1 << 20
