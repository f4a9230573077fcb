"""Roads that are closed when nothing comes by them, and the job that goes on by the next."""

from __future__ import annotations

import pytest

from dicom_quarry.archive.base import RetrieveResult, Verdict
from dicom_quarry.errors import OperatorActionRequired
from dicom_quarry.model import Transport
from dicom_quarry.scheduling.transport_selection import TransportSelector

UNKNOWN = RetrieveResult(
    Verdict.CONFIGURATION,
    status=0xA801,
    completed=0,
    comment="unknown (A801). Message from the archive: DOE^JANE",
)
BLOCKED = RetrieveResult(Verdict.RETRY, status=0xC502, completed=0, comment="cannot connect")
LOST = RetrieveResult(Verdict.LOST, comment="nobody listens")
FINE = RetrieveResult(Verdict.SUCCESS, status=0, completed=3)


class Messages(list[str]):
    """What was said, and roads that say it."""

    def selector(self, *selector: Transport, served: bool = False) -> TransportSelector:
        return TransportSelector(selector, "QUARRY:11112", self.append, has_delivered=served)


def test_an_unknown_destination_closes_the_move_for_good_and_the_next_road_is_open() -> None:
    messages = Messages()
    selector = messages.selector(Transport.MOVE, Transport.GET, served=True)
    selector.record_result(1, Transport.MOVE, UNKNOWN, 0)
    assert selector.available == (Transport.GET,)
    assert messages == [
        "C-MOVE failed (A801, destination probably not registered). Using C-GET from now on. "
        "Details: quarry explain"
    ]
    assert "DOE" not in messages[0], "the archive's own words may name a patient, and this goes to logs"


def test_what_is_heard_late_of_a_closed_road_is_not_held_against_another() -> None:
    selector = Messages().selector(Transport.MOVE, Transport.GET)
    selector.record_result(1, Transport.MOVE, UNKNOWN, 0)
    selector.record_result(2, Transport.MOVE, UNKNOWN, 0)
    assert selector.available == (Transport.GET,)


def test_the_last_road_closed_ends_the_job_with_the_reasons_of_all() -> None:
    selector = Messages().selector(Transport.MOVE, Transport.GET)
    selector.record_result(1, Transport.MOVE, UNKNOWN, 0)
    with pytest.raises(
        OperatorActionRequired, match=r"by C-MOVE: unknown.*QUARRY:11112; by C-GET: not offered"
    ) as ended:
        selector.record_result(
            1, Transport.GET, RetrieveResult(Verdict.CONFIGURATION, comment="not offered"), 0
        )
    assert "DOE" in str(ended.value)
    assert ended.value.redacted == (
        "by C-MOVE: unknown (A801). The destination was QUARRY:11112; by C-GET: not offered"
    )


@pytest.mark.parametrize("answered", [BLOCKED, LOST, RetrieveResult(Verdict.SUCCESS, completed=3)])
def test_three_studies_in_vain_close_a_road_that_never_served(answered: RetrieveResult) -> None:
    selector = Messages().selector(Transport.MOVE, Transport.GET)
    for task in (1, 2, 2):
        selector.record_result(task, Transport.MOVE, answered, 0)
        assert Transport.MOVE in selector.available
    selector.record_result(3, Transport.MOVE, answered, 0)
    assert selector.available == (Transport.GET,)


def test_a_road_that_served_is_not_closed_by_a_bad_hour() -> None:
    selector = Messages().selector(Transport.WADO, Transport.GET)
    selector.record_result(1, Transport.WADO, FINE, 3)
    for task in range(2, 9):
        selector.record_result(task, Transport.WADO, LOST, 0)
        selector.record_result(task, Transport.WADO, BLOCKED, 0)
    assert selector.available == (Transport.WADO, Transport.GET)


def test_the_only_road_out_of_reach_is_waited_for_not_closed() -> None:
    selector = Messages().selector(Transport.GET)
    for task in range(9):
        selector.record_result(task, Transport.GET, LOST, 0)
    assert selector.available == (Transport.GET,)


def test_after_a_while_all_are_tried_again() -> None:
    selector = Messages().selector(Transport.MOVE)
    with pytest.raises(OperatorActionRequired):
        selector.record_result(1, Transport.MOVE, UNKNOWN, 0)
    with pytest.raises(OperatorActionRequired, match="unknown"):
        selector.require_available()
    selector.reset()
    assert selector.require_available() == (Transport.MOVE,)
    with pytest.raises(OperatorActionRequired, match=r"^unknown[^;]*$"):
        selector.record_result(2, Transport.MOVE, UNKNOWN, 0)
