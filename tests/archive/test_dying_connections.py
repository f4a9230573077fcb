"""Connections that end between any two bytes, and datasets that are announced and do not come."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable

import pytest

from dicom_quarry.archive.base import Verdict
from dicom_quarry.archive.dimse.associations import Timeouts
from dicom_quarry.errors import ArchiveError
from tests.archive.scripts import STUDY, NoSink, Watching, answering, archive, study
from tests.peers.process import wait_for
from tests.peers.relay import RelayedMessage
from tests.peers.scripted import ABORT, PENDING, RELEASE, SUCCESS, Conversation, Over, ScriptedArchive

ROWS = (study("1.2.3", PatientID="P1"), study("1.2.4", PatientID="P1"))
#: Longer than any test: only what need not wait ends in time.
LONG = Timeouts(connect=5, associate=5, query=600, cancel=5)


def close(peer: Conversation) -> None:
    raise Over


def reset(peer: Conversation) -> None:
    peer.reset()


ENDINGS = {
    "close": (b"", close),
    "reset": (b"", reset),
    "abort": (ABORT, close),
    "release": (RELEASE, close),
    "release-and-stay": (RELEASE, lambda _: None),
    "garbage": (b"\x99" * 20, close),
}


def ending_at(number: int, cut: int | None, kind: str) -> Callable[[Conversation, RelayedMessage], None]:
    """A script that ends the association in its response to one request, after ``cut`` bytes."""
    ending, then = ENDINGS[kind]
    count = 0
    answers = answering(*ROWS)

    def script(peer: Conversation, request: RelayedMessage) -> None:
        nonlocal count
        count += 1
        if count != number:
            answers(peer, request)
            return
        peer.send_pieces(lambda: answers(peer, request), ending, cut=cut)
        then(peer)

    return script


@pytest.mark.parametrize("number", [1, 2], ids=["new", "kept"])
@pytest.mark.parametrize("kind", ["close", "abort", "release", "release-and-stay", "garbage"])
def test_an_answer_counts_though_the_association_ends_right_behind_it(kind: str, number: int) -> None:
    with ScriptedArchive(ending_at(number, None, kind)) as peer, archive(peer.ae, timeouts=LONG) as pacs:
        for _ in range(4):
            assert len(pacs.find({"PatientID": "P1"}).studies) == 2
        assert (len(peer.requests), peer.associations) == (4, 2)
        pacs.release_thread()


@pytest.mark.parametrize("kind", ["close", "reset", "abort", "release", "garbage"])
def test_a_connection_may_die_between_any_two_bytes(kind: str) -> None:
    for cut in (*range(0, 240, 7), *range(370, 460, 7)):
        with ScriptedArchive(ending_at(2, cut, kind)) as peer, archive(peer.ae, timeouts=LONG) as pacs:
            assert len(pacs.find({"PatientID": "P1"}).studies) == 2
            try:
                assert len(pacs.find({"PatientID": "P1"}).studies) == 2
            except ArchiveError:
                pass
            assert len(pacs.find({"PatientID": "P1"}).studies) == 2
            pacs.release_thread()


@pytest.mark.parametrize("kind", list(ENDINGS))
def test_a_probe_survives_an_association_that_ends_with_its_answer(kind: str) -> None:
    ending, then = ENDINGS[kind]

    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.send_pieces(lambda: peer.answer(request, SUCCESS), ending)
        if kind != "reset":
            then(peer)

    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        pacs.probe()


@pytest.mark.parametrize("kind", ["abort", "release"])
def test_an_idle_association_that_has_ended_is_released_and_replaced(kind: str) -> None:
    """The archive ends it while another thread's is at work."""
    told, ended, go_on = threading.Event(), threading.Event(), threading.Event()
    answers = answering(*ROWS)

    def script(peer: Conversation, request: RelayedMessage) -> None:
        patient = request.identifier().get("PatientID")
        if patient == "SLOW":
            told.set()
            go_on.wait(10)
        answers(peer, request)
        if patient == "IDLE":
            told.wait(10)
            peer.send_pieces(lambda: None, ENDINGS[kind][0])
            ended.set()
            raise Over

    with ScriptedArchive(script) as peer, archive(peer.ae, timeouts=LONG) as pacs:
        found: list[int] = []
        slow = threading.Thread(target=lambda: found.append(len(pacs.find({"PatientID": "SLOW"}).studies)))
        slow.start()
        assert told.wait(10)
        pacs.find({"PatientID": "IDLE"})
        assert ended.wait(10)
        assert len(pacs.find({"PatientID": "P1"}).studies) == 2
        go_on.set()
        slow.join()
        assert found == [2]
        assert (len(peer.requests), peer.associations) == (3, 3)


def announced(peer: Conversation, request: RelayedMessage, status: int, data: bytes = b"") -> None:
    """Respond with a command set that announces a dataset, and send ``data`` alone."""
    elements = {0x0002: request.command[0x0002], 0x0100: struct.pack("<H", request.field | 0x8000)}
    elements |= {0x0120: request.command[0x0110], 0x0800: b"\x01\0", 0x0900: struct.pack("<H", status)}
    peer.send(request.context_id, elements, data)


def test_a_final_response_with_a_dataset_that_does_not_come_is_final() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.answer(request, PENDING, ROWS[0])
        announced(peer, request, SUCCESS)

    with ScriptedArchive(script) as peer, archive(peer.ae, timeouts=LONG) as pacs:
        for _ in range(3):
            assert len(pacs.find({"PatientID": "P1"}).studies) == 1
        assert peer.associations == 1


@pytest.mark.parametrize("status", [SUCCESS, 0xB000, 0xA702])
@pytest.mark.parametrize("data", [b"", b"\x08\0\x58\0\x04\0\0\0001.2\0"])
def test_a_retrieval_ends_without_its_list_of_failed_instances(
    status: int, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_quarry.wire.requestor._FAILED_LIST_TIMEOUT", 0.1)

    def script(peer: Conversation, request: RelayedMessage) -> None:
        announced(peer, request, PENDING)
        announced(peer, request, PENDING)
        announced(peer, request, status, data)

    with ScriptedArchive(script) as peer, archive(peer.ae, timeouts=LONG) as pacs:
        for _ in range(2):
            watch = Watching()
            assert pacs.retrieve(STUDY, NoSink(), watch).status == status
            assert len(watch.signs) >= 2
        assert peer.associations == 1


@pytest.mark.parametrize("kind", ["close", "abort", "release"])
def test_a_final_response_counts_though_its_list_is_cut_off(kind: str) -> None:
    ending, then = ENDINGS[kind]

    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.send_pieces(lambda: announced(peer, request, 0xB000), ending)
        then(peer)

    with ScriptedArchive(script) as peer, archive(peer.ae, timeouts=LONG) as pacs:
        result = pacs.retrieve(STUDY, NoSink(), Watching())
        assert (result.verdict, result.status) == (Verdict.WARNING, 0xB000)
        wait_for(lambda: peer.ended == 1, "the end of the association")


def test_a_match_whose_dataset_does_not_come_is_one_that_cannot_be_read() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        announced(peer, request, PENDING)
        peer.answer(request, PENDING, ROWS[1])
        peer.answer(request, SUCCESS)

    with ScriptedArchive(script) as peer, archive(peer.ae, timeouts=LONG) as pacs:
        found = pacs.find({"PatientID": "P1"})
        assert [one.study_uid for one in found.studies] == ["1.2.4"]
        assert not found.complete
