"""The reader of multipart/related: the same parts for any split; nothing kept, nothing trusted."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.archive.dicomweb.multipart import (
    MultipartEvent,
    MultipartMarker,
    MultipartReader,
    PartStart,
    parse_boundary,
)
from dicom_quarry.errors import RemoteProtocolError

B = "frontier"
Parts = list[tuple[dict[str, str], bytes, bool]]


def read(body: bytes, *cuts: int, boundary: str = B) -> tuple[Parts, bool]:
    """The parts (headers, content, whether it ended), and whether the body was closed."""
    reader = MultipartReader(boundary)
    parts: Parts = []
    ends = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for begin, end in pairwise(ends):
        for event in reader.feed(body[begin:end]):
            match event:
                case PartStart(headers):
                    parts.append((dict(headers), b"", False))
                case memoryview():
                    parts[-1] = (parts[-1][0], parts[-1][1] + event, False)
                case MultipartMarker.PART_END:
                    parts[-1] = (parts[-1][0], parts[-1][1], True)
                case MultipartMarker.CLOSED:
                    assert reader.closed
    return parts, reader.closed


def body(*contents: bytes, line: bytes = b"\r\n", closed: bool = True) -> bytes:
    parts = [
        b"--" + B.encode() + line + b"Content-Type: application/dicom" + line * 2 + content + line
        for content in contents
    ]
    return b"".join(parts) + (b"--" + B.encode() + b"--" if closed else b"")


HEADERS = {"content-type": "application/dicom"}

#: Content that is made of what could be taken for a boundary.
ODD = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"-", b"--", B.encode(), b"\r\n--fron", b"\n--" + B.encode() + b"x", b"a", b" "]
    )
).map(b"".join)


@given(st.lists(ODD, max_size=4), st.sampled_from([b"\r\n", b"\n"]), st.lists(st.integers(0), max_size=8))
def test_any_split_gives_the_same_parts(contents: list[bytes], line: bytes, cuts: list[int]) -> None:
    whole = body(*contents, line=line) + line + b"epilogue --" + B.encode()
    once = read(whole)
    assert read(whole, *cuts) == once
    assert read(whole, *range(len(whole))) == once


@given(st.lists(st.binary(max_size=300), max_size=4), st.lists(st.integers(0), max_size=8))
def test_contents_come_as_they_were_sent(contents: list[bytes], cuts: list[int]) -> None:
    assert read(body(*contents), *cuts) == ([(HEADERS, content, True) for content in contents], True)


@pytest.mark.parametrize(
    "content",
    [
        b"\r\n--frontie",
        b"\n--frontierx",
        b"\r\n--frontier-x",
        b"\r\n--frontier \tx",
        b"\r\r\n\n--",
        b"--frontier--",
        b"",
    ],
)
def test_what_looks_like_a_boundary_is_content(content: bytes) -> None:
    whole = body(content, content)
    for cut in range(len(whole)):
        assert read(whole, cut) == ([(HEADERS, content, True)] * 2, True)


def test_preamble_padding_and_epilogue_are_no_content() -> None:
    text = b"preamble\r\n--frontier \t \r\n\r\nA\r\n--frontier--\r\nepilogue\r\n--frontier\r\n\r\nB"
    assert read(text) == ([({}, b"A", True)], True)


def test_a_body_that_is_cut_keeps_its_whole_parts_and_is_not_closed() -> None:
    whole = body(b"A" * 50, b"B" * 50)
    for length in range(len(whole)):
        parts, closed = read(whole[:length])
        assert not closed
        assert [content for _, content, ended in parts if ended] == [b"A" * 50, b"B" * 50][
            : sum(p[2] for p in parts)
        ]
    reader = MultipartReader(B)
    list(reader.feed(whole[:-1]))
    with pytest.raises(RemoteProtocolError, match="closing boundary"):
        list(reader.end())


@given(st.lists(st.binary(max_size=300), max_size=4), st.booleans(), st.lists(st.integers(0), max_size=8))
def test_contents_come_as_they_were_sent_where_lines_end_in_a_line_feed(
    contents: list[bytes], odd: bool, cuts: list[int]
) -> None:
    contents = [content + b"\r" * odd for content in contents]
    assert read(body(*contents, line=b"\n"), *cuts) == (
        [(HEADERS, content, True) for content in contents],
        True,
    )


@pytest.mark.parametrize("content", [b"A\r", b"A\r\r", b"\r", b"A\n", b"A\r\n", b"A", b""])
@pytest.mark.parametrize("line", [b"\r\n", b"\n"])
@pytest.mark.parametrize("closed", [True, False])
def test_the_announced_length_decides_where_a_file_ends(content: bytes, line: bytes, closed: bool) -> None:
    """The lines of the headers end in another way than those of the boundaries."""
    head = b"--frontier\r\nContent-Length: %d\r\n\r\n" % len(content)
    whole = (head + content + line) * 2 + (b"--frontier--" if closed else b"")
    for cut in range(len(whole)):
        reader = MultipartReader(B)
        events = [_kept(event) for piece in (whole[:cut], whole[cut:]) for event in reader.feed(piece)]
        if closed:
            events += reader.end()
        else:
            with pytest.raises(RemoteProtocolError, match="closing boundary"):
                events += _until_error(events, reader)
        assert b"".join(event for event in events if isinstance(event, memoryview)) == content * 2
        assert events.count(MultipartMarker.PART_END) == 2


def _kept(event: MultipartEvent) -> MultipartEvent:
    """The event with bytes of its own: those in the reader's buffer are valid until the next read."""
    return memoryview(bytes(event)) if isinstance(event, memoryview) else event


