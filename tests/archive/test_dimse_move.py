"""C-MOVE, against an archive that answers whatever a test wants (field guide, items 3 to 8)."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dicom_quarry.archive.base import MonitorAction, RetrieveRequest, RetrieveResult, Verdict
from dicom_quarry.errors import LocalProtocolError, Unreachable
from dicom_quarry.model import AE
from tests.archive.scripts import (
    STUDY,
    NoSink,
    Watching,
    answering,
    archive,
    silent,
)
from tests.peers.process import free_port, wait_for
from tests.peers.relay import C_CANCEL, C_FIND, C_MOVE, RelayedMessage
from tests.peers.scripted import PENDING, SUCCESS, Conversation, Script, ScriptedArchive


def move(
    script: Script, watch: Watching, ask: RetrieveRequest = STUDY, model: str = "study"
) -> tuple[RetrieveResult, RelayedMessage]:
    with ScriptedArchive(script) as peer, archive(peer.ae, model) as pacs:
        answered = pacs.retrieve(ask, NoSink(), watch)
        return answered, peer.requests[0]


def ending(status: int, dataset: Dataset | bytes = b"", comment: str = "", **counters: int) -> Script:
    return lambda peer, request: peer.answer(request, status, dataset, comment=comment, **counters)


@pytest.mark.parametrize(
    ("ask", "keys"),
    [
        (RetrieveRequest("1.2", "P1"), {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2"}),
        (
            RetrieveRequest("1.2", "P1", ("1.2.1", "1.2.2")),
            {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1\\1.2.2"},
        ),
        (
            RetrieveRequest("1.2", "P1", ("1.2.1",), ("1.2.1.1", "1.2.1.2")),
            {
                "QueryRetrieveLevel": "IMAGE",
                "StudyInstanceUID": "1.2",
                "SeriesInstanceUID": "1.2.1",
                "SOPInstanceUID": "1.2.1.1\\1.2.1.2",
            },
        ),
    ],
)
@pytest.mark.parametrize("model", ["study", "patient"])
def test_a_move_asks_by_uids_and_in_patient_root_by_patient(
    ask: RetrieveRequest, keys: dict[str, str], model: str
) -> None:
    _, request = move(ending(SUCCESS), Watching(), ask, model)
    patient = {"PatientID": "P1"} if model == "patient" else {}
    assert request.field == C_MOVE
    assert request.text(0x0600) == "DEST"
    assert request.identifier() == {**keys, **patient}


def test_absent_counters_are_not_zero() -> None:
    answered, _ = move(ending(SUCCESS, completed=3, failed=0, warning=1), Watching())
    assert answered == RetrieveResult(Verdict.SUCCESS, 0, 3, 0, 1, (), "The archive reports success.")
    answered, _ = move(ending(SUCCESS), Watching())
    assert (answered.completed, answered.failed, answered.warning) == (None, None, None)


def test_a_partial_move_names_what_failed() -> None:
    failed = Dataset()
    failed.FailedSOPInstanceUIDList = ["1.2.1.1", "1.2.1.2"]
    answered, _ = move(ending(0xB000, failed, "disk", completed=3, failed=2), Watching())
    assert (answered.verdict, answered.status) == (Verdict.WARNING, 0xB000)
    assert answered.failed_uids == ("1.2.1.1", "1.2.1.2")
    assert "disk" in answered.comment


@pytest.mark.parametrize("dataset", [b"", b"\x08\x00\x58\x00\xff\x00\x00\x00spoilt"])
def test_a_partial_move_without_a_readable_list_names_nothing(dataset: bytes) -> None:
    answered, _ = move(ending(0xB000, dataset, completed=3, failed=2), Watching())
    assert (answered.verdict, answered.failed_uids) == (Verdict.WARNING, ())


@pytest.mark.parametrize(
    ("status", "counters", "verdict"),
    [
        (0xA801, {}, Verdict.CONFIGURATION),
        (0xA702, {}, Verdict.RETRY),
        (0xB000, {"completed": 0, "failed": 4}, Verdict.RETRY),
        (0x0000, {"completed": 0, "failed": 4}, Verdict.RETRY),
        (0xA900, {}, Verdict.UNSUPPORTED),
        (0xFE00, {}, Verdict.CANCELLED),
    ],
)
def test_a_move_is_judged_by_the_table(status: int, counters: dict[str, int], verdict: Verdict) -> None:
    answered, _ = move(ending(status, b"", "", **counters), Watching())
    assert (answered.verdict, answered.status) == (verdict, status)


def test_pending_responses_are_signs_of_life() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.answer(request, PENDING, remaining=2, completed=1)
        peer.answer(request, PENDING)
        peer.answer(request, SUCCESS)

    watch = Watching()
    move(script, watch)
    assert watch.signs == [(1, 2), (None, None)]


def test_the_monitor_is_called_while_the_archive_is_silent_and_may_abort() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.answer(request, PENDING, completed=1, remaining=9)
        peer.read()

    watch = Watching(MonitorAction.WAIT, MonitorAction.ABORT)
    answered, _ = move(script, watch)
    assert (answered.verdict, answered.status, answered.completed) == (Verdict.LOST, None, 1)
    assert watch.asked == 2


def test_the_monitor_is_called_although_the_archive_never_stops_talking() -> None:
    answered, _ = move(lambda peer, request: peer.flood(request, PENDING), Watching(MonitorAction.ABORT))
    assert answered.verdict is Verdict.LOST


@pytest.mark.parametrize("final", [0xFE00, 0xB000])
def test_a_cancelled_move_ends_with_the_archives_final_response(final: int) -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        cancel = peer.read()
        assert cancel.field == C_CANCEL
        assert cancel.command[0x0120] == request.command[0x0110]
        peer.answer(request, final, completed=1, failed=0)

    answered, _ = move(script, Watching(MonitorAction.CANCEL))
    assert (answered.verdict, answered.status, answered.completed) == (Verdict.CANCELLED, final, 1)


def test_an_archive_that_ignores_c_cancel_is_aborted_and_got_one_request() -> None:
    with ScriptedArchive(silent) as peer, archive(peer.ae) as pacs:
        answered = pacs.retrieve(RetrieveRequest("1.2"), NoSink(), Watching(*[MonitorAction.CANCEL] * 20))
        assert answered.verdict is Verdict.LOST
        assert [r.field for r in peer.requests] == [C_MOVE]  # the script itself read the C-CANCEL


def test_an_abort_in_a_move_is_an_answer_with_the_last_counters() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.answer(request, PENDING, completed=2, failed=1, warning=0, remaining=4)
        wait_for(lambda: bool(watch.signs), "the pending response to be read")
        peer.abort()

    watch = Watching()
    answered, _ = move(script, watch)
    assert (answered.verdict, answered.status) == (Verdict.LOST, None)
    assert (answered.completed, answered.failed) == (2, 1)


def test_a_move_that_cannot_begin_is_raised() -> None:
    with archive(AE("NOBODY", "127.0.0.1", free_port())) as pacs, pytest.raises(Unreachable):
        pacs.retrieve(RetrieveRequest("1.2"), NoSink(), Watching())


def test_queries_and_moves_have_associations_of_their_own() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        pacs.find({"PatientID": "P1"})
        pacs.retrieve(RetrieveRequest("1.2"), NoSink(), Watching())
        pacs.find({"PatientID": "P1"})
        assert [r.field for r in peer.requests] == [C_FIND, C_MOVE, C_FIND]
        assert peer.associations == 2


@pytest.mark.parametrize(
    "ask",
    [
        RetrieveRequest(""),
        RetrieveRequest("*"),
        RetrieveRequest("1.2", "P1", ("",)),
        RetrieveRequest("1.2", "", ("1.2.1",), ("1.2.*",)),
    ],
)
def test_a_move_that_could_mean_more_than_was_requested_is_never_sent(ask: RetrieveRequest) -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        with pytest.raises(LocalProtocolError):
            pacs.retrieve(ask, NoSink(), Watching())
        assert not peer.requests
