"""Capabilities of an archive: levels, relational queries, identifiers in C-MOVE."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dicom_quarry.archive.base import RetrieveRequest
from dicom_quarry.archive.dimse.archive import DimseArchive, QueryCapabilities
from dicom_quarry.model import AE, Level, Study, Task
from tests.archive.scripts import NoSink, Watching
from tests.archive.test_dimse_list import task
from tests.peers.relay import RelayedMessage
from tests.peers.scripted import PENDING, SUCCESS, Conversation, Script, ScriptedArchive

HELD = {"1.2.1": ["1.2.1.1", "1.2.1.2"], "1.2.2": ["1.2.2.1"]}


def relational(held: dict[str, list[str]], *, names_series: bool = True) -> Script:
    """Lists every instance of the study where no series is named."""

    def script(peer: Conversation, request: RelayedMessage) -> None:
        keys = request.identifier()
        if keys["QueryRetrieveLevel"] == Level.SERIES:
            for uid, instances in HELD.items():
                row = Dataset()
                row.SeriesInstanceUID, row.NumberOfSeriesRelatedInstances = uid, len(instances)
                peer.answer(request, PENDING, row)
        else:
            wanted = keys["SeriesInstanceUID"]
            for uid, instances in (HELD if wanted else held).items():
                for sop_uid in instances if wanted in ("", uid) else ():
                    row = Dataset()
                    row.SOPInstanceUID, row.SOPClassUID = sop_uid, "1.2.840.10008.5.1.4.1.1.2"
                    row.SeriesInstanceUID = uid if names_series else ""
                    peer.answer(request, PENDING, row)
        peer.answer(request, SUCCESS)

    return script


def archive_at(peer: AE, capabilities: QueryCapabilities) -> DimseArchive:
    return DimseArchive("main", peer, calling="QUARRY", destination="QUARRY", capabilities=capabilities)


@pytest.mark.parametrize(
    ("configured", "count", "expected"),
    [
        (None, 3, ["IMAGE"]),
        (True, 3, ["IMAGE"]),
        (True, None, ["SERIES", "IMAGE"]),
        (None, None, ["SERIES", "IMAGE", "IMAGE"]),
        (False, 3, ["SERIES", "IMAGE", "IMAGE"]),
    ],
)
def test_one_query_for_a_study_of_known_size(
    configured: bool | None, count: int | None, expected: list[str]
) -> None:
    capabilities = QueryCapabilities(relational_queries=configured)
    with ScriptedArchive(relational(HELD)) as peer:
        archive = archive_at(peer.ae, capabilities)
        archive.list_instances(task())
        before = len(peer.requests)
        listing = archive.list_instances(task(count))
        levels = [request.identifier()["QueryRetrieveLevel"] for request in peer.requests[before:]]
    assert levels == expected
    assert [(ref.series_uid, ref.sop_uid) for ref in listing.instances] == [
        (series, sop) for series, instances in HELD.items() for sop in instances
    ]
    assert (listing.lists_instances, listing.complete, listing.count) == (True, True, 3)


@pytest.mark.parametrize(
    "script",
    [relational({"1.2.1": HELD["1.2.1"]}), relational(HELD, names_series=False), relational({})],
    ids=["a series is left out", "no series is named", "nothing is answered"],
)
def test_an_archive_that_is_not_relational_after_all_is_queried_series_by_series(script: Script) -> None:
    with ScriptedArchive(script) as peer:
        archive = archive_at(peer.ae, QueryCapabilities(relational_queries=True))
        archive.list_instances(task(3))
        before = len(peer.requests)
        listing = archive.list_instances(task(3))
        assert len(peer.requests) - before == 5
    assert {ref.sop_uid for ref in listing.instances} == {"1.2.1.1", "1.2.1.2", "1.2.2.1"}
    assert listing.complete


@pytest.mark.parametrize(
    ("script", "tries"),
    [
        (relational({"1.2.1": HELD["1.2.1"]}), 3),
        (relational(HELD, names_series=False), 3),
        (relational({**HELD, "1.2.3": ["1.2.3.1"]}), 3),
        (relational({}), 1),
    ],
    ids=["a series is left out", "no series is named", "too many", "nothing is answered"],
)
def test_an_archive_that_lists_no_study_at_once_is_not_tried_for_ever(script: Script, tries: int) -> None:
    with ScriptedArchive(script) as peer:
        archive = archive_at(peer.ae, QueryCapabilities())
        for _ in range(6):
            listing = archive.list_instances(task(3))
            assert {ref.sop_uid for ref in listing.instances} == {"1.2.1.1", "1.2.1.2", "1.2.2.1"}
        named = [request.identifier()["SeriesInstanceUID"] for request in peer.requests if is_image(request)]
    assert (named.count(""), len(named)) == (tries, tries + 6 * 2)


def test_an_archive_that_breaks_off_at_such_a_query_is_not_tried_again() -> None:
    by_series = relational(HELD)

    def script(peer: Conversation, request: RelayedMessage) -> None:
        if is_image(request) and not request.identifier()["SeriesInstanceUID"]:
            peer.abort()
        else:
            by_series(peer, request)

    with ScriptedArchive(script) as peer:
        archive = archive_at(peer.ae, QueryCapabilities())
        for _ in range(4):
            assert len(archive.list_instances(task(3)).instances) == 3
        named = [request.identifier()["SeriesInstanceUID"] for request in peer.requests if is_image(request)]
    # The query is repeated once on a new association, as an archive may have ended one that was kept.
    assert (named.count(""), len(named)) == (2, 2 + 4 * 2)


@pytest.mark.parametrize(("series_count", "expected"), [(1, ["IMAGE"]), (2, ["SERIES", "IMAGE"])])
def test_the_first_list_of_several_series_shows_if_answers_are_merged(
    series_count: int, expected: list[str]
) -> None:
    one_series = {"1.2.1": HELD["1.2.1"]}
    study = Study("1.2", "P1", series_count=series_count, instance_count=2)

    def script(peer: Conversation, request: RelayedMessage) -> None:
        if not is_image(request):
            row = Dataset()
            row.SeriesInstanceUID, row.NumberOfSeriesRelatedInstances = "1.2.1", 2
            peer.answer(request, PENDING, row)
            peer.answer(request, SUCCESS)
        else:
            relational(one_series)(peer, request)

    with ScriptedArchive(script) as peer:
        archive_at(peer.ae, QueryCapabilities()).list_instances(Task(1, "main", study))
        levels = [request.identifier()["QueryRetrieveLevel"] for request in peer.requests]
    assert levels[: len(expected)] == expected


def is_image(request: RelayedMessage) -> bool:
    return request.identifier()["QueryRetrieveLevel"] == Level.IMAGE


@pytest.mark.parametrize(("lowest", "queries"), [(Level.SERIES, 1), (Level.STUDY, 0)])
def test_no_deeper_than_the_archive_answers(lowest: Level, queries: int) -> None:
    with ScriptedArchive(relational(HELD)) as peer:
        listing = archive_at(peer.ae, QueryCapabilities(lowest_level=lowest)).list_instances(task(3))
        assert len(peer.requests) == queries
    assert (listing.lists_instances, listing.instances, listing.count) == (False, (), 3)
    assert listing.series_uids == (tuple(HELD) if queries else ())


@pytest.mark.parametrize("with_patient", [True, False])
def test_the_patient_in_a_move(with_patient: bool) -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.answer(request, SUCCESS)

    with ScriptedArchive(script) as peer:
        archive = archive_at(peer.ae, QueryCapabilities(patient_id_in_move=with_patient))
        archive.retrieve(RetrieveRequest("1.2", "P1"), NoSink(), Watching())
        (request,) = peer.requests
    assert request.identifier().get("PatientID") == ("P1" if with_patient else None)