def _until_error(events: list[MultipartEvent], reader: MultipartReader) -> list[MultipartEvent]:
    """Append the last events one by one, since an error ends them."""
    for event in reader.end():
        events.append(event)
    return []


@pytest.mark.parametrize("tail", [b"", b"\r", b"-"])
def test_a_last_boundary_that_does_not_close_ends_its_part(tail: bytes) -> None:
    reader, events = MultipartReader(B), list[MultipartEvent]()
    events += map(_kept, reader.feed(b"--frontier\r\n\r\nA\r\n--frontier" + tail))
    with pytest.raises(RemoteProtocolError, match="closing boundary"):
        _until_error(events, reader)
    assert events[-1] is MultipartMarker.PART_END
    assert b"".join(event for event in events if isinstance(event, memoryview)) == b"A"


@pytest.mark.parametrize(
    ("declared", "used"),
    [("", b"--x7"), ("--x7", b"--x7"), ("other", b"--x7"), ("x7", b"--x7"), ("a b", b"--a b")],
)
@pytest.mark.parametrize("blank", [b"", b"\r\n", b"\n\n"])
def test_the_boundary_of_the_first_line_is_used(declared: str, used: bytes, blank: bytes) -> None:
    whole = blank + used + b"\r\n\r\nA\r\n" + used + b" \r\n\r\nB\r\n" + used + b"--\r\n"
    for cut in range(len(whole)):
        assert read(whole, cut, boundary=declared) == ([({}, b"A", True), ({}, b"B", True)], True)


def test_headers_have_a_limit_however_they_come() -> None:
    for head in (b"x: " + b"y" * (1 << 15), b"x: y\r\n" * (1 << 13)):
        for piece in (len(head) + 100, 1000):
            reader = MultipartReader(B)
            whole = b"--frontier\r\n" + head
            with pytest.raises(RemoteProtocolError, match="headers"):
                for at in range(0, len(whole), piece):
                    list(reader.feed(whole[at : at + piece]))


def test_the_number_of_parts_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_quarry.archive.dicomweb.multipart._MAX_PARTS", 100)
    for count in (100, 101):
        reader = MultipartReader(B)
        body = b"--frontier\r\n\r\nA\r\n" * count + b"--frontier--"
        if count == 100:
            assert list(reader.feed(body)) and reader.closed
        else:
            with pytest.raises(RemoteProtocolError, match="more than 100 parts"):
                list(reader.feed(body))


def test_a_body_without_a_boundary_is_refused_and_not_kept() -> None:
    reader = MultipartReader(B)
    with pytest.raises(RemoteProtocolError, match="not multipart"):
        for _ in range(100):
            list(reader.feed(b"<html>" * 1000))


def test_nothing_of_a_part_is_held_back() -> None:
    reader = MultipartReader(B)
    list(reader.feed(b"--frontier\r\n\r\n"))
    came = 0
    for number in range(100):
        came += sum(
            len(event) for event in reader.feed(bytes([number]) * 1000) if isinstance(event, memoryview)
        )
        assert came >= (number + 1) * 1000 - len("\r\n--frontier")


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', "abc"),
        ('multipart/related; boundary="a b=c"; type=x', "a b=c"),
        ("Multipart/Related;BOUNDARY='abc'", "'abc'"),
        ("multipart/related; boundary=" + "9" * 73, "9" * 73),
        ("multipart/mixed; boundary=abc", "abc"),
        ("multipart/related", ""),
        ("multipart/related; boundary=", ""),
        ("multipart/related; boundary=" + "9" * 300, ""),
        ('multipart/related; boundary="a\x01b"', ""),
        ("text/html; boundary=abc", None),
        ("", None),
    ],
)
def test_boundaries(content_type: str, boundary: str | None) -> None:
    assert parse_boundary(content_type) == boundary


def test_a_body_is_read_into_the_reader_s_own_buffer() -> None:
    """It grows once a read has filled it; an epilogue does not fill it."""
    content = bytes(range(256)) * 8_192
    source = io.BytesIO(body(content, content) + b"e" * (1 << 20))
    reader, sizes, contents = MultipartReader(B), list[int](), b""
    while count := source.readinto(reader.get_buffer()):
        sizes.append(count)
        reader.buffer_updated(count)
        contents += b"".join(event for event in reader.events() if isinstance(event, memoryview))
    assert contents == content * 2 and reader.closed and source.tell() == len(source.getvalue())
    assert sizes[0] < sizes[1] and len(sizes) < 12
