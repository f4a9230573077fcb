"""The DICOMweb adapter with servers that misbehave: failures distinguished, complete parts kept, no loops."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dicom_quarry.archive.base import MonitorAction, RetrieveRequest, RetrieveResult, Verdict
from dicom_quarry.archive.dicomweb import connection, wado
from dicom_quarry.archive.dicomweb.archive import DicomWebArchive
from dicom_quarry.archive.dicomweb.instance_receiver import InstanceStream
from dicom_quarry.archive.dicomweb.json_model import parse_datasets
from dicom_quarry.archive.instance_listing import get_count
from dicom_quarry.config.credentials import HttpSettings
from dicom_quarry.demo.dicomweb_services import WebRequest, WebResponse
from dicom_quarry.demo.query_matching import QueryIdentifier
from dicom_quarry.demo.synthetic_studies import DemoStudy as DemoStudy
from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.errors import (
    ArchiveError,
    ConnectionLost,
    OperatorActionRequired,
    QueryFailed,
    Rejected,
    Unreachable,
)
from dicom_quarry.model import BaseUri, Selection, Study, Task
from tests.archive.sites import MemorySink, PatientWatch
from tests.peers.process import free_port
from tests.scripted.web import ScriptedWeb, WebFault
from tests.scripted.web_faults import (
    Answer,
    Compressed,
    CutBody,
    Dribble,
    Guarded,
    IgnoresSeries,
    NoCounts,
    Pages,
    Partial,
    Parts,
    Rows,
    Silent,
    anything,
    at,
    file_of,
    lists_series,
    lists_study,
    searches,
    web_page,
)

#: A study of two series with three instances each.
STUDY, OTHER = generate_studies(2, seed=11, series=2, images=3)
UIDS = {instance.sop_uid for instance in STUDY.instances()}
WHOLE = RetrieveRequest(STUDY.study_uid)
QUERY = QueryIdentifier("STUDY", {"StudyInstanceUID": STUDY.study_uid})
SERIES = tuple(series.series_uid for series in STUDY.series)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connection, wado):
        monkeypatch.setattr(module, "TICK", 0.02)


@contextmanager
def archive(
    *faults: WebFault, studies: Iterable[DemoStudy] = (STUDY, OTHER), **options: Any
) -> Iterator[tuple[ScriptedWeb, DicomWebArchive]]:
    with ScriptedWeb(studies, faults) as web:
        adapter = DicomWebArchive("main", BaseUri.parse(web.base_url), **options)
        try:
            yield web, adapter
        finally:
            adapter.close()


def fetch(
    *faults: WebFault, request: RetrieveRequest = WHOLE, decide: Callable[[], MonitorAction] | None = None
) -> tuple[RetrieveResult, set[str], ScriptedWeb]:
    """Retrieve; return the result, the UIDs that were stored, and the server."""
    sink = MemorySink()
    monitor = PatientWatch(decide) if decide else PatientWatch()
    with archive(*faults) as (web, adapter):
        answered = adapter.retrieve(request, sink, monitor)
    assert not sink.unfinished, "a file was neither kept nor given up"
    return answered, set(sink.kept), web


def task(study: DemoStudy = STUDY, count: int | None = None) -> Task:
    return Task(1, "main", Study(study.study_uid, instance_count=count))


# --- statuses and bodies of retrievals --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "verdict", "message"),
    [
        (Answer(204), Verdict.WARNING, "nothing to send"),
        (Answer(400), Verdict.UNSUPPORTED, "malformed (HTTP 400)"),
        (Answer(403), Verdict.CONFIGURATION, "does not allow"),
        (Answer(404), Verdict.UNSUPPORTED, "does not find"),
        (Answer(405), Verdict.UNSUPPORTED, "does not offer"),
        (Answer(406), Verdict.UNSUPPORTED, "does not send files as they are stored"),
        (Answer(409), Verdict.RETRY, "is changing"),
        (Answer(410), Verdict.UNSUPPORTED, "no longer"),
        (Answer(413), Verdict.UNSUPPORTED, "too much at once"),
        (Answer(415), Verdict.UNSUPPORTED, "media type"),
        (Answer(418), Verdict.UNSUPPORTED, "refuses the request (HTTP 418)"),
        (Answer(500), Verdict.RETRY, "failed (HTTP 500)"),
        (Answer(502), Verdict.RETRY, "in front of the archive"),
        (Answer(599), Verdict.RETRY, "failed (HTTP 599)"),
        (Answer(222), Verdict.WARNING, "unusual"),
        (web_page(), Verdict.RETRY, "web page"),
        (Answer(200, b"{}", headers={"Content-Type": "application/json"}), Verdict.UNSUPPORTED, "neither"),
        (Answer(200, b"x\n", headers={"Content-Type": "multipart/related"}), Verdict.LOST, "not multipart"),
        (Answer(200, b"x", headers={"Content-Type": "multipart/related"}), Verdict.LOST, "closing boundary"),
        (
            Answer(200, b"no boundary", headers={"Content-Type": "multipart/related; boundary=b"}),
            Verdict.LOST,
            "closing boundary",
        ),
        (Compressed("br"), Verdict.UNSUPPORTED, "compressed"),
        (Answer(407), Verdict.CONFIGURATION, "proxy"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_failures_of_a_retrieval_are_distinguished(fault: WebFault, verdict: Verdict, message: str) -> None:
    answered, kept, _ = fetch(fault)
    assert (answered.verdict, answered.completed, kept) == (verdict, 0, set())
    assert message in answered.comment
    assert answered.retry_after is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("", 0), ("soon", 0), ("99999", 3600), ("Thu, 01 Jan 2099 00:00:00 GMT", 3600)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_archive_names_its_pause(status: int, header: str, seconds: float) -> None:
    busy = Answer(status, headers={"Retry-After": header} if header else {}, which=anything)
    answered, kept, _ = fetch(busy)
    assert (answered.verdict, answered.retry_after, kept) == (Verdict.RETRY, seconds, set())
    with archive(busy) as (_, adapter), pytest.raises(Rejected) as rejected:
        adapter.find({"PatientID": "1"})
    assert (rejected.value.permanent, rejected.value.retry_after) == (False, seconds)


def test_a_partial_answer_keeps_what_came() -> None:
    answered, kept, _ = fetch(Partial())
    assert (answered.verdict, answered.completed, len(kept)) == (Verdict.WARNING, 1, 1)
    assert "(HTTP 206)" in answered.comment


@pytest.mark.parametrize("how", ["chunks", "length", "boundary"])
def test_a_body_that_is_cut_is_lost_and_its_whole_parts_are_kept(how: str) -> None:
    whole = 1 if how == "boundary" else 2  # the last part is whole if a boundary follows it
    answered, kept, _ = fetch(CutBody(how, parts=2))
    assert (answered.verdict, answered.completed, len(kept)) == (Verdict.LOST, whole, whole)
    assert kept < UIDS


def test_a_part_that_is_no_whole_file_costs_itself_alone() -> None:
    def spoil(_web: ScriptedWeb, files: list[bytes]) -> list[bytes]:
        return [b"<html>", *files[:2], files[2][:200], b"", files[3] + bytes(3), *files[4:]]

    answered, kept, _ = fetch(Parts(spoil))
    assert (answered.verdict, answered.failed) == (Verdict.WARNING, 3)
    assert len(kept) == 5
    assert "not a DICOM file" in answered.comment


def test_of_many_reasons_ten_are_shown() -> None:
    parts = b"".join(b"--b\r\nContent-Length: %d\r\n\r\nx\r\n" % size for size in range(100, 5100))
    headers = {"Content-Type": "multipart/related; boundary=b"}
    answered, kept, _ = fetch(Answer(200, parts + b"--b--", headers=headers))
    assert (answered.failed, kept) == (5000, set())
    assert "instead of the 109 that" in answered.comment and answered.comment.endswith("and 4,990 others")


@pytest.mark.parametrize("length", ["9" * 5000, "0" * 5000 + "7", "-1", "1e3"])
def test_a_length_of_any_number_of_digits_breaks_nothing(length: str) -> None:
    body = f"--b\r\nContent-Length: {length}\r\n\r\nno file\r\n--b--".encode()
    answered, kept, _ = fetch(Answer(200, body, headers={"Content-Type": "multipart/related; boundary=b"}))
    assert (answered.verdict, answered.failed, kept) == (Verdict.RETRY, 1, set())


def test_a_part_that_is_not_as_long_as_announced_is_not_kept() -> None:
    headers = {"Content-Type": "multipart/related; boundary=b"}
    with ScriptedWeb([STUDY]) as web:
        file = (
            Parts(lambda _, files: files[:1])
            .reply(web, WebRequest(False, QUERY), WebResponse(200))
            .body.split(b"\r\n\r\n", 1)[1]
            .rpartition(b"\r\n--")[0]
        )
    body = b"--b\r\nContent-Length: %d\r\n\r\n%s\r\n--b--"
    for length, expected in ((len(file), 1), (len(file) + 2, 0), (len(file) - 2, 0)):
        answered, kept, _ = fetch(Answer(200, body % (length, file), headers=headers))
        assert (len(kept), answered.failed) == (expected, 1 - expected), length


def test_one_file_without_multipart_is_taken_where_its_end_can_be_told() -> None:
    with ScriptedWeb([STUDY]) as web:
        whole = web.right_answer(WebRequest(False, QUERY))
        assert whole.chunks is not None
        file = b"".join(whole.chunks).split(b"\r\n\r\n", 1)[1].split(b"\r\n--quarry-demo")[0]
    request = RetrieveRequest(STUDY.study_uid, series_uids=SERIES[:1], sop_uids=(min(UIDS),))
    answered, kept, _ = fetch(
        Answer(200, file, headers={"Content-Type": "application/dicom"}), request=request
    )
    assert (answered.verdict, len(kept)) == (Verdict.SUCCESS, 1)
    headers = {
        "Content-Type": "application/dicom",
        "Content-Length": str(len(file) + 9),
        "Connection": "close",
    }
    answered, kept, _ = fetch(Answer(200, file, headers=headers), request=request)
    assert (answered.verdict, kept) == (Verdict.LOST, set())


def _one_file(ending: bytes = b"") -> bytes:
    """Return an instance as a file; ``ending`` is its Data Set Trailing Padding."""
    file = file_of(next(iter(STUDY.instances())))
    return file + (b"\xfc\xff\xfc\xffOB\0\0\x02\0\0\0" + ending if ending else b"")


@pytest.mark.parametrize("line", [b"\r\n", b"\n"])
@pytest.mark.parametrize("length", [True, False])
def test_a_file_that_ends_in_a_carriage_return_keeps_it(line: bytes, length: bool) -> None:
    file, sink = _one_file(b"\0\r"), MemorySink()
    head = [b"--b", *([b"Content-Length: %d" % len(file)] if length else []), b"", file, b"--b--"]
    answer = Answer(
        200, line.join(head), which=at("STUDY"), headers={"Content-Type": "multipart/related; boundary=b"}
    )
    with archive(answer) as (_, adapter):
        assert adapter.retrieve(WHOLE, sink, PatientWatch()).verdict is Verdict.SUCCESS
    ((_, data),) = sink.kept.values()
    assert file.endswith(data)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
@pytest.mark.parametrize("content_type", ["application/dicom", "application/octet-stream", ""])
def test_one_file_is_taken_whatever_its_media_type_and_coding(coding: str, content_type: str) -> None:
    answer = Answer(200, _one_file(), headers={"Content-Type": content_type} if content_type else {})
    answered, kept, _ = fetch(answer, Compressed(coding, really=coding != "br"))
    if coding == "br":
        assert (answered.verdict, kept) == (Verdict.UNSUPPORTED, set())
        assert "compressed response (br)" in answered.comment
    else:
        assert (answered.verdict, len(kept)) == (Verdict.SUCCESS, 1)


def test_a_compressed_body_that_is_cut_is_lost() -> None:
    class Cut(Compressed):
        def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
            whole = super().reply(web, request, reply)
            return WebResponse(200, whole.headers, whole.body[:-20])

    answered, kept, _ = fetch(Cut(really=True))
    assert answered.verdict is Verdict.LOST
    assert "not complete" in answered.comment
    assert kept < UIDS


@pytest.mark.parametrize("content_type", ["", "application/octet-stream", "multipart/related"])
def test_multipart_is_recognised_whatever_the_header_states(content_type: str) -> None:
    body = b"\r\n--x7\r\n\r\n" + _one_file() + b"\r\n--x7--"
    answered, kept, _ = fetch(
        Answer(200, body, headers={"Content-Type": content_type} if content_type else {})
    )
    assert (answered.verdict, len(kept)) == (Verdict.SUCCESS, 1)


def test_series_and_instances_are_requested_one_by_one() -> None:
    answered, kept, web = fetch(request=RetrieveRequest(STUDY.study_uid, series_uids=SERIES))
    assert (answered.verdict, answered.completed, kept) == (Verdict.SUCCESS, 6, UIDS)
    assert [one.query.level for one in web.log] == ["SERIES", "SERIES"]
    wanted = tuple(i.sop_uid for i in STUDY.instances() if i.series.series_uid == SERIES[0])[:2]
    answered, kept, web = fetch(
        request=RetrieveRequest(STUDY.study_uid, series_uids=SERIES[:1], sop_uids=wanted)
    )
    assert (answered.verdict, kept) == (Verdict.SUCCESS, set(wanted))
    assert [one.query.level for one in web.log] == ["IMAGE", "IMAGE"]


@pytest.mark.parametrize(
    ("fault", "verdict", "completed", "requests"),
    [
        (Answer(404, times=1), Verdict.WARNING, 2, 3),
        (Answer(503, times=1), Verdict.RETRY, 0, 1),
        (CutBody("chunks", parts=0, times=1), Verdict.LOST, 0, 1),
        (Answer(404), Verdict.UNSUPPORTED, 0, 3),
    ],
)
def test_of_several_instances_one_may_be_missing_but_a_lost_archive_is_left_alone(
    fault: WebFault, verdict: Verdict, completed: int, requests: int
) -> None:
    uids = tuple(i.sop_uid for i in STUDY.instances() if i.series.series_uid == SERIES[0])
    answered, _, web = fetch(
        fault, request=RetrieveRequest(STUDY.study_uid, series_uids=SERIES[:1], sop_uids=uids)
    )
    assert (answered.verdict, answered.completed) == (verdict, completed)
    assert len(web.log) == requests


# --- monitors and time-outs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Dribble(), Silent()], ids=["dribble", "silent"])
@pytest.mark.parametrize(
    ("action", "verdict"), [(MonitorAction.CANCEL, Verdict.CANCELLED), (MonitorAction.ABORT, Verdict.LOST)]
)
def test_the_monitor_ends_what_takes_too_long(
    fault: WebFault, action: MonitorAction, verdict: Verdict
) -> None:
    looks = iter([MonitorAction.WAIT, MonitorAction.WAIT])
    answered, kept, _ = fetch(fault, decide=lambda: next(looks, action))
    assert (answered.verdict, kept) == (verdict, set())


def test_a_trickle_is_no_sign_of_life() -> None:
    monitor = PatientWatch()
    looks = iter([MonitorAction.WAIT] * 10)
    monitor.next_action = lambda: next(looks, MonitorAction.ABORT)
    with archive(Dribble()) as (_, adapter):
        adapter.retrieve(WHOLE, MemorySink(), monitor)
    assert monitor.signs == 0


def test_a_query_may_be_silent_for_so_long() -> None:
    with (
        archive(Silent(searches), read_timeout=0.2) as (_, adapter),
        pytest.raises(ConnectionLost, match="sent nothing"),
    ):
        adapter.find({"PatientID": "1"})


def test_closing_ends_what_is_in_progress_elsewhere() -> None:
    answers: list[RetrieveResult] = []
    with archive(Silent()) as (web, adapter):
        thread = threading.Thread(
            target=lambda: answers.append(adapter.retrieve(WHOLE, MemorySink(), PatientWatch()))
        )
        thread.start()
        while not web.log:
            pass
        adapter.close()
        thread.join(30)
        assert [answered.verdict for answered in answers] == [Verdict.LOST]
        with pytest.raises(ConnectionLost, match="closed"):
            adapter.find({"PatientID": "1"})


# --- queries ----------------------------------------------------------------------------------------------

MANY = generate_studies(1, seed=12, images=130)[0]


@pytest.mark.parametrize(
    ("fault", "listed", "why"),
    [
        (Pages(), 130, ""),
        (Pages(cap=50), 130, ""),
        (Pages(cap=50, offset=False), 50, "repeats"),
        (Pages(limit=False, offset=False), 130, ""),
        (Pages(limit=False), 130, ""),
        (Pages(cap=7, announces=True), 130, ""),
        (Pages(cap=7, offset=False, announces=True), 7, "repeats"),
    ],
    ids=[
        "pages",
        "small pages",
        "offset ignored",
        "no pages",
        "limit ignored",
        "tiny pages",
        "announced and repeated",
    ],
)
def test_pages_cannot_loop_and_hide_nothing(fault: WebFault, listed: int, why: str) -> None:
    with archive(fault, studies=[MANY]) as (web, adapter):
        listing = adapter.list_instances(task(MANY))
        assert len(web.log) < 30
    assert len(listing.instances) == listed
    assert listing.complete == (not why)
    assert why in listing.incomplete_reason


def test_a_study_whose_own_count_agrees_is_listed_by_one_query() -> None:
    with archive() as (web, adapter):
        assert len(adapter.list_instances(task(count=6)).instances) == 6
        assert len(web.log) == 1
        listing = adapter.list_instances(task(count=7))  # a larger count is checked by series, too
        assert (len(listing.instances), listing.count) == (6, 7)
        assert len(web.log) > 2


def test_studies_beyond_the_limit_are_not_read() -> None:
    studies = generate_studies(60, seed=3)
    patient = {"StudyDate": "20000101-20991231"}
    with archive(studies=studies, max_studies=40) as (_, adapter):
        found = adapter.find(patient)
    assert (len(found.studies), found.complete) == (40, False)
    with archive(studies=studies, result_cap=60) as (_, adapter):
        found = adapter.find(patient)
    assert (len(found.studies), found.complete) == (60, False)


def test_a_result_that_is_repeated_counts_for_the_limit() -> None:
    def twice(rows: list[dict[str, Any]]) -> object:
        return [row for row in rows for _ in range(2)]

    studies = generate_studies(2, seed=3)
    with archive(Rows(twice), studies=studies, result_cap=4) as (_, adapter):
        found = adapter.find({"StudyDate": "20000101-20991231"})
    assert (len(found.studies), found.answer_count, found.complete) == (2, 4, False)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (web_page(searches), QueryFailed, "web page"),
        (Answer(200, b"{", which=searches), QueryFailed, "not JSON"),
        (Answer(200, b'{"a": 1}', which=searches), QueryFailed, "not an array"),
        (Answer(200, b"[1]", which=searches), QueryFailed, "not an array"),
        (Answer(200, b"[" * 100_000, which=searches), QueryFailed, "not JSON"),
        (Answer(404, which=searches), QueryFailed, "HTTP 404"),
        (Answer(400, which=searches), QueryFailed, "HTTP 400"),
        (Answer(500, which=searches), QueryFailed, "HTTP 500"),
        (Answer(200, which=searches, headers={"Content-Type": "text/html"}), QueryFailed, "web page"),
        (
            Answer(200, b"[%s]" % (b" " * (16 << 20)), which=searches),
            QueryFailed,
            "more than 16 MB in one page",
        ),
        (
            Answer(200, b"[%s{}]" % (b"{}," * 1_000_000), which=searches),
            QueryFailed,
            "more than 1,000,000 objects",
        ),
        (Answer(406, which=searches), QueryFailed, "HTTP 406"),
        (Answer(401, which=searches), OperatorActionRequired, "credentials"),
        (Compressed("br"), QueryFailed, "compressed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_response_to_a_query_is_not_an_empty_list(
    fault: WebFault, error: type[ArchiveError], message: str
) -> None:
    with archive(fault) as (_, adapter), pytest.raises(error, match=message):
        adapter.find({"StudyInstanceUID": STUDY.study_uid})


@pytest.mark.parametrize("status", [200, 204, 404, 410])
def test_404_means_no_match_where_any_search_is_answered(status: int) -> None:
    class NoMatch(WebFault):
        def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
            return WebResponse(status) if reply.status == 204 else reply

    with archive(NoMatch()) as (web, adapter):
        adapter.probe()
        for _ in range(3):
            assert adapter.find({"AccessionNumber": "NO-SUCH"}).studies == ()
        assert len(web.log) == 4 + (status in (404, 410)), "one search shows that there is a service"
        assert len(adapter.find({"StudyInstanceUID": STUDY.study_uid}).studies) == 1


def test_404_for_everything_is_a_wrong_address() -> None:
    with archive(Answer(404, which=searches)) as (web, adapter):
        for _ in range(2):
            with pytest.raises(QueryFailed, match="Check the address"):
                adapter.probe()
        assert len(web.log) == 4


# --- lists of instances -------------------------------------------------------------------------------------


def _no_series(request: WebRequest) -> bool:
    return request.is_search and request.query.level == "SERIES"


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(
    "faults",
    [
        [Answer(404, which=lists_study)],
        [Answer(405, which=lists_study)],
        [Answer(500, which=lists_study)],
        [Answer(200, which=lists_study)],
        [Answer(404, which=_no_series)],
        [Answer(404, which=_no_series), Answer(404, which=lists_series)],
        [IgnoresSeries(), Answer(404, which=lists_study)],
    ],
)
def test_instances_are_listed_by_what_the_server_has(faults: list[WebFault], counted: bool) -> None:
    with archive(*faults, *([] if counted else [NoCounts()])) as (web, adapter):
        listing = adapter.list_instances(task(count=6 if counted else None))
        before = len(web.log)
        adapter.list_instances(task(count=6 if counted else None))
    assert {(ref.series_uid, ref.sop_uid) for ref in listing.instances} == {
        (one.series.series_uid, one.sop_uid) for one in STUDY.instances()
    }
    assert (listing.complete, listing.lists_instances) == (True, True)
    assert set(listing.series_uids) == set(SERIES)
    assert len(web.log) - before <= before, "what it does not have is not requested more often"


@pytest.mark.parametrize("status", [404, 400, 501])
def test_a_server_that_lists_nothing_is_not_taken_for_an_empty_study(status: int) -> None:
    lists = Answer(status, which=lambda one: one.is_search and one.query.level != "STUDY")
    with archive(lists) as (_, adapter):
        listing = adapter.list_instances(task())
    assert (listing.instances, listing.lists_instances) == ((), False)


def test_of_a_list_that_ignores_the_series_only_the_selection_is_taken() -> None:
    with archive(IgnoresSeries()) as (_, adapter):
        chosen = Task(1, "main", Study(STUDY.study_uid), Selection(frozenset(SERIES[1:])))
        listing = adapter.list_instances(chosen)
    assert {ref.series_uid for ref in listing.instances} == {SERIES[1]}
    assert len(listing.instances) == 3


def test_instances_of_other_studies_are_left_out() -> None:
    def with_others(rows: list[dict[str, Any]]) -> object:
        def of(uid: str) -> dict[str, Any]:
            return {"0020000D": {"vr": "UI", "Value": [uid]}}

        if "00080018" not in rows[0]:
            return rows
        other = {**rows[0], **of("1.2.3"), "00080018": {"vr": "UI", "Value": ["1.2.3.4"]}}
        return [other, *({**row, **of(STUDY.study_uid)} for row in rows)]

    with archive(Rows(with_others)) as (_, adapter):
        listing = adapter.list_instances(task())
    assert {ref.sop_uid for ref in listing.instances} == UIDS


def test_odd_values_are_read_and_none_breaks_anything() -> None:
    def odd(rows: list[dict[str, Any]]) -> object:
        first = dict(rows[0])
        first["00201208"] = {"vr": "IS", "Value": [6.0]}
        first["00081030"] = {"vr": "LO", "Value": ["A\ud800", None, "B "]}
        first["00100020"] = {"vr": "LO", "Value": [" 4711 "]}
        first["00080061"] = {"vr": "CS", "Value": "CT"}
        first["00080050"] = {"vr": "SH"}
        first["00080020"] = "20180723"
        return [first, {"0020000D": {"vr": "UI", "Value": ["1.2.*"]}}, {}]

    with archive(Rows(odd)) as (_, adapter):
        found = adapter.find({"StudyInstanceUID": STUDY.study_uid})
    (study,) = found.studies
    assert (study.instance_count, study.description) == (6, "A&#55296;\\\\B")
    assert (study.patient_id, study.accession) == ("4711", "")
    assert (study.modalities, study.study_date) == ("CT", "20180723")
    assert "lacks a usable StudyInstanceUID" in found.incomplete_reason


def test_values_beyond_measure_break_nothing() -> None:
    def odd(rows: list[dict[str, Any]]) -> object:
        first = dict(rows[0])
        name: object = "A"
        for _ in range(200):
            name = {"Alphabetic": name}
        first["00201208"] = {"vr": "IS", "Value": [1 << 63]}
        first["00201206"] = {"vr": "IS", "Value": [-7]}
        first["00100010"] = {"vr": "PN", "Value": [name]}
        first["00081030"] = {"vr": "LO", "Value": [name, "\U0001f9e0"]}
        return [first]

    with archive(Rows(odd)) as (_, adapter):
        (study,) = adapter.find({"StudyInstanceUID": STUDY.study_uid, "PatientName": ""}).studies
    assert (study.instance_count, study.series_count, study.description) == (None, None, "\\\U0001f9e0")


@pytest.mark.parametrize("value", ["9" * 5000, "-" + "9" * 5000, "1e999", "NaN", "Infinity", "[[[[{}]]]]"])
def test_a_number_of_any_length_is_read_as_text(value: str) -> None:
    text = f'[{{"0020000D": {{"Value": ["1.2"]}}, "00201208": {{"Value": [{value}]}}}}]'
    (row,) = parse_datasets(text.encode(), [0x0020000D, 0x00201208])
    assert row[0x0020000D] == "1.2"
    assert get_count(row, "NumberOfStudyRelatedInstances") is None


def test_a_person_name_as_deep_as_json_allows_is_no_name() -> None:
    depth = 300
    name = '{"Alphabetic":' * depth + '"A"' + "}" * depth
    text = f'[{{"00100010": {{"vr": "PN", "Value": [{name}]}}}}]'
    assert parse_datasets(text.encode(), [0x00100010]) == [{0x00100010: ""}]


# --- credentials and redirects ------------------------------------------------------------------------------


def test_a_token_is_read_again_when_it_is_rejected(tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    access = HttpSettings(token_file=token)
    guard = Guarded("first", "second", uses=3)
    with archive(guard, access=access) as (web, adapter):
        adapter.probe()
        token.write_text("second\n")
        sink = MemorySink()
        for request in (RetrieveRequest(STUDY.study_uid, series_uids=(uid,)) for uid in (*SERIES, *SERIES)):
            assert adapter.retrieve(request, sink, PatientWatch()).verdict is Verdict.SUCCESS
        assert set(sink.kept) == UIDS
        assert len(web.log) == 6  # one of them refused
        adapter.probe()
        with pytest.raises(OperatorActionRequired, match="credentials") as refused:
            adapter.probe()
    assert "second" not in str(refused.value)


@pytest.mark.parametrize(
    ("access", "header"),
    [
        ({"user": "me", "password_env": "SECRET"}, ("Authorization", "Basic bWU6c2VzYW1l")),
        ({"token_env": "SECRET"}, ("Authorization", "Bearer sesame")),
        ({"token_command": "printf 'a b\\n'"}, ("Authorization", "Bearer a b")),
        ({"headers_env": {"X-Api-Key": "SECRET"}}, ("X-Api-Key", "sesame")),
        ({"headers": {"X-Site": "7"}}, ("X-Site", "7")),
    ],
)
def test_credentials_go_with_every_request(
    access: dict[str, Any], header: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "sesame")
    with archive(access=HttpSettings(**access)) as (web, adapter):
        adapter.probe()
        adapter.retrieve(WHOLE, MemorySink(), PatientWatch())
    assert [one.headers.get(header[0]) for one in web.log] == [header[1]] * 2


def test_a_redirect_is_followed_on_the_same_server_alone() -> None:
    access = HttpSettings(headers={"Authorization": "Bearer secret"})
    with ScriptedWeb([STUDY]) as elsewhere:
        away = Answer(302, headers={"Location": f"{elsewhere.base_url}/studies?x=1"}, which=anything)
        with (
            archive(away, access=access) as (_, adapter),
            pytest.raises(OperatorActionRequired, match="another server"),
        ):
            adapter.probe()
        assert not elsewhere.log
    path = f"/dicom-web/studies/{STUDY.study_uid}/series/{SERIES[0]}"
    answered, kept, _ = fetch(Answer(307, headers={"Location": path}, which=at("STUDY")))
    assert (answered.verdict, len(kept)) == (Verdict.SUCCESS, 3)
    loop = Answer(302, headers={"Location": "/dicom-web/studies?y=2"}, which=anything)
    with archive(loop) as (_, adapter), pytest.raises(OperatorActionRequired, match="without an end"):
        adapter.probe()
    nowhere = Answer(302, headers={"Location": "http://host:port/"}, which=anything)
    with archive(nowhere) as (_, adapter), pytest.raises(ConnectionLost, match="invalid address"):
        adapter.probe()


def test_nothing_listens() -> None:
    adapter = DicomWebArchive("main", BaseUri("http", "127.0.0.1", free_port(), ""))
    with pytest.raises(Unreachable, match="refused the connection"):
        adapter.probe()
    with pytest.raises(Unreachable):
        adapter.retrieve(WHOLE, MemorySink(), PatientWatch())


def test_a_kept_connection_that_has_ended_costs_nothing() -> None:
    answers = 0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            nonlocal answers
            for _ in range(3):
                client = server.accept()[0]
                client.recv(10_000)
                client.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                answers += 1
                if answers == 2:  # the request that follows is read, and not answered
                    client.recv(10_000)
                client.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        adapter = DicomWebArchive("main", BaseUri("http", "127.0.0.1", server.getsockname()[1], ""))
        for _ in range(3):
            adapter.probe()
        adapter.close()
        thread.join(30)
    assert answers == 3


def test_no_identifier_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), archive(Answer(500, which=searches)) as (_, adapter):
        with pytest.raises(QueryFailed) as failed:
            adapter.find({"PatientID": "SECRET-4711"})
        adapter.retrieve(WHOLE, MemorySink(), PatientWatch())
    assert "4711" not in caplog.text + str(failed.value)


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "many", "\u0663", ""])
def test_a_length_that_is_no_number_is_not_known(length: str) -> None:
    stream = InstanceStream(MemorySink(), "peer", length)
    stream.write(memoryview(b"not DICOM" * 100))
    assert stream.size == 900
