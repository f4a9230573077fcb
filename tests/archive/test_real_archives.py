"""What real archives do to DIMSE: the other model, limits of answers, false success, a network that fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from dicom_quarry.archive.base import MonitorAction, RetrieveRequest, RetrieveResult, Verdict
from dicom_quarry.archive.dimse.archive import DimseArchive
from dicom_quarry.archive.dimse.associations import Timeouts
from dicom_quarry.errors import ConnectionLost, Unreachable
from dicom_quarry.model import AE, Task
from tests.archive import sites
from tests.archive.sites import TITLE, PatientWatch, receiving
from tests.peers.corpus import TEN_STUDIES_PATIENT, TWIN_PATIENT, Corpus
from tests.peers.fixtures import Start
from tests.peers.orthanc import Orthanc
from tests.peers.process import free_port, wait_for
from tests.peers.relay import C_FIND, C_MOVE, Relay

pytestmark = pytest.mark.archive

Model = Literal["study", "patient"]


@contextmanager
def adapter(peer: AE, *, model: Model = "study") -> Iterator[DimseArchive]:
    patiences = Timeouts(query=20.0)
    archive = DimseArchive("main", peer, calling=TITLE, destination=TITLE, model=model, timeouts=patiences)
    try:
        yield archive
    finally:
        archive.close()


@pytest.fixture
def ten(corpus: Corpus) -> Corpus:
    """The patient with ten studies alone."""
    return Corpus(tuple(item for item in corpus.items if item.patient_id == TEN_STUDIES_PATIENT))


@pytest.mark.parametrize("kind", ["orthanc", "dcmqrscp", "demo"])
def test_patient_root_finds_lists_and_retrieves(kind: str, tmp_path: Path, corpus: Corpus) -> None:
    with sites.site(kind, tmp_path, corpus) as site, adapter(site.peer, model="patient") as archive:
        found = archive.find({"PatientID": TWIN_PATIENT})
        assert {s.study_uid for s in found.studies} == {s.study_uid for s in site.of_patient(TWIN_PATIENT)}
        study = found.studies[0]
        expected = site.studies[study.study_uid].sop_uids
        listing = archive.list_instances(Task(1, "main", study))
        assert {ref.sop_uid for ref in listing.instances} == expected
        answered = archive.retrieve(
            RetrieveRequest(study.study_uid, study.patient_id), site.sink, PatientWatch()
        )
        assert answered.verdict is Verdict.SUCCESS
        assert set(site.sink.kept) == expected


def test_orthancs_limit_of_answers_is_seen(tmp_path: Path, ten: Corpus, start: Start) -> None:
    server = start(Orthanc(tmp_path, options={"LimitFindResults": 4}))
    server.load(ten.paths)
    with adapter(server.ae) as archive:
        found = archive.find({"PatientID": TEN_STUDIES_PATIENT})
    assert len(found.studies) == 4
    assert not found.complete
    assert "FE00" in found.incomplete_reason


def test_an_archive_that_does_not_wait_reports_success_that_is_none(
    tmp_path: Path, ten: Corpus, start: Start
) -> None:
    """Field guide, item 8: with ``SynchronousCMove: false`` 0000 means that a job was made of it."""
    nobody = AE(TITLE, "127.0.0.1", free_port())
    server = start(Orthanc(tmp_path, destinations=[nobody], options={"SynchronousCMove": False}))
    server.load(ten.paths)
    with adapter(server.ae) as archive, receiving() as (sink, _):
        answered = archive.retrieve(RetrieveRequest(ten.items[0].study_uid), sink, PatientWatch())
    assert answered.verdict is Verdict.SUCCESS
    assert server.move_jobs() == 1


def test_a_destination_that_does_not_listen_is_no_success(tmp_path: Path, ten: Corpus, start: Start) -> None:
    nobody = AE(TITLE, "127.0.0.1", free_port())
    server = start(Orthanc(tmp_path, destinations=[nobody]))
    server.load(ten.paths)
    with adapter(server.ae) as archive, receiving() as (sink, _):
        answered = archive.retrieve(RetrieveRequest(ten.items[0].study_uid), sink, PatientWatch())
    assert answered.verdict is Verdict.RETRY
    assert not answered.completed


def test_a_network_that_fails_in_a_move_is_lost_and_the_next_move_goes_through(
    tmp_path: Path, ten: Corpus, start: Start
) -> None:
    with receiving() as (sink, stores):
        server = start(Orthanc(tmp_path, destinations=[stores.ae]))
        server.load(ten.paths)
        ask = RetrieveRequest(ten.items[0].study_uid)
        with Relay(server.ae) as network, adapter(network.ae) as archive:
            assert archive.find({"PatientID": TEN_STUDIES_PATIENT}).complete
            sink.gate.clear()
            answers: list[RetrieveResult] = []
            move = threading.Thread(
                target=lambda: answers.append(archive.retrieve(ask, sink, PatientWatch()))
            )
            move.start()
            wait_for(lambda: sink.begun > 1, "the second instance")
            network.cut()
            move.join(20)
            sink.gate.set()
            assert [answered.verdict for answered in answers] == [Verdict.LOST]
            with pytest.raises((Unreachable, ConnectionLost)):
                archive.find({"PatientID": TEN_STUDIES_PATIENT})
            network.mend()
            assert archive.retrieve(ask, sink, PatientWatch()).verdict is Verdict.SUCCESS
            assert set(sink.kept) == {i.sop_uid for i in ten.items if i.study_uid == ask.study_uid}
            # Asked twice by us; nobody asked on our behalf.
            assert network.moves() == {ask.study_uid: 2}


def test_an_archive_that_is_killed_in_a_move_is_lost_then_unreachable_then_there_again(
    tmp_path: Path, ten: Corpus, start: Start
) -> None:
    with receiving() as (sink, stores):
        server = start(Orthanc(tmp_path, destinations=[stores.ae]))
        server.load(ten.paths)
        ask = RetrieveRequest(ten.items[0].study_uid)

        def kill() -> MonitorAction:
            server.kill()
            sink.gate.set()
            return MonitorAction.WAIT

        with adapter(server.ae) as archive:
            sink.gate.clear()
            assert archive.retrieve(ask, sink, PatientWatch(kill)).verdict is Verdict.LOST
            with pytest.raises(Unreachable):
                archive.probe()
            with pytest.raises(Unreachable):
                archive.retrieve(ask, sink, PatientWatch())
            server.start()
            archive.probe()
            assert archive.retrieve(ask, sink, PatientWatch()).verdict is Verdict.SUCCESS


def test_queries_cost_one_association_and_one_request_each(tmp_path: Path, ten: Corpus, start: Start) -> None:
    with receiving() as (sink, stores):
        server = start(Orthanc(tmp_path, destinations=[stores.ae]))
        server.load(ten.paths)
        with Relay(server.ae) as network, adapter(network.ae) as archive:
            found = archive.find({"PatientID": TEN_STUDIES_PATIENT})
            for study in found.studies:
                archive.list_instances(Task(1, "main", study))
                archive.retrieve(RetrieveRequest(study.study_uid), sink, PatientWatch())
            assert len(network.requests(C_FIND)) == 1 + len(found.studies)
            assert len(network.requests(C_MOVE)) == len(found.studies)
            assert network.connections == 2
            assert network.moves() == {study.study_uid: 1 for study in found.studies}
