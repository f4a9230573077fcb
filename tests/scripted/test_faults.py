"""Every fault really occurs, as pynetdicom sees it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicom_quarry.demo.dimse_server import STUDY_ROOT_MOVE
from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies
from tests.peers.process import wait_for
from tests.scripted import faults
from tests.scripted.archive import Fault, ScriptedArchive
from tests.scripted.client import Received, associate, counters, identifier, move, receiver, request
from tests.scripted.faults import PERMANENT, TRANSIENT

STUDIES = generate_studies(3, images=4)
UID = STUDIES[0].study_uid
SENT = [instance.sop_uid for instance in STUDIES[0].instances()]


@contextmanager
def scripted(*switched_on: Fault) -> Iterator[tuple[ScriptedArchive, Any, Received]]:
    with (
        receiver() as received,
        ScriptedArchive(
            STUDIES, switched_on, destinations={"RECEIVER": ("127.0.0.1", received.port)}
        ) as archive,
        associate(archive) as assoc,
    ):
        yield archive, assoc, received


def moved(assoc: Any, study: DemoStudy = STUDIES[0]) -> tuple[list[Dataset], Dataset]:
    """The pending responses and the final one of a C-MOVE of a study."""
    statuses = [status for status, _ in move(assoc, "STUDY", StudyInstanceUID=study.study_uid)]
    return statuses[:-1], statuses[-1]


def test_without_faults_it_behaves_and_keeps_a_log() -> None:
    with scripted() as (archive, assoc, received):
        _, final = moved(assoc)
    assert (final.Status, counters(final)) == (0, (4, 0, 0, None))
    assert received.uids == SENT
    assert [(seen.kind, seen.level, seen.uids) for seen in archive.log] == [
        ("associate", "", ()),
        ("move", "STUDY", (UID,)),
    ]


@pytest.mark.parametrize("result", [TRANSIENT, PERMANENT])
def test_an_association_is_rejected_once(result: int) -> None:
    with ScriptedArchive(STUDIES, [faults.Reject(result, times=1)]) as archive:
        rejected = request(archive)
        assert rejected.is_rejected
        assert rejected.acceptor.primitive.result == result
        with associate(archive):
            assert len(archive.requests("associate")) == 2


@pytest.mark.parametrize("cut", [False, True])
def test_the_association_is_lost_in_the_middle(cut: bool) -> None:
    with scripted(faults.Lose(2, cut=cut)) as (_, assoc, received):
        pending, final = moved(assoc)
        assert "Status" not in final
        assert len(pending) <= 2
        assert received.uids == SENT[:2]


@pytest.mark.parametrize("after", [0, 2, 4])
def test_silence_before_between_and_after(after: int) -> None:
    with scripted(faults.Silence(after, 0.5, times=1)) as (_, assoc, received):
        begin = time.monotonic()
        _, final = moved(assoc)
        assert time.monotonic() - begin > 0.5
        assert final.Status == 0
        assert received.uids == SENT


def test_no_pending_responses() -> None:
    with scripted(faults.NoPending()) as (_, assoc, received):
        pending, final = moved(assoc)
    assert (len(pending), final.Status, received.uids) == (0, 0, SENT)


def test_pending_responses_end_with_a_cancel_only() -> None:
    with scripted(faults.EndlessPending()) as (_, assoc, received):
        final = _cancelled_after(assoc, 5)
    assert (final.Status, received.uids) == (0xFE00, [])


def test_a_cancel_is_ignored() -> None:
    with scripted(faults.IgnoreCancel()) as (_, assoc, received):
        final = _cancelled_after(assoc, 1)
    assert (final.Status, received.uids) == (0, SENT)


def _cancelled_after(assoc: Any, pendings: int) -> Dataset:
    asked = identifier("STUDY", StudyInstanceUID=UID)
    responses = assoc.send_c_move(asked, "RECEIVER", STUDY_ROOT_MOVE, msg_id=7)
    for number, (status, _) in enumerate(responses, start=1):
        if number == pendings:
            assoc.send_c_cancel(7, query_model=STUDY_ROOT_MOVE)
        final: Dataset = status
    return final


def test_an_offline_study_is_recalled() -> None:
    with scripted(faults.Offline(times=1)) as (_, assoc, received):
        _, first = moved(assoc)
        assert (first.Status, counters(first), received.uids) == (0, (0, 0, 0, None), [])
        _, second = moved(assoc)
        assert (counters(second), received.uids) == ((4, 0, 0, None), SENT)


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA702, 0xA801, 0xA900, 0xB000, 0xC000, 0x0122, 0x0124])
def test_a_status_for_the_first_tries(status: int) -> None:
    with scripted(faults.MoveStatus(status, times=2)) as (_, assoc, received):
        assert [moved(assoc)[1].Status for _ in range(3)] == [status, status, 0]
        assert received.uids == SENT


def test_a_level_is_not_supported() -> None:
    with scripted(faults.MoveStatus(0xA900, level="IMAGE", counted=False)) as (_, assoc, _received):
        [(final, _)] = move(assoc, "IMAGE", StudyInstanceUID=UID, SOPInstanceUID=SENT[0])
        assert (final.Status, counters(final)) == (0xA900, (None,) * 4)
        assert moved(assoc)[1].Status == 0


@pytest.mark.parametrize(("claimed", "completed"), [(False, 0), (True, 4)])
def test_success_and_nothing_sent(claimed: bool, completed: int) -> None:
    with scripted(faults.NothingSent(claimed=claimed)) as (_, assoc, received):
        _, final = moved(assoc)
    assert (final.Status, counters(final), received.uids) == (0, (completed, 0, 0, None), [])


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xA702])
def test_everything_failed(status: int, listed: bool) -> None:
    with scripted(faults.AllFailed(status, listed=listed)) as (_, assoc, received):
        [(final, failed)] = move(assoc, "STUDY", StudyInstanceUID=UID)
    assert (final.Status, counters(final), received.uids) == (status, (0, 4, 0, None), [])
    if status and listed:  # pynetdicom does not look for an identifier beside Success
        assert failed is not None
        assert failed.FailedSOPInstanceUIDList == SENT


@pytest.mark.parametrize("listed", [False, True])
def test_some_failed(listed: bool) -> None:
    with scripted(faults.SomeFailed(1, listed=listed, times=1)) as (_, assoc, received):
        *_pending, (final, failed) = move(assoc, "STUDY", StudyInstanceUID=UID)
        assert (final.Status, counters(final), received.uids) == (0xB000, (3, 1, 0, None), SENT[1:])
        assert (failed is not None and failed.get("FailedSOPInstanceUIDList") == SENT[0]) is listed
        assert moved(assoc)[1].Status == 0


def test_no_counters() -> None:
    with scripted(faults.NoCounters()) as (_, assoc, received):
        pending, final = moved(assoc)
    assert {counters(status) for status in (*pending, final)} == {(None,) * 4}
    assert received.uids == SENT


def test_half_is_sent() -> None:
    with scripted(faults.HalfSent(times=1)) as (_, assoc, received):
        _, final = moved(assoc)
        assert (final.Status, counters(final), received.uids) == (0, (2, 0, 0, None), SENT[:2])


def test_half_comes_after_the_final_response() -> None:
    with scripted(faults.Late(0.3)) as (_, assoc, received):
        _, final = moved(assoc)
        assert (final.Status, counters(final), received.uids) == (0, (4, 0, 0, None), SENT[:2])
        wait_for(lambda: received.uids == SENT, "the rest")


def test_several_associations() -> None:
    with scripted(faults.SeveralAssociations()) as (_, assoc, received):
        moved(assoc)
    assert (received.associations, received.uids) == (4, SENT)
    assert received.requests[0].MoveOriginatorApplicationEntityTitle is None


@pytest.mark.parametrize(("changed", "contents"), [(False, 1), (True, 2)])
def test_duplicates(changed: bool, contents: int) -> None:
    with scripted(faults.Duplicates(changed=changed)) as (_, assoc, received):
        moved(assoc)
    assert received.uids == SENT * 2
    assert len({ds.StudyDescription for ds in received.datasets}) == contents


def test_an_unrequested_instance() -> None:
    with scripted(faults.Unrequested()) as (_, assoc, received):
        moved(assoc)
    assert [ds.StudyInstanceUID == UID for ds in received.datasets] == [True] * 4 + [False]


def test_another_patient() -> None:
    with scripted(faults.OtherPatient("MERGED")) as (_, assoc, received):
        moved(assoc)
    assert {ds.PatientID for ds in received.datasets} == {"MERGED"}
    assert received.uids == SENT


def test_faults_are_independent_of_each_other() -> None:
    with scripted(faults.NoCounters(), faults.HalfSent()) as (_, assoc, received):
        _, final = moved(assoc)
    assert (counters(final), received.uids) == ((None,) * 4, SENT[:2])
