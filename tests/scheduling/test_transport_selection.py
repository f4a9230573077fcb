"""Roads that are closed when nothing comes by them, and the job that goes on by the next."""

from __future__ import annotations

import pytest

from dicom_quarry.archive.base import Answered, Verdict
from dicom_quarry.errors import Unusable
from dicom_quarry.model import Road
from dicom_quarry.scheduling.transport_selection import Roads

UNKNOWN = Answered(
    Verdict.CONFIGURATION, status=0xA801, completed=0, comment="unknown (A801). The archive says: DOE^JANE"
)
BLOCKED = Answered(Verdict.RETRY, status=0xC502, completed=0, comment="cannot connect")
LOST = Answered(Verdict.LOST, comment="nobody listens")
FINE = Answered(Verdict.SUCCESS, status=0, completed=3)


class Told(list[str]):
    """What was said, and roads that say it."""

    def roads(self, *roads: Road, served: bool = False) -> Roads:
        return Roads(roads, "QUARRY:11112", self.append, served=served)


def test_an_unknown_destination_closes_the_move_for_good_and_the_next_road_is_open() -> None:
    told = Told()
    roads = told.roads(Road.MOVE, Road.GET, served=True)
    roads.judge(1, Road.MOVE, UNKNOWN, 0)
    assert roads.open == (Road.GET,)
    assert told == [
        "nothing comes by C-MOVE (A801): fetching by C-GET from now on; "
        "what the archive said is in the record of each study"
    ]
    assert "DOE" not in told[0], "the archive's own words may name a patient, and this goes to logs"


def test_what_is_heard_late_of_a_closed_road_is_not_held_against_another() -> None:
    roads = Told().roads(Road.MOVE, Road.GET)
    roads.judge(1, Road.MOVE, UNKNOWN, 0)
    roads.judge(2, Road.MOVE, UNKNOWN, 0)
    assert roads.open == (Road.GET,)


def test_the_last_road_closed_ends_the_job_with_the_reasons_of_all() -> None:
    roads = Told().roads(Road.MOVE, Road.GET)
    roads.judge(1, Road.MOVE, UNKNOWN, 0)
    with pytest.raises(Unusable, match=r"by C-MOVE: unknown.*QUARRY:11112; by C-GET: not offered") as ended:
        roads.judge(1, Road.GET, Answered(Verdict.CONFIGURATION, comment="not offered"), 0)
    assert "DOE" in str(ended.value)
    assert ended.value.told == (
        "by C-MOVE: unknown (A801). It was asked to send to QUARRY:11112; by C-GET: not offered"
    )


@pytest.mark.parametrize("answered", [BLOCKED, LOST, Answered(Verdict.SUCCESS, completed=3)])
def test_three_studies_in_vain_close_a_road_that_never_served(answered: Answered) -> None:
    roads = Told().roads(Road.MOVE, Road.GET)
    for task in (1, 2, 2):
        roads.judge(task, Road.MOVE, answered, 0)
        assert Road.MOVE in roads.open
    roads.judge(3, Road.MOVE, answered, 0)
    assert roads.open == (Road.GET,)


def test_a_road_that_served_is_not_closed_by_a_bad_hour() -> None:
    roads = Told().roads(Road.WADO, Road.GET)
    roads.judge(1, Road.WADO, FINE, 3)
    for task in range(2, 9):
        roads.judge(task, Road.WADO, LOST, 0)
        roads.judge(task, Road.WADO, BLOCKED, 0)
    assert roads.open == (Road.WADO, Road.GET)


def test_the_only_road_out_of_reach_is_waited_for_not_closed() -> None:
    roads = Told().roads(Road.GET)
    for task in range(9):
        roads.judge(task, Road.GET, LOST, 0)
    assert roads.open == (Road.GET,)
