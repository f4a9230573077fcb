"""Associations are kept, replaced and ended (field guide, items 1, 2 and 4)."""

from __future__ import annotations

import threading

import pytest

from dicom_quarry.archive.base import RetrieveRequest, Verdict
from dicom_quarry.archive.dimse.associations import Timeouts
from dicom_quarry.errors import ConnectionLost
from tests.archive.scripts import (
    STUDY,
    NoSink,
    Watching,
    answering,
    archive,
    silent,
)
from tests.peers.process import wait_for
from tests.peers.relay import RelayedMessage
from tests.peers.scripted import SUCCESS, Conversation, ScriptedArchive


def test_an_association_is_kept_and_one_that_was_closed_when_idle_is_replaced() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        pacs.find({"PatientID": "P1"})
        pacs.find({"PatientID": "P1"})
        assert peer.associations == 1
        peer.hang_up()
        pacs.find({"PatientID": "P1"})
        assert peer.associations == 2


def test_a_move_on_an_association_that_was_closed_when_idle_goes_out_on_a_new_one() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        assert pacs.retrieve(STUDY, NoSink(), Watching()).verdict is Verdict.SUCCESS
        peer.hang_up()
        assert pacs.retrieve(STUDY, NoSink(), Watching()).verdict is Verdict.SUCCESS
        assert peer.associations == 2


def test_a_request_that_is_aborted_is_sent_again_once_and_only_on_a_kept_association() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        if request.identifier()["PatientID"] == "BAD":
            peer.abort()
        peer.answer(request, SUCCESS)

    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        with pytest.raises(ConnectionLost):
            pacs.find({"PatientID": "BAD"})
        assert len(peer.requests) == 1
        pacs.find({"PatientID": "GOOD"})
        with pytest.raises(ConnectionLost):
            pacs.find({"PatientID": "BAD"})
        assert len(peer.requests) == 4


def test_message_ids_of_an_association_differ() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        for _ in range(3):
            pacs.find({"PatientID": "P1"})
        assert len({request.command[0x0110] for request in peer.requests}) == 3


def test_each_thread_has_its_own_association() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:

        def work() -> None:
            pacs.find({"PatientID": "P1"})
            pacs.release_thread()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert peer.associations == 3


def test_a_thread_uses_an_association_that_no_other_thread_uses() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        pacs.find({"PatientID": "P1"})
        other = threading.Thread(target=lambda: pacs.find({"PatientID": "P1"}))
        other.start()
        other.join()
        pacs.find({"PatientID": "P1"})
        assert peer.associations == 1
        pacs.release_idle()
        wait_for(lambda: peer.released == 1, "the release")


def test_hang_up_releases_in_order() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        pacs.find({"PatientID": "P1"})
        pacs.release_thread()
        wait_for(lambda: peer.released == 1, "the release")


def test_close_ends_what_another_thread_is_waiting_for_and_what_comes_after() -> None:
    patient = Timeouts(query=60)
    ended: list[BaseException] = []
    with ScriptedArchive(silent) as peer, archive(peer.ae, timeouts=patient) as pacs:

        def work() -> None:
            try:
                pacs.find({"PatientID": "P1"})
            except ConnectionLost as lost:
                ended.append(lost)

        thread = threading.Thread(target=work)
        thread.start()
        wait_for(lambda: bool(peer.requests), "the query")
        pacs.close()
        thread.join(10)
        assert len(ended) == 1
        with pytest.raises(ConnectionLost):
            pacs.find({"PatientID": "P1"})
        watch = Watching()
        assert pacs.retrieve(RetrieveRequest("1.2.3"), NoSink(), watch).verdict is Verdict.LOST
