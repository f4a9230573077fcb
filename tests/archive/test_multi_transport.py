"""One archive over several roads: who is asked what, and what a road that cannot be walked amounts to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dicom_quarry.archive.base import RetrieveRequest, RetrieveResult, StudyQueryResult, Verdict
from dicom_quarry.archive.multi_transport import MultiTransportArchive
from dicom_quarry.errors import ArchiveError, OperatorActionRequired, Rejected, Unreachable
from dicom_quarry.model import Transport


class Adapter:
    """An adapter that notes what is asked of it; ``error`` is raised by its retrievals and its probe."""

    name = "main"

    def __init__(self, error: ArchiveError | None = None) -> None:
        self.error = error
        self.asked: list[str] = []
        self.answer = RetrieveResult(Verdict.SUCCESS)

    def probe(self) -> None:
        self.asked.append("probe")
        if self.error:
            raise self.error

    def find(self, _keys: Mapping[str, str]) -> StudyQueryResult:
        self.asked.append("find")
        return StudyQueryResult(())

    def retrieve(self, *_: object) -> RetrieveResult:
        self.asked.append("retrieve")
        if self.error:
            raise self.error
        return self.answer

    def release_thread(self) -> None:
        self.asked.append("hang_up")

    def close(self) -> None:
        self.asked.append("close")


def many(finder: Any, **fetchers: Any) -> MultiTransportArchive:
    roads = [Transport(name) for name in fetchers]
    return MultiTransportArchive(finder, dict(zip(roads, fetchers.values(), strict=True)), lambda: roads)


def ask(archive: MultiTransportArchive, road: Transport) -> RetrieveResult:
    nothing: Any = None
    return archive.retrieve(RetrieveRequest("1.2", transport=road), nothing, nothing)


def test_questions_go_to_the_finder_and_retrievals_the_road_that_they_name() -> None:
    dimse, get, web = Adapter(), Adapter(), Adapter()
    archive = many(dimse, move=dimse, get=get, wado=web)
    archive.find({"PatientID": "4711"})
    ask(archive, Transport.WADO)
    ask(archive, Transport.GET)
    archive.release_thread()
    archive.close()
    assert dimse.asked == ["find", "hang_up", "close"]
    assert get.asked == web.asked == ["retrieve", "hang_up", "close"]


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (Rejected("does not offer C-GET", permanent=True), Verdict.CONFIGURATION),
        (Rejected("busy", permanent=False), Verdict.LOST),
        (Unreachable("nobody listens"), Verdict.LOST),
    ],
)
def test_one_road_of_several_that_cannot_be_walked_is_an_answer(
    error: ArchiveError, verdict: Verdict
) -> None:
    dimse = Adapter()
    answered = ask(many(dimse, move=dimse, get=Adapter(error)), Transport.GET)
    assert answered.verdict is verdict
    assert str(error) in answered.comment


def test_the_only_road_is_heard_with_the_questions_and_waited_for() -> None:
    down = Unreachable("nobody listens")
    archive = many(Adapter(), wado=Adapter(down))
    with pytest.raises(Unreachable):
        archive.probe()
    with pytest.raises(Unreachable):
        ask(archive, Transport.WADO)


def test_the_last_that_is_open_of_several_is_waited_for() -> None:
    dimse: Any = Adapter()
    web: Any = Adapter(Unreachable("nobody listens"))
    roads = [Transport.MOVE, Transport.WADO]
    archive = MultiTransportArchive(dimse, {Transport.MOVE: dimse, Transport.WADO: web}, lambda: roads)
    archive.probe()
    assert ask(archive, Transport.WADO).verdict is Verdict.LOST
    roads.remove(Transport.MOVE)
    with pytest.raises(Unreachable):
        archive.probe()
    with pytest.raises(Unreachable):
        ask(archive, Transport.WADO)
    web.error = Rejected("not offered", permanent=True)
    assert ask(archive, Transport.WADO).verdict is Verdict.CONFIGURATION
    web.error = OperatorActionRequired("the token is refused")
    with pytest.raises(OperatorActionRequired):
        ask(archive, Transport.WADO)


def test_a_road_that_was_refused_is_hung_up_before_the_next_is_walked() -> None:
    dimse, get = Adapter(), Adapter()
    dimse.answer = RetrieveResult(Verdict.CONFIGURATION, status=0xA801)
    ask(many(dimse, move=dimse, get=get), Transport.MOVE)
    assert dimse.asked == ["retrieve", "hang_up"]
    assert not get.asked


def test_one_of_several_roads_out_of_reach_does_not_keep_the_questions_from_being_asked() -> None:
    dimse = Adapter()
    many(dimse, move=dimse, wado=Adapter(Unreachable("nobody listens"))).probe()
    assert dimse.asked == ["probe"]
