"""Archives that accept few associations at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from dicom_quarry.archive.base import Verdict
from dicom_quarry.archive.dimse.association_limit import AssociationLimit
from dicom_quarry.archive.dimse.associations import Timeouts
from dicom_quarry.errors import ArchiveError, ConnectionLost, Rejected, Unreachable
from tests.archive.scripts import STUDY, NoSink, Watching, answering, archive
from tests.peers.process import wait_for
from tests.peers.relay import RelayedMessage
from tests.peers.scripted import Conversation, ScriptedArchive

#: An archive that leaves the association request without an answer is known by this time.
TIMES = Timeouts(connect=5, associate=0.3, query=60, cancel=5)
MANNERS = ["2/3/2", "2/3/1", "2/1/1", "1/3/2", "1/2/1", "1/1/1", "abort", "close", "silence"]


@pytest.mark.parametrize("retrieve", ["move", "get"])
@pytest.mark.parametrize("manner", MANNERS)
def test_one_association_is_enough_for_queries_and_retrievals(manner: str, retrieve: str) -> None:
    messages: list[str] = []
    limit = AssociationLimit(report=messages.append)
    options: dict[str, Any] = {"timeouts": TIMES, "retrieve": retrieve, "association_limit": limit}
    with (
        ScriptedArchive(answering(), limit=1, turn_down=manner) as peer,
        archive(peer.ae, **options) as pacs,
    ):
        pacs.probe()
        for _ in range(5):
            pacs.find({"PatientID": "P1"})
            assert pacs.retrieve(STUDY, NoSink(), Watching()).verdict is Verdict.SUCCESS
        assert peer.most_open == 1
        # Learnt once, and kept. The archive may take a moment to notice that one has ended.
        assert peer.turned_down <= 8
    assert [one for one in messages if "no more than one association at once" in one] == messages != []


@pytest.mark.parametrize("limit", [1, 2])
def test_many_threads_share_few_associations(limit: int) -> None:
    errors: list[BaseException] = []
    with ScriptedArchive(answering(), limit=limit) as peer, archive(peer.ae, timeouts=TIMES) as pacs:

        def work() -> None:
            try:
                for _ in range(6):
                    pacs.find({"PatientID": "P1"})
                    pacs.retrieve(STUDY, NoSink(), Watching())
                pacs.release_thread()
            except ArchiveError as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not errors
        assert len(peer.requests) == 48
        assert peer.most_open <= limit


def test_an_association_at_work_is_waited_for() -> None:
    reached, go_on = threading.Event(), threading.Event()
    answers = answering()

    def script(peer: Conversation, request: RelayedMessage) -> None:
        if request.identifier().get("PatientID") == "SLOW":
            reached.set()
            go_on.wait(10)
        answers(peer, request)

    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        go_on.set() if len(waits) > 2 else None
        threading.Event().wait(seconds / 10)

    with (
        ScriptedArchive(script, limit=1) as peer,
        archive(peer.ae, timeouts=TIMES, association_limit=AssociationLimit(wait)) as pacs,
    ):
        slow = threading.Thread(target=lambda: pacs.find({"PatientID": "SLOW"}))
        slow.start()
        assert reached.wait(10)
        pacs.find({"PatientID": "P1"})
        slow.join()
        wait_for(lambda: peer.released >= 1, "the release of the first")
        assert peer.most_open == 1


@dataclass
class Fake:
    is_alive: bool = True


def raising(*errors: ArchiveError | None) -> Callable[[], Fake]:
    left = list(errors)

    def associate() -> Fake:
        error = left.pop(0)
        if error is not None:
            raise error
        return Fake()

    return associate


BUSY = Rejected("busy", permanent=False)
NO_REASON = Rejected("no reason", permanent=True, is_explained=False)
UNKNOWN_TITLE = Rejected("who?", permanent=True)
NO_ANSWER = Unreachable("no answer", is_connected=True)


@pytest.mark.parametrize("error", [BUSY, NO_REASON, UNKNOWN_TITLE, NO_ANSWER, ConnectionLost("cut")])
def test_without_another_association_there_is_no_limit_to_learn(error: ArchiveError) -> None:
    messages: list[str] = []
    limit = AssociationLimit(lambda _: None, messages.append)
    with pytest.raises(type(error)):
        limit.open(raising(error))
    assert limit.open(raising(None)).is_alive and limit.open(raising(None)).is_alive
    assert not messages


@pytest.mark.parametrize("error", [UNKNOWN_TITLE, Unreachable("refused"), ConnectionLost("cut")])
def test_other_failures_are_raised_at_once(error: ArchiveError) -> None:
    limit = AssociationLimit(lambda _: None)
    limit.open(raising(None))
    with pytest.raises(type(error)):
        limit.open(raising(error))


def test_a_rejection_without_a_reason_is_temporary_once_the_archive_has_accepted() -> None:
    limit = AssociationLimit(lambda _: None)
    with pytest.raises(Rejected) as first:
        limit.open(raising(NO_REASON))
    assert first.value.permanent
    limit.open(raising(None)).is_alive = False
    with pytest.raises(Rejected) as second:
        limit.open(raising(*[NO_REASON] * 10))
    assert not second.value.permanent


def test_a_stop_ends_the_wait() -> None:
    class Stop(Exception):
        pass

    def stop(_: float) -> None:
        raise Stop

    limit = AssociationLimit(stop)
    limit.open(raising(None))
    with pytest.raises(Stop):
        limit.open(raising(BUSY))
    assert not limit.is_contended
