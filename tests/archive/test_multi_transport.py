"""One archive with several transports: which adapter is called, and the result of a failed transport."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dicom_quarry.archive.base import RetrieveRequest, RetrieveResult, StudyQueryResult, Verdict
from dicom_quarry.archive.multi_transport import MultiTransportArchive
from dicom_quarry.errors import ArchiveError, OperatorActionRequired, Rejected, Unreachable
from dicom_quarry.model import Transport


class Adapter:
    """An adapter that records its calls; ``error`` is raised by its retrievals and its probe."""

    name = "main"

    def __init__(self, error: ArchiveError | None = None) -> None:
        self.error = error
        self.calls: list[str] = []
        self.answer = RetrieveResult(Verdict.SUCCESS)

    def probe(self) -> None:
        self.calls.append("probe")
        if self.error:
            raise self.error

    def find(self, _keys: Mapping[str, str]) -> StudyQueryResult:
        self.calls.append("find")
        return StudyQueryResult(())

    def retrieve(self, *_: object) -> RetrieveResult:
        self.calls.append("retrieve")
        if self.error:
            raise self.error
        return self.answer

    def release_thread(self) -> None:
        self.calls.append("release_thread")

    def release_idle(self) -> None:
        self.calls.append("release_idle")

    def close(self) -> None:
        self.calls.append("close")


def many(finder: Any, **fetchers: Any) -> MultiTransportArchive:
    transports = [Transport(name) for name in fetchers]
    return MultiTransportArchive(
        finder, dict(zip(transports, fetchers.values(), strict=True)), lambda: transports
    )


def fetch(archive: MultiTransportArchive, transport: Transport) -> RetrieveResult:
    nothing: Any = None
    return archive.retrieve(RetrieveRequest("1.2", transport=transport), nothing, nothing)


def test_questions_go_to_the_finder_and_retrievals_the_road_that_they_name() -> None:
    dimse, get, web = Adapter(), Adapter(), Adapter()
    archive = many(dimse, move=dimse, get=get, wado=web)
    archive.find({"PatientID": "4711"})
    fetch(archive, Transport.WADO)
    fetch(archive, Transport.GET)
    archive.release_thread()
    archive.close()
    assert dimse.calls == ["find", "release_thread", "close"]
    assert get.calls == ["retrieve", "release_thread", "close"]
    assert web.calls == ["retrieve", "release_thread", "release_thread", "close"], "once for the next one"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (Rejected("does not offer C-GET", permanent=True), Verdict.CONFIGURATION),
        (Rejected("busy", permanent=False), Verdict.LOST),
        (Unreachable("nothing listens"), Verdict.LOST),
    ],
)
def test_one_road_of_several_that_cannot_be_walked_is_an_answer(
    error: ArchiveError, verdict: Verdict
) -> None:
    dimse = Adapter()
    answered = fetch(many(dimse, move=dimse, get=Adapter(error)), Transport.GET)
    assert answered.verdict is verdict
    assert str(error) in answered.comment


def test_the_only_road_is_heard_with_the_questions_and_waited_for() -> None:
    down = Unreachable("nothing listens")
    archive = many(Adapter(), wado=Adapter(down))
    with pytest.raises(Unreachable):
        archive.probe()
    with pytest.raises(Unreachable):
        fetch(archive, Transport.WADO)


def test_the_last_that_is_open_of_several_is_waited_for() -> None:
    dimse: Any = Adapter()
    web: Any = Adapter(Unreachable("nothing listens"))
    transports = [Transport.MOVE, Transport.WADO]
    archive = MultiTransportArchive(dimse, {Transport.MOVE: dimse, Transport.WADO: web}, lambda: transports)
    archive.probe()
    assert fetch(archive, Transport.WADO).verdict is Verdict.LOST
    transports.remove(Transport.MOVE)
    with pytest.raises(Unreachable):
        archive.probe()
    with pytest.raises(Unreachable):
        fetch(archive, Transport.WADO)
    web.error = Rejected("not offered", permanent=True)
    assert fetch(archive, Transport.WADO).verdict is Verdict.CONFIGURATION
    web.error = OperatorActionRequired("the token is refused")
    with pytest.raises(OperatorActionRequired):
        fetch(archive, Transport.WADO)


def test_a_road_that_was_refused_is_hung_up_before_the_next_is_walked() -> None:
    dimse, get = Adapter(), Adapter()
    dimse.answer = RetrieveResult(Verdict.CONFIGURATION, status=0xA801)
    fetch(many(dimse, move=dimse, get=get), Transport.MOVE)
    assert dimse.calls == ["retrieve", "release_thread"]
    assert not get.calls


def test_one_of_several_transports_out_of_reach_does_not_stop_the_queries() -> None:
    dimse = Adapter()
    many(dimse, move=dimse, wado=Adapter(Unreachable("nothing listens"))).probe()
    assert dimse.calls == ["probe"]
