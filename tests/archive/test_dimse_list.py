"""What the archive lists, against one that answers whatever a test wants."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dicom_quarry.errors import QueryFailed
from dicom_quarry.model import Level, Selection, Study, Task
from tests.archive.scripts import (
    archive,
)
from tests.peers.relay import RelayedMessage
from tests.peers.scripted import PENDING, SUCCESS, Conversation, Script, ScriptedArchive


def task(count: int | None = None, *series: str) -> Task:
    return Task(1, "main", Study("1.2", "P1", instance_count=count), Selection(frozenset(series)))


def holding(series: dict[str, tuple[int | None, list[str]]], *, image_level: int = SUCCESS) -> Script:
    """Answers SERIES and IMAGE level: for every series, the claimed count and the instances listed."""

    def script(peer: Conversation, request: RelayedMessage) -> None:
        keys = request.identifier()
        final = SUCCESS
        if keys["QueryRetrieveLevel"] == Level.SERIES:
            for uid, (claim, _) in series.items():
                row = Dataset()
                row.SeriesInstanceUID = uid
                if claim is not None:
                    row.NumberOfSeriesRelatedInstances = claim
                peer.answer(request, PENDING, row)
        elif keys["QueryRetrieveLevel"] == Level.IMAGE:
            final = image_level
            for sop_uid in series[keys["SeriesInstanceUID"]][1] if final == SUCCESS else ():
                row = Dataset()
                row.SOPInstanceUID, row.SOPClassUID = sop_uid, "1.2.840.10008.5.1.4.1.1.2"
                peer.answer(request, PENDING, row)
        peer.answer(request, final)

    return script


def test_listing_names_every_instance_with_its_class() -> None:
    script = holding({"1.2.1": (2, ["1.2.1.1", "1.2.1.2"]), "1.2.2": (None, ["1.2.2.1"])})
    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task(3))
        assert [r.identifier()["StudyInstanceUID"] for r in peer.requests] == ["1.2"] * 3
        assert all("PatientID" not in r.identifier() for r in peer.requests)
    assert [(r.study_uid, r.series_uid, r.sop_uid) for r in listing.instances] == [
        ("1.2", "1.2.1", "1.2.1.1"),
        ("1.2", "1.2.1", "1.2.1.2"),
        ("1.2", "1.2.2", "1.2.2.1"),
    ]
    assert {r.sop_class for r in listing.instances} == {"1.2.840.10008.5.1.4.1.1.2"}
    assert listing.series_uids == ("1.2.1", "1.2.2")
    assert (listing.lists_instances, listing.complete, listing.count) == (True, True, 3)


def test_listing_of_a_selection_asks_for_its_series_only() -> None:
    script = holding({"1.2.1": (2, ["1.2.1.1", "1.2.1.2"]), "1.2.2": (1, ["1.2.2.1"])})
    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task(3, "1.2.2"))
        assert len(peer.requests) == 2
    assert [r.sop_uid for r in listing.instances] == ["1.2.2.1"]
    assert (listing.series_uids, listing.count) == (("1.2.2",), 1)


def test_an_instance_listed_in_two_series_is_one() -> None:
    script = holding({"1.2.1": (1, ["1.2.9"]), "1.2.2": (1, ["1.2.9"])})
    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task())
    assert [(r.series_uid, r.sop_uid) for r in listing.instances] == [("1.2.1", "1.2.9")]
    assert listing.count == 2


@pytest.mark.parametrize(
    ("series", "study_count", "by_image", "count"),
    [
        ({"1.2.1": (2, [])}, None, False, 2),
        ({"1.2.1": (2, []), "1.2.2": (1, ["1.2.2.1"])}, 3, False, 3),
        ({"1.2.1": (None, [])}, 4, False, 4),
        ({}, 4, False, 4),
        ({"1.2.1": (0, [])}, 0, True, 0),
        ({}, None, True, None),
        ({"1.2.1": (2, ["1.2.1.1"])}, 5, True, 5),
        ({"1.2.1": (7, ["1.2.1.1"])}, 5, True, 7),
    ],
)
def test_a_list_that_is_shorter_than_the_claims_differs_from_an_absent_one(
    series: dict[str, tuple[int | None, list[str]]],
    study_count: int | None,
    by_image: bool,
    count: int | None,
) -> None:
    with ScriptedArchive(holding(series)) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task(study_count))
    assert (listing.lists_instances, listing.count, listing.complete) == (by_image, count, True)


def test_a_series_that_is_listed_twice_claims_the_larger_number() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        for claim in (5, 2) if request.identifier()["QueryRetrieveLevel"] == "SERIES" else ():
            row = Dataset()
            row.SeriesInstanceUID, row.NumberOfSeriesRelatedInstances = "1.2.1", claim
            peer.answer(request, PENDING, row)
        peer.answer(request, SUCCESS)

    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task())
    assert (listing.series_uids, listing.count) == (("1.2.1",), 5)


def test_an_archive_without_the_image_level_is_queried_once() -> None:
    script = holding({"1.2.1": (2, []), "1.2.2": (1, [])}, image_level=0xA900)
    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task(3))
        assert len(peer.requests) == 2
    assert (listing.instances, listing.lists_instances, listing.count) == ((), False, 3)
    assert listing.series_uids == ("1.2.1", "1.2.2")


def test_a_listing_that_fails_for_now_is_raised() -> None:
    with ScriptedArchive(holding({"1.2.1": (2, [])}, image_level=0xC001)) as peer, archive(peer.ae) as pacs:
        with pytest.raises(QueryFailed) as failure:
            pacs.list_instances(task(3))
        assert failure.value.status == 0xC001


def test_a_listing_that_was_cut_short_is_incomplete() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        row = Dataset()
        row.SeriesInstanceUID, row.SOPInstanceUID = "1.2.1", "1.2.1.1"
        peer.answer(request, PENDING, row)
        peer.answer(request, 0xFE00 if request.identifier()["QueryRetrieveLevel"] == "IMAGE" else SUCCESS)

    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task())
    assert len(listing.instances) == 1
    assert not listing.complete
    assert "FE00" in listing.incomplete_reason


def test_before_query_is_called_for_every_query() -> None:
    script = holding({"1.2.1": (1, ["1.2.1.1"]), "1.2.2": (None, ["1.2.2.1"])})
    seen: list[int] = []
    with ScriptedArchive(script) as peer:
        with archive(peer.ae, before_query=lambda: seen.append(len(peer.requests))) as pacs:
            pacs.list_instances(task(2))
        assert seen == [0, 1, 2], "one for the series, one for the instances of each"


def test_counts_that_are_wrong_for_every_study_are_not_checked_for_ever() -> None:
    script = holding({"1.2.1": (2, ["1.2.1.1"])})
    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        requests = []
        for _ in range(12):
            before = len(peer.requests)
            assert not pacs.list_instances(task(2)).is_doubtful
            requests.append(len(peer.requests) - before)
    # Series and instances, the same without counts, and the study by its UID.
    assert requests == [5] * 10 + [2] * 2
