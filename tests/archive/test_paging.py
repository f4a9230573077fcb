"""Pages of QIDO-RS against a model of a server, without I/O: complete only with everything, and no loops."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dicom_quarry.archive.base import QueryRows
from dicom_quarry.archive.dicomweb.http_client import HttpClient
from dicom_quarry.archive.dicomweb.paging import announces_more, may_refuse_limit, next_limit
from dicom_quarry.archive.dicomweb.qido import QidoClient
from dicom_quarry.errors import QueryFailed
from dicom_quarry.model import Level

#: Answers of a server for a page behind the last one: status and body.
ENDS = [(204, b""), (404, b""), (200, b"[]"), (200, b" "), (200, b""), (416, b""), (206, b"[]")]


@dataclass
class Server:
    """A server with these UIDs as the answer to a search; every field is one way of its own to send pages.

    ``cap`` is the longest page, ``largest_limit`` refused with ``refusal`` above. ``overlap`` is added before
    each offset; ``shift`` turns the list by so many answers with every request. ``last`` repeats the last
    page behind the end; ``end`` is the answer there otherwise. ``instances`` is the number in every study, or
    in each; answers have it with ``counts``.
    """

    uids: Sequence[str]
    cap: int = 10_000
    heeds_limit: bool = True
    heeds_offset: bool = True
    overlap: int = 0
    shift: int = 0
    last: bool = False
    end: tuple[int, bytes] = ENDS[0]
    status: int = 200
    warning: str = ""
    largest_limit: int = 10_000
    refusal: tuple[int, bytes] = (400, b"")
    instances: int | tuple[int, ...] = 0
    counts: bool = True
    requests: list[dict[str, str]] = field(default_factory=list)
    base: str = "http://server"

    @contextmanager
    def get(self, path: str, query: Sequence[tuple[str, str]], **_: object) -> Iterator[Reply]:
        self.requests.append(dict(query))
        yield self.answer(path, dict(query))

    def answer(self, path: str, query: dict[str, str]) -> Reply:
        limit = int(query["limit"]) if "limit" in query else 10_000
        if limit > self.largest_limit:
            return Reply(*self.refusal)
        uids = list(self.uids)
        if path != "/studies":
            uids = [f"1.2.{number}" for number in range(self.count(path.split("/")[2]))]
        turn = (self.shift * len(self.requests)) % max(1, len(uids))
        uids = uids[turn:] + uids[:turn]
        size = min(limit, self.cap) if self.heeds_limit else self.cap
        offset = int(query.get("offset", 0)) if self.heeds_offset else 0
        start = max(0, offset - self.overlap)
        if self.last and start >= len(uids):
            start = max(0, len(uids) - 1) // size * size
        page = uids[start : start + size]
        if not page and offset:
            return Reply(*self.end)
        rows = [{"0020000D": {"Value": [uid]}} for uid in page]
        if path == "/studies" and self.counts:
            for row, uid in zip(rows, page, strict=True):
                row["00201208"] = {"Value": [str(self.count(uid))]}
        more = self.warning if start + size < len(uids) else ""
        return Reply(self.status, json.dumps(rows).encode(), more)

    def count(self, uid: str) -> int:
        if isinstance(self.instances, int):
            return self.instances
        return self.instances[self.uids.index(uid)]


@dataclass
class Reply:
    status: int
    body: bytes = b""
    warning: str = ""

    def header(self, name: str, default: str = "") -> str:
        return self.warning or default if name == "Warning" else default

    def iter_raw(self) -> Iterator[bytes]:
        yield self.body


def client(server: Server, **options: Any) -> QidoClient:
    return QidoClient(cast("HttpClient", server), read_timeout=1, before_query=lambda: None, **options)


def search(server: Server, expected: int | None = None, **keys: str) -> QueryRows:
    return client(server).search(
        Level.STUDY,
        keys or {"PatientName": "A*"},
        ("StudyInstanceUID", "NumberOfStudyRelatedInstances"),
        1_000,
        expected_count=expected,
    )


def uids(count: int) -> list[str]:
    return [f"1.2.3.{number}" for number in range(count)]


def found_uids(found: QueryRows) -> set[str]:
    return {row[0x0020000D] for row in found.rows}


@pytest.mark.parametrize("end", ENDS, ids=str)
@pytest.mark.parametrize("heeds_limit", [True, False])
@pytest.mark.parametrize("cap", [2, 5, 10, 12, 25, 33, 49])
def test_small_pages_hide_nothing(cap: int, heeds_limit: bool, end: tuple[int, bytes]) -> None:
    for count in (1, cap - 1, cap, cap + 1, 3 * cap):
        server = Server(uids(count), cap=cap, heeds_limit=heeds_limit, end=end)
        found = search(server)
        assert (found.incomplete_reason, found_uids(found)) == ("", set(uids(count)))
        assert len(server.requests) == -(-count // cap) + 1


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"StudyInstanceUID": "1.2.3.0"}, None),
        ({"StudyInstanceUID": "\\".join(uids(7))}, None),
        ({}, 7),
    ],
)
def test_no_page_follows_where_the_list_is_proved(keys: dict[str, str], expected: int | None) -> None:
    server = Server(uids(7))
    assert len(search(server, expected, **keys).rows) == 7
    assert len(server.requests) == 1


def test_a_server_that_ignores_a_uid_is_not_read_to_its_end() -> None:
    server = Server(uids(90), cap=12)
    assert len(search(server, StudyInstanceUID="2.25.0").rows) == 12
    assert len(server.requests) == 1


def test_a_server_that_ignores_an_identifier_is_not_read_to_its_end() -> None:
    class Others(Server):
        def answer(self, path: str, query: dict[str, str]) -> Reply:
            reply = super().answer(path, query)
            rows = json.loads(reply.body or b"[]")
            return Reply(200, json.dumps([{**row, "00080050": {"Value": ["B7"]}} for row in rows]).encode())

    for wanted, requests in (("A1", 20), ("B7", 51), ("B*", 51)):
        server = Others(uids(500), cap=10)
        client(server).search(
            Level.STUDY, {"AccessionNumber": wanted}, ("StudyInstanceUID", "AccessionNumber"), 1_000
        )
        assert len(server.requests) == requests


# --- repeated answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("heeds_limit", [True, False])
def test_of_a_server_that_ignores_offsets_only_evidence_is_believed(heeds_limit: bool) -> None:
    server = Server(uids(40), cap=12, heeds_limit=heeds_limit, heeds_offset=False)
    connection = client(server)

    def reason(count: int) -> str:
        server.uids = uids(count)
        found = connection.search(Level.STUDY, {"PatientName": "A*"}, ("StudyInstanceUID",), 1_000)
        assert len(found.rows) == min(count, 12)
        return found.incomplete_reason

    assert reason(1) == ""  # no server has pages of one
    assert "repeats answers of its first 5" in reason(5)
    assert "repeats answers of its first 12" in reason(40)
    assert reason(5) == reason(11) == ""  # 12 came in one page
    assert "repeats" in reason(12)


def test_a_server_that_sends_everything_at_once_shows_it_by_a_longer_list() -> None:
    server = Server(uids(4), heeds_offset=False, heeds_limit=False, instances=5)
    assert search(server).incomplete_reason == ""
    assert len(server.requests) == 3
    server = Server(uids(4), cap=4, heeds_offset=False, heeds_limit=False, instances=5)
    assert "repeats" in search(server).incomplete_reason
    known = client(Server(uids(4), heeds_offset=False), longest_page=100)  # by result-cap
    assert not known.search(Level.STUDY, {"PatientName": "A*"}, ("StudyInstanceUID",), 9).incomplete_reason


@pytest.mark.parametrize(
    ("instances", "cap", "requests", "whole"),
    [
        ((1, 9, 1, 1), 100, 4, True),
        ((1, 1, 7, 9), 100, 5, True),
        ((1, 1, 1, 9), 100, 5, False),  # three are tried, no more
        ((9, 9, 9, 9), 4, 5, False),
    ],
)
def test_without_counts_a_few_studies_are_listed_to_see_a_longer_page(
    instances: tuple[int, ...], cap: int, requests: int, whole: bool
) -> None:
    server = Server(
        uids(4), cap=cap, heeds_offset=False, heeds_limit=False, instances=instances, counts=False
    )
    reason = search(server).incomplete_reason
    assert not reason if whole else "repeats answers of its first 4" in reason
    assert len(server.requests) == requests


def test_a_limit_that_was_reached_is_no_evidence() -> None:
    connection = client(server := Server(uids(3), heeds_offset=False), longest_page=2_000)
    connection._pages._limit = 3
    found = connection.search(Level.STUDY, {"PatientName": "A*"}, ("StudyInstanceUID",), 9)
    assert "repeats" in found.incomplete_reason, server.requests


@pytest.mark.parametrize(
    "server",
    [
        Server(uids(30), cap=12, overlap=3),
        Server(uids(30), cap=12, shift=1),
        Server(uids(30), cap=12, shift=7),
        Server([*uids(12), *uids(30)], cap=12),
        Server([*uids(18), *uids(30)], cap=12),
    ],
    ids=["overlap", "turns by one", "turns", "a page twice", "half a page twice"],
)
def test_repeated_answers_are_counted_once_and_are_doubtful(server: Server) -> None:
    found = search(server)
    assert len(found_uids(found)) == len(found.rows)
    assert "repeat" in found.incomplete_reason
    server.requests.clear()
    proved = search(server, expected=len(found.rows))
    assert (proved.incomplete_reason, len(proved.rows)) == ("", len(found.rows))


@pytest.mark.parametrize(("count", "reason"), [(30, ""), (24, "repeats")])
def test_the_last_page_sent_again_is_the_end_if_it_is_shorter_than_others(count: int, reason: str) -> None:
    found = search(Server(uids(count), cap=12, last=True))
    assert len(found.rows) == count
    assert reason in found.incomplete_reason
    assert bool(reason) == bool(found.incomplete_reason)


def test_a_list_that_grows_while_it_is_read_is_taken_to_its_end() -> None:
    class Grows(Server):
        def answer(self, path: str, query: dict[str, str]) -> Reply:
            self.uids = uids(min(18, 14 + len(self.requests)))
            return super().answer(path, query)

    found = search(Grows(uids(14), cap=5))
    assert (len(found.rows), found.incomplete_reason) == (18, "")

    class GrowsAtItsHead(Server):
        def answer(self, path: str, query: dict[str, str]) -> Reply:
            self.uids = [f"1.9.{len(self.requests)}", *self.uids]
            return super().answer(path, query)

    assert "repeats" in search(GrowsAtItsHead(uids(14), cap=5)).incomplete_reason


@pytest.mark.parametrize(("changes", "reason"), [({2}, ""), ({2, 5}, "repeated 1 of 7"), ({2, 4}, "")])
def test_a_list_that_changed_while_it_was_read_is_read_again(changes: set[int], reason: str) -> None:
    """A reading takes two pages and an empty one."""

    class GrowsAtItsHead(Server):
        def answer(self, path: str, query: dict[str, str]) -> Reply:
            if len(self.requests) in changes:
                self.uids = [f"1.9.{len(self.requests)}", *self.uids]
            return super().answer(path, query)

    found = search(server := GrowsAtItsHead(uids(6), cap=5))
    assert reason in found.incomplete_reason
    assert bool(reason) == bool(found.incomplete_reason)
    assert len(server.requests) == 6
    assert reason or found_uids(found) == set(server.uids)


def test_a_list_that_lost_an_answer_when_it_was_read_again_is_doubtful() -> None:
    class Loses(Server):
        def answer(self, path: str, query: dict[str, str]) -> Reply:
            if len(self.requests) == 2:
                self.uids = ["1.9", *self.uids]
            elif len(self.requests) == 4:
                self.uids = self.uids[:-1]
            return super().answer(path, query)

    found = search(server := Loses(uids(7), cap=5))
    assert found_uids(found) == set(uids(7))
    assert "list changed" in found.incomplete_reason, server.requests


def test_a_list_without_an_end_is_stopped() -> None:
    class Endless(Server):
        def answer(self, path: str, query: dict[str, str]) -> Reply:
            self.uids = uids(30 * len(self.requests))
            return super().answer(path, query)

    found = search(server := Endless([], cap=30))
    assert (len(found.rows), len(server.requests)) == (1_000, 34)
    assert "more than 1,000" in found.incomplete_reason


# --- what a server announces or refuses ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("warning", "more"),
    [
        ('299 x "There are additional results that can be requested"', True),
        ('299 x "The number of results exceeded the maximum supported by the server."', True),
        ("299", True),
        ('199 a "x", 299 b "Only 12 results are shown"', True),
        ('299 x "The fuzzymatching parameter is not supported. Only literal matching was used."', False),
        ('299 gateway "Deprecated API"', False),
        ('199 host:2990 "more"', False),
        ("", False),
    ],
)
def test_only_a_warning_about_results_announces_more(warning: str, more: bool) -> None:
    assert announces_more(warning) == more


def test_results_that_are_announced_and_never_come_are_missed() -> None:
    class Cut(Server):
        """Sends no more than its first 20 answers."""

        def answer(self, path: str, query: dict[str, str]) -> Reply:
            return Reply(204) if query["offset"] == "20" else super().answer(path, query)

    warning = '299 x "There are more results"'
    assert "announces more" in search(Cut(uids(30), cap=10, warning=warning)).incomplete_reason
    ignoring = Server(uids(30), cap=10, warning=warning, heeds_offset=False)
    assert "repeats" in search(ignoring).incomplete_reason
    # A count that is reached does not end the list while more is announced.
    found = search(Server(uids(30), cap=10, warning=warning), expected=10)
    assert (len(found.rows), found.incomplete_reason) == (30, "")


def test_pages_with_status_206_are_pages() -> None:
    for expected in (None, 10, 30):
        found = search(Server(uids(30), cap=10, status=206), expected)
        assert (len(found.rows), found.incomplete_reason) == (30, "")


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (b"", ["1000", "500", "250", "200"]),
        (b"the limit must be between 1 and 200", ["1000", "200"]),
        (b'{"status": 400, "message": "limit: must be less than or equal to 200"}', ["1000", "200"]),
        (b"limit 1000 exceeds 200 (request 2.25.450.7 at 2024-05-01T12:00:01)", ["1000", "200"]),
        (
            b"<html><style>p {max-width: 525px}</style><h1>HTTP Status 400</h1>at most <b>120</b></html>",
            ["1000", "120"],
        ),
        (b"error 77 in line 600", ["1000", "500", "250", "200"]),
        (b"the limit 900 is too large", ["1000", "900", "500", "250", "200"]),
    ],
    ids=lambda value: value.decode()[:20] if isinstance(value, bytes) else "",
)
def test_the_largest_limit_is_learned_from_its_refusal(status: int, text: bytes, limits: list[str]) -> None:
    server = Server(uids(450), largest_limit=200, refusal=(status, text))
    connection = client(server)
    found = connection.search(Level.STUDY, {"PatientName": "A*"}, ("StudyInstanceUID",), 1_000)
    assert (len(found.rows), found.incomplete_reason) == (450, "")
    sent = [one["limit"] for one in server.requests]
    assert list(dict.fromkeys(sent)) == limits
    server.requests.clear()
    connection.search(Level.SERIES, {"StudyInstanceUID": "1.2"}, ("SeriesInstanceUID",), 1_000)
    assert {one["limit"] for one in server.requests} == {sent[-1]}, "it is remembered for the server"


def test_a_server_that_refuses_every_limit_is_queried_without_one() -> None:
    class NoLimit(Server):
        def answer(self, path: str, query: dict[str, str]) -> Reply:
            return Reply(400) if "limit" in query else super().answer(path, query)

    found = search(server := NoLimit(uids(45), cap=20))
    assert (len(found.rows), found.incomplete_reason) == (45, "")
    assert [one.get("offset") for one in server.requests[-4:]] == [None, "20", "40", "45"]
    assert not any("limit" in one for one in server.requests[-4:])


def test_a_refusal_for_another_reason_stays_what_it_is() -> None:
    connection = client(server := Server(uids(3), largest_limit=-1, refusal=(400, b"no such key")))
    server.largest_limit = 10_000
    connection.search(Level.STUDY, {"PatientName": "A*"}, ("StudyInstanceUID",), 1_000)
    server.requests.clear()
    server.largest_limit = -1
    with pytest.raises(QueryFailed, match="HTTP 400"):
        connection.search(Level.STUDY, {"PatientName": "B*"}, ("StudyInstanceUID",), 1_000)
    assert len(server.requests) == 1, "the server reads this spelling"
    connection = client(server)
    with pytest.raises(QueryFailed, match="HTTP 400"):
        connection.search(Level.STUDY, {"PatientName": "B*"}, ("StudyInstanceUID",), 1_000)
    assert len(server.requests) <= 12  # every limit, then the key in another spelling
    assert connection._pages._limit == 1000


def test_a_limit_is_refused_by_these_responses() -> None:
    assert may_refuse_limit(413, "", was_accepted=True)
    assert may_refuse_limit(400, "limit too large", was_accepted=True)
    assert not may_refuse_limit(400, "<i title='limit'>bad key</i>", was_accepted=True)
    assert not may_refuse_limit(404, "limit", was_accepted=False)
    assert next_limit("", 10, 1) is None


@pytest.mark.parametrize("status", [400, 422, 501, 500])
def test_a_refused_further_page_is_an_end_only_with_evidence(status: int) -> None:
    refused = (status, b"offset is out of range")
    one = search(Server(uids(1), end=refused))
    assert (len(one.rows), one.incomplete_reason) == (1, "")
    short = search(Server(uids(30), cap=12, end=refused))
    assert (len(short.rows), short.incomplete_reason) == (30, "")
    if status == 500:
        with pytest.raises(QueryFailed, match="HTTP 500"):
            search(Server(uids(24), cap=12, end=refused))
    else:
        found = search(Server(uids(24), cap=12, end=refused))
        assert f"refuses to send what follows its first 24 answers (HTTP {status})" in found.incomplete_reason


# --- any server ---------------------------------------------------------------------------------------------

SERVERS = st.builds(
    Server,
    uids=st.builds(
        lambda count, doubles: [*uids(count), *uids(doubles)], st.integers(0, 40), st.integers(0, 5)
    ),
    cap=st.integers(2, 45),
    heeds_limit=st.booleans(),
    heeds_offset=st.booleans(),
    overlap=st.integers(0, 3),
    shift=st.integers(0, 3),
    last=st.booleans(),
    end=st.sampled_from([*ENDS, (400, b""), (422, b"offset")]),
    status=st.sampled_from([200, 206]),
    warning=st.sampled_from(["", '299 x "There are more results"']),
    largest_limit=st.sampled_from([3, 7, 10, 12, 200, 10_000]),
    refusal=st.sampled_from([(400, b""), (413, b"limit: at most 7"), (422, b"at most 11 of 12 results")]),
    instances=st.sampled_from([0, 3, 60]),
    counts=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(server=SERVERS, counted=st.booleans())
@example(server=Server(uids(12), cap=12, heeds_offset=False), counted=False)
def test_any_server_is_complete_only_with_everything(server: Server, counted: bool) -> None:
    expected = len(set(server.uids)) if counted else None
    try:
        found = search(server, expected)
    except QueryFailed:
        return
    assert len(server.requests) <= 2 * len(server.uids) + 25  # a list that changed is read twice
    assert len(found_uids(found)) <= len(found.rows)
    if not found.incomplete_reason:
        assert found_uids(found) == set(server.uids)
    is_honest = server.heeds_offset and not (server.overlap or server.shift)
    if is_honest and len(set(server.uids)) == len(server.uids) and server.end in ENDS and not server.last:
        assert not found.incomplete_reason
