"""C-GET, against an archive that sends and answers whatever a test wants."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicom_quarry.archive.base import MonitorAction, RetrieveRequest, RetrieveResult, Verdict
from dicom_quarry.archive.dimse.storage_contexts import COMMON_SOP_CLASSES
from dicom_quarry.errors import Rejected
from dicom_quarry.model import InstanceInfo, Sink, Writer
from tests.archive.scripts import STUDY_FIND, Watching, archive
from tests.archive.sites import MemorySink
from tests.peers.process import wait_for
from tests.peers.relay import C_CANCEL, C_GET, RelayedMessage
from tests.peers.scripted import PENDING, SUCCESS, Conversation, Script, ScriptedArchive, store_rq

GET = "1.2.840.10008.5.1.4.1.2.2.3"
CT, MR, SR = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "4", "88.11"))
EXPLICIT, DEFLATED, JPEG_2000 = (f"1.2.840.10008.1.2.{end}" for end in ("1", "1.99", "4.90"))
ASK = RetrieveRequest("1.2", sop_classes_by_series={"1.2.1": frozenset({CT})})


def instance(uid: str) -> bytes:
    """A dataset that has its SOP Instance UID, in Explicit VR Little Endian."""
    return (
        struct.pack("<HH2sH", 0x0008, 0x0018, b"UI", len(uid) + len(uid) % 2)
        + uid.encode()
        + b"\0" * (len(uid) % 2)
    )


def get(
    script: Script, sink: Sink, watch: Watching | None = None, ask: RetrieveRequest = ASK
) -> RetrieveResult:
    with ScriptedArchive(script) as peer, archive(peer.ae, retrieve="get") as pacs:
        return pacs.retrieve(ask, sink, watch or Watching())


def sending(*uids: str, final: int = SUCCESS, **counters: int) -> Script:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        for number, uid in enumerate(uids, start=1):
            assert stored(peer, uid, number) == SUCCESS
            peer.answer(request, PENDING, completed=number, remaining=len(uids) - number)
        peer.answer(request, final, b"", comment="", **counters)

    return script


def stored(peer: Conversation, uid: str, message_id: int = 1) -> int | None:
    """Send an instance, and give the status that it gets."""
    peer.store(peer.context(CT), CT, uid, instance(uid), message_id)
    response = peer.read()
    assert (response.field, response.command[0x0120]) == (0x8001, message_id.to_bytes(2, "little"))
    assert response.text(0x1000) == uid
    return response.status


# --- what is proposed and requested


def test_the_classes_listed_are_proposed_and_we_are_their_scp() -> None:
    seen: list[Conversation] = []
    requests: list[RelayedMessage] = []

    def script(peer: Conversation, request: RelayedMessage) -> None:
        seen.append(peer)
        requests.append(request)
        peer.answer(request, SUCCESS, completed=0)

    get(
        script,
        MemorySink(),
        ask=RetrieveRequest("1.2", "P1", sop_classes_by_series={"1.2.1": frozenset({CT, SR})}),
    )
    (peer,), (request,) = seen, requests
    assert set(peer.proposed) == {GET, CT, SR}
    assert EXPLICIT in peer.proposed[CT] and JPEG_2000 in peer.proposed[CT]
    assert JPEG_2000 not in peer.proposed[SR]
    granted = {role[2:-2].decode(): tuple(role[-2:]) for role in peer.roles}
    assert granted == {CT: (0, 1), SR: (0, 1)}
    assert (request.field, request.context_id) == (C_GET, peer.context(GET))
    assert request.identifier() == {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2"}


@pytest.mark.parametrize("listed", [{}, {"1.2.1": frozenset({""}), "1.2.2": frozenset({"", CT})}])
def test_common_classes_are_proposed_where_they_are_not_listed(listed: dict[str, frozenset[str]]) -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        assert set(peer.proposed) == {GET, *COMMON_SOP_CLASSES}
        assert request.identifier()["QueryRetrieveLevel"] == "STUDY"
        peer.answer(request, SUCCESS)

    get(script, MemorySink(), ask=RetrieveRequest("1.2", sop_classes_by_series=listed))


def test_what_did_not_come_is_requested_with_a_context_for_each_syntax() -> None:
    """The modality stands in for the classes; and only now Deflated is proposed."""
    first = RetrieveRequest(
        "1.2",
        sop_classes_by_series={"1.2.1": frozenset({""}), "1.2.2": frozenset({CT})},
        modalities={"1.2.1": "MR", "1.2.2": "CT"},
    )
    seen: list[Conversation] = []

    def script(peer: Conversation, request: RelayedMessage) -> None:
        seen.append(peer)
        peer.answer(request, SUCCESS)

    with ScriptedArchive(script) as peer, archive(peer.ae, retrieve="get") as pacs:
        for ask in (first, replace(first, is_repeat=True), first):
            pacs.retrieve(ask, MemorySink(), Watching())
        assert peer.associations == 3
    before, repeated, after = seen
    assert set(before.proposed) == set(after.proposed) == {GET, *COMMON_SOP_CLASSES}
    assert set(repeated.proposed) > {GET, CT, MR}
    assert len(repeated.proposed) < 10
    assert DEFLATED in repeated.proposed[MR] and DEFLATED in repeated.proposed[CT]
    assert len({repeated.context(MR, syntax) for syntax in (EXPLICIT, JPEG_2000, DEFLATED)}) == 3
    assert not any(DEFLATED in syntaxes for syntaxes in (*before.proposed.values(), *after.proposed.values()))


def test_an_association_is_kept_for_as_long_as_it_is_enough() -> None:
    def asking(*classes: str) -> RetrieveRequest:
        return RetrieveRequest("1.2", sop_classes_by_series={"1.2.1": frozenset(classes)})

    with ScriptedArchive(sending()) as peer, archive(peer.ae, retrieve="get") as pacs:
        counts = []
        for ask in (asking(CT, SR), asking(CT), asking(SR), asking("1.2.752.1"), asking(CT)):
            assert pacs.retrieve(ask, MemorySink(), Watching()).verdict is Verdict.SUCCESS
            counts.append(peer.associations)
        assert counts == [1, 1, 1, 2, 2]
        assert peer.released == 1
        # Where classes are not known syntaxes share contexts, which is not enough for what is known.
        for ask, count in ((RetrieveRequest("1.2"), 3), (RetrieveRequest("1.2"), 3), (asking(CT), 4)):
            assert pacs.retrieve(ask, MemorySink(), Watching()).verdict is Verdict.SUCCESS
            assert peer.associations == count


def test_more_classes_than_fit_go_by_series_over_several_associations() -> None:
    classes = sorted(COMMON_SOP_CLASSES)[:70]
    ask = RetrieveRequest(
        "1.2", sop_classes_by_series={f"1.2.{n}": frozenset({uid}) for n, uid in enumerate(classes)}
    )
    requested: dict[str, str] = {}

    def script(peer: Conversation, request: RelayedMessage) -> None:
        series = request.identifier()["SeriesInstanceUID"]
        uid = f"{series}.1"
        sop_class = classes[int(series.rpartition(".")[2])]
        requested[series] = sop_class
        assert len(peer.accepted) <= 128
        # Every pair of class and syntax is a context, not the first syntax of each class alone.
        syntax = JPEG_2000 if JPEG_2000 in peer.proposed[sop_class] else EXPLICIT
        peer.store(peer.context(sop_class, syntax), sop_class, uid, instance(uid))
        assert peer.read().status == SUCCESS
        peer.answer(request, SUCCESS, completed=1, failed=0)

    sink = MemorySink()
    with ScriptedArchive(script) as peer, archive(peer.ae, retrieve="get") as pacs:
        answered = pacs.retrieve(ask, sink, Watching())
        assert 1 < peer.associations < 20
    assert (answered.verdict, answered.completed, answered.failed) == (Verdict.SUCCESS, 70, 0)
    assert len(requested) == len(sink.kept) == 70


# --- sub-operations


def test_instances_come_between_the_responses_and_are_signs_of_life() -> None:
    sink, watch = MemorySink(), Watching()
    answered = get(sending("1.2.1.1", "1.2.1.2", completed=2, failed=0, warning=0), sink, watch)
    assert answered == RetrieveResult(Verdict.SUCCESS, 0, 2, 0, 0, (), "The archive reports success.")
    assert sink.kept == {uid: (EXPLICIT, instance(uid)) for uid in ("1.2.1.1", "1.2.1.2")}
    assert watch.signs == [(1, 1), (2, 0)]


def test_an_arrival_names_its_sender_as_one_at_the_receiver_does() -> None:
    arrivals: list[InstanceInfo] = []

    class Noting(MemorySink):
        def begin(self, arrival: InstanceInfo) -> Writer:
            arrivals.append(arrival)
            return super().begin(arrival)

    get(sending("1.2.1.1"), Noting())
    assert arrivals == [InstanceInfo(CT, "1.2.1.1", EXPLICIT, "SCRIPTED", "QUARRY", "127.0.0.1")]


def test_an_instance_comes_in_the_syntax_of_its_context() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.store(peer.context(CT, JPEG_2000), CT, "1.2.1.1", instance("1.2.1.1"))
        assert peer.read().status == SUCCESS
        peer.answer(request, SUCCESS)

    sink = MemorySink()
    get(script, sink)
    assert sink.kept == {"1.2.1.1": (JPEG_2000, instance("1.2.1.1"))}


def test_a_refused_instance_gets_its_status_and_the_rest_comes() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        assert [stored(peer, f"1.2.1.{n}", n) for n in (1, 2, 3)] == [SUCCESS, 0xA700, SUCCESS]
        failed = Dataset()
        failed.FailedSOPInstanceUIDList = ["1.2.1.2"]
        peer.answer(request, 0xB000, failed, completed=2, failed=1)

    sink = MemorySink()
    sink.refuse = {"1.2.1.2"}
    answered = get(script, sink)
    assert (answered.verdict, answered.failed, answered.failed_uids) == (Verdict.WARNING, 1, ("1.2.1.2",))
    assert set(sink.kept) == {"1.2.1.1", "1.2.1.3"}


def test_an_instance_is_acknowledged_after_its_commit() -> None:
    committing, go_on = threading.Event(), threading.Event()
    early: list[bool] = []

    class Slow(MemorySink):
        def begin(self, arrival: InstanceInfo) -> Writer:
            writer = super().begin(arrival)
            commit = writer.commit

            def slowly() -> Any:
                committing.set()
                assert go_on.wait(30)
                return commit()

            writer.commit = slowly  # type: ignore[method-assign]
            return writer

    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.store(peer.context(CT), CT, "1.2.1.1", instance("1.2.1.1"))
        assert committing.wait(30)
        early.append(peer.receives_anything(0.2))
        go_on.set()
        assert peer.read().status == SUCCESS
        peer.answer(request, SUCCESS)

    get(script, Slow())
    assert early == [False]


def test_an_instance_that_ends_with_the_association_is_forgotten_and_the_others_are_kept() -> None:
    aborted: list[str] = []

    class Noting(MemorySink):
        def begin(self, arrival: InstanceInfo) -> Writer:
            writer = super().begin(arrival)
            writer.abort = lambda: aborted.append(arrival.sop_uid)  # type: ignore[method-assign]
            return writer

    def script(peer: Conversation, request: RelayedMessage) -> None:
        assert stored(peer, "1.2.1.1") == SUCCESS
        peer.answer(request, PENDING, completed=1, remaining=1)
        peer.send_part(peer.context(CT), store_rq(CT, "1.2.1.2", 2), instance("1.2.1.2"))
        wait_for(lambda: sink.begun == 2, "the second instance to begin")
        peer.abort()

    sink = Noting()
    answered = get(script, sink)
    assert (answered.verdict, answered.completed) == (Verdict.LOST, 1)
    assert (set(sink.kept), aborted) == ({"1.2.1.1"}, ["1.2.1.2"])


def test_an_instance_that_takes_its_time_is_a_sign_of_life() -> None:
    watch = Watching()

    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.answer(request, PENDING, completed=0, remaining=1)
        peer.send_part(peer.context(CT), store_rq(CT, "1.2.1.1", 1), instance("1.2.1.1"))
        wait_for(lambda: len(watch.signs) > 1, "a sign of life besides the pending response")
        peer.abort()

    get(script, MemorySink(), watch)
    assert watch.signs == [(0, 1), (0, 1)]


# --- what archives should not do


def on_gets_own_context(peer: Conversation, request: RelayedMessage) -> None:
    peer.store(peer.context(GET), CT, "1.2.1.1", instance("1.2.1.1"))
    peer.read()


def in_the_middle_of_an_instance(peer: Conversation, request: RelayedMessage) -> None:
    peer.send_part(peer.context(CT), store_rq(CT, "1.2.1.1", 1), instance("1.2.1.1"))
    peer.answer(request, PENDING)
    peer.read()


def without_a_command(peer: Conversation, request: RelayedMessage) -> None:
    peer.send_data(peer.context(CT), instance("1.2.1.1"))
    peer.read()


@pytest.mark.parametrize("script", [on_gets_own_context, in_the_middle_of_an_instance, without_a_command])
def test_a_broken_protocol_costs_the_association(script: Script) -> None:
    sink = MemorySink()
    answered = get(script, sink)
    assert answered.verdict is Verdict.LOST
    assert "broke the protocol" in answered.comment
    assert not sink.kept


def test_a_store_without_a_dataset_is_answered_with_a_failure() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.send(peer.context(CT), store_rq(CT, "1.2.1.1", 1) | {0x0800: b"\x01\x01"})
        assert peer.read().status == 0xC000
        peer.answer(request, 0xA702, failed=1, completed=0)

    assert get(script, MemorySink()).verdict is Verdict.RETRY


def test_a_store_without_a_get_is_not_taken() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.send(request.context_id, store_rq(CT, "1.2.1.1", 1), instance("1.2.1.1"))
        peer.read()

    with ScriptedArchive(script) as peer, archive(peer.ae, retrieve="get") as pacs:
        with pytest.raises(Exception, match="with another message"):
            pacs.find({"PatientID": "P1"})
        assert peer.requests[0].text(0x0002) == STUDY_FIND


def test_an_archive_that_never_stops_talking_is_left() -> None:
    answered = get(
        lambda peer, request: peer.flood(request, PENDING), MemorySink(), Watching(MonitorAction.ABORT)
    )
    assert answered.verdict is Verdict.LOST


def test_an_archive_without_c_get_is_reported() -> None:
    with ScriptedArchive(sending(), refused={GET}) as peer, archive(peer.ae, retrieve="get") as pacs:
        with pytest.raises(Rejected, match="does not offer C-GET in the Study Root model"):
            pacs.retrieve(ASK, MemorySink(), Watching())
        assert not peer.requests


def test_an_archive_that_takes_none_of_the_classes_gets_no_request() -> None:
    with ScriptedArchive(sending(), refused={CT}) as peer, archive(peer.ae, retrieve="get") as pacs:
        answered = pacs.retrieve(ASK, MemorySink(), Watching())
        assert (answered.verdict, answered.status) == (Verdict.UNSUPPORTED, None)
        assert "none of the SOP classes" in answered.comment
        assert not peer.requests


@pytest.mark.parametrize(
    ("status", "counters", "verdict"),
    [
        (0xA701, {}, Verdict.RETRY),
        (0xA702, {}, Verdict.RETRY),
        (0xA900, {}, Verdict.UNSUPPORTED),
        (0xB000, {"completed": 0, "failed": 4}, Verdict.RETRY),
        (0xB000, {"completed": 3, "failed": 1}, Verdict.WARNING),
        (0x0000, {"completed": 0, "failed": 4}, Verdict.RETRY),
        (0xC000, {}, Verdict.RETRY),
        (0xFE00, {}, Verdict.CANCELLED),
    ],
)
def test_a_final_status_speaks_of_no_destination(
    status: int, counters: Mapping[str, int], verdict: Verdict
) -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.answer(request, status, b"", comment="", **counters)

    answered = get(script, MemorySink())
    assert (answered.verdict, answered.status) == (verdict, status)
    assert not {"Register", "port", "destination"} & set(answered.comment.split())


# --- ending it


@pytest.mark.parametrize("final", [0xFE00, 0xB000])
def test_a_cancelled_get_takes_what_is_under_way_and_ends_with_the_final_response(final: int) -> None:
    requests: list[RelayedMessage] = []

    def script(peer: Conversation, request: RelayedMessage) -> None:
        requests.append(request)
        if len(requests) > 1:
            return peer.answer(request, SUCCESS)
        cancel = peer.read()
        assert (cancel.field, cancel.command[0x0120]) == (C_CANCEL, request.command[0x0110])
        assert stored(peer, "1.2.1.1") == SUCCESS
        return peer.answer(request, final, completed=1, failed=0)

    sink = MemorySink()
    with ScriptedArchive(script) as peer, archive(peer.ae, retrieve="get") as pacs:
        answered = pacs.retrieve(ASK, sink, Watching(MonitorAction.CANCEL))
        assert (answered.verdict, answered.completed) == (Verdict.CANCELLED, 1)
        assert set(sink.kept) == {"1.2.1.1"}
        wait_for(lambda: peer.released == 1, "the association to be released")


def test_what_follows_a_lost_association_is_not_requested() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.abort()

    classes = sorted(COMMON_SOP_CLASSES)[:70]
    ask = RetrieveRequest(
        "1.2", sop_classes_by_series={f"1.2.{n}": frozenset({uid}) for n, uid in enumerate(classes)}
    )
    with ScriptedArchive(script) as peer, archive(peer.ae, retrieve="get") as pacs:
        assert pacs.retrieve(ask, MemorySink(), Watching()).verdict is Verdict.LOST
        assert len(peer.requests) == 1


def test_a_loss_right_after_an_instance_is_no_stale_association() -> None:
    """It is the policy that asks again, not the association."""
    ending: Callable[[Conversation], None] = Conversation.abort

    requests: list[RelayedMessage] = []

    def script(peer: Conversation, request: RelayedMessage) -> None:
        requests.append(request)
        if len(requests) == 2:
            assert stored(peer, "1.2.1.1") == SUCCESS
            ending(peer)
        peer.answer(request, SUCCESS)

    with ScriptedArchive(script) as peer, archive(peer.ae, retrieve="get") as pacs:
        assert pacs.retrieve(ASK, MemorySink(), Watching()).verdict is Verdict.SUCCESS
        assert pacs.retrieve(ASK, MemorySink(), Watching()).verdict is Verdict.LOST
        assert len(peer.requests) == 2


def test_closing_the_archive_ends_a_get_of_another_thread() -> None:
    begun = threading.Event()

    def script(peer: Conversation, request: RelayedMessage) -> None:
        begun.set()
        peer.read()

    answers: list[RetrieveResult] = []
    with ScriptedArchive(script) as peer, archive(peer.ae, retrieve="get") as pacs:
        sink, watch = MemorySink(), Watching()
        getting = threading.Thread(target=lambda: answers.append(pacs.retrieve(ASK, sink, watch)))
        getting.start()
        assert begun.wait(30)
        pacs.close()
        getting.join(30)
    assert [one.verdict for one in answers] == [Verdict.LOST]
