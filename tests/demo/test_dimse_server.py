"""The demo archive on a socket, with DCMTK and pynetdicom as clients."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_quarry.demo import DemoArchive, generate_studies, make_demo_studies
from dicom_quarry.demo.dimse_server import PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE, STUDY_ROOT_MOVE
from dicom_quarry.demo.synthetic_instances import encode_dataset
from dicom_quarry.errors import ConfigError, StartError
from tests.peers.dcmtk import Storescp
from tests.peers.fixtures import Start
from tests.peers.process import free_port
from tests.scripted.client import associate, counters, find, identifier, move, receiver

STUDIES = make_demo_studies()
FIRST = STUDIES[0]


@pytest.fixture
def archive() -> Iterator[DemoArchive]:
    with DemoArchive(STUDIES) as archive:
        yield archive


def dcmtk(tool: str, archive: DemoArchive, *arguments: str) -> str:
    command = [tool, *arguments, "-aec", archive.title, "127.0.0.1", str(archive.port)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def test_it_listens_on_loopback_only() -> None:
    with pytest.raises(ConfigError, match="loopback"):
        DemoArchive(STUDIES, host="0.0.0.0")


def test_a_port_in_use_is_one_sentence(archive: DemoArchive) -> None:
    with pytest.raises(StartError, match=f"port {archive.port}"):
        DemoArchive(STUDIES, port=archive.port).start()


def test_stop_may_be_repeated() -> None:
    archive = DemoArchive(STUDIES).start()
    archive.stop()
    archive.stop()


@pytest.mark.archive
def test_echoscu_and_findscu(archive: DemoArchive) -> None:
    dcmtk("echoscu", archive)
    keys = ["QueryRetrieveLevel=STUDY", "StudyDate=20180701-20180731", "AccessionNumber", "PatientName"]
    text = dcmtk("findscu", archive, "-S", *(part for key in keys for part in ("-k", key)))
    for study in STUDIES:
        assert (study.accession in text) == ("20180701" <= study.study_date <= "20180731")
    assert archive.finds == {"STUDY": 1}


@pytest.mark.archive
def test_movescu_brings_every_instance_byte_for_byte(start: Start, tmp_path: Path) -> None:
    storescp = start(Storescp(tmp_path))
    destinations = {storescp.ae.title: (storescp.ae.host, storescp.ae.port)}
    with DemoArchive(STUDIES, destinations=destinations) as archive:
        for study in STUDIES[:4]:
            uid = f"StudyInstanceUID={study.study_uid}"
            arguments = ["-S", "-aem", storescp.ae.title, "-k", "QueryRetrieveLevel=STUDY", "-k", uid]
            dcmtk("movescu", archive, *arguments)
            assert archive.moves[study.study_uid] == 1
    expected = {i.sop_uid: i for study in STUDIES[:4] for i in study.instances()}
    files = [path for path in storescp.received.rglob("*") if path.is_file()]
    assert len(files) == len(expected)
    for path in files:
        meta = dcmread(path, specific_tags=["SOPInstanceUID"]).file_meta
        sent = b"".join(encode_dataset(expected[meta.MediaStorageSOPInstanceUID], meta.TransferSyntaxUID))
        assert path.read_bytes().endswith(sent)


@pytest.mark.archive
def test_getscu_brings_every_instance_byte_for_byte(archive: DemoArchive, tmp_path: Path) -> None:
    plain = STUDIES[5]  # which DCMTK takes in the only transfer syntaxes that its getscu proposes
    uid = f"StudyInstanceUID={plain.study_uid}"
    arguments = ["-S", "+B", "-od", str(tmp_path), "-k", "QueryRetrieveLevel=STUDY", "-k", uid]
    dcmtk("getscu", archive, *arguments)
    assert archive.gets == {plain.study_uid: 1}
    expected = {i.sop_uid: i for i in plain.instances()}
    files = list(tmp_path.iterdir())
    assert len(files) == len(expected) > 1
    for path in files:
        meta = dcmread(path, specific_tags=["SOPInstanceUID"]).file_meta
        sent = b"".join(encode_dataset(expected[meta.MediaStorageSOPInstanceUID], meta.TransferSyntaxUID))
        assert path.read_bytes().endswith(sent)


def test_levels_of_both_models(archive: DemoArchive) -> None:
    uid = FIRST.study_uid
    with associate(archive) as assoc:
        status, patients = find(assoc, "PATIENT", model=PATIENT_ROOT_FIND, PatientID="000471*")
        assert (status, len(patients)) == (
            0,
            len({s.patient for s in STUDIES if s.patient.patient_id < "000472"}),
        )
        assert find(assoc, "PATIENT", PatientID="0004711") == (0xA900, [])
        assert find(assoc, "NONSENSE") == (0xA900, [])
        status, images = find(assoc, "IMAGE", model=PATIENT_ROOT_FIND, StudyInstanceUID=uid, SOPClassUID="")
    assert [image.SOPInstanceUID for image in images] == [i.sop_uid for i in FIRST.instances()]
    assert images[0].QueryRetrieveLevel == "IMAGE"
    assert images[0].RetrieveAETitle == "DEMO"


def test_names_outside_ascii_are_asked_for_and_answered(archive: DemoArchive) -> None:
    with associate(archive) as assoc:
        _, answers = find(assoc, "STUDY", PatientName="Østergård^Søren", ModalitiesInStudy="")
    assert [str(answer.PatientName) for answer in answers] == ["Østergård^Søren"] * 2
    assert {answer.ModalitiesInStudy for answer in answers} == {"CR", "US"}


def test_moves_at_every_level_are_counted() -> None:
    series, instances = FIRST.series[1], list(FIRST.instances())
    chosen = [instances[0].sop_uid, instances[-1].sop_uid]
    cases: list[tuple[str, dict[str, Any], int]] = [
        ("STUDY", {"StudyInstanceUID": FIRST.study_uid}, 21),
        ("STUDY", {"StudyInstanceUID": [STUDIES[4].study_uid, STUDIES[5].study_uid]}, 3),
        ("SERIES", {"StudyInstanceUID": FIRST.study_uid, "SeriesInstanceUID": series.series_uid}, 8),
        ("IMAGE", {"StudyInstanceUID": FIRST.study_uid, "SOPInstanceUID": chosen}, 2),
        ("PATIENT", {"PatientID": "0004714"}, 2),
    ]
    with receiver() as received, served(received.port) as archive, associate(archive) as assoc:
        for level, keys, count in cases:
            received.requests.clear()
            model = PATIENT_ROOT_MOVE if level == "PATIENT" else STUDY_ROOT_MOVE
            *pending, (final, _) = move(assoc, level, model=model, **keys)
            assert [counters(status) for status, _ in pending] == [
                (done, 0, 0, count - done) for done in range(1, count)
            ]
            assert (final.Status, counters(final)) == (0, (count, 0, 0, None))
            assert len(received.requests) == count
        assert received.associations == len(cases)
        assert received.requests[0].MoveOriginatorApplicationEntityTitle == "CLIENT"


def served(port: int) -> DemoArchive:
    return DemoArchive(STUDIES, destinations={"RECEIVER": ("127.0.0.1", port)})


def test_an_unknown_destination_and_a_bad_identifier(archive: DemoArchive) -> None:
    with associate(archive) as assoc:
        [(final, _)] = move(assoc, "STUDY", to="NOBODY", StudyInstanceUID=FIRST.study_uid)
        assert final.Status == 0xA801
        [(final, _)] = move(assoc, "STUDY", AccessionNumber=FIRST.accession)
        assert final.Status == 0xA900


def test_nothing_matches() -> None:
    with served(free_port()) as archive, associate(archive) as assoc:
        [(final, _)] = move(assoc, "STUDY", StudyInstanceUID="1.2.3")
    assert (final.Status, counters(final)) == (0, (0, 0, 0, None))


def test_a_destination_that_does_not_listen() -> None:
    with served(free_port()) as archive, associate(archive) as assoc:
        [(final, failed)] = move(assoc, "STUDY", StudyInstanceUID=STUDIES[5].study_uid)
    assert (final.Status, counters(final)) == (0xA702, (0, 2, 0, None))
    assert failed is not None
    assert failed.FailedSOPInstanceUIDList == [i.sop_uid for i in STUDIES[5].instances()]


@pytest.mark.parametrize(
    ("stored", "status", "counted"), [(0xA700, 0xA702, (0, 2, 0)), (0xB000, 0xB000, (0, 0, 2))]
)
def test_the_receivers_verdicts_are_counted(stored: int, status: int, counted: tuple[int, ...]) -> None:
    with receiver(stored) as received, served(received.port) as archive, associate(archive) as assoc:
        *_, (final, _) = move(assoc, "STUDY", StudyInstanceUID=STUDIES[5].study_uid)
    assert (final.Status, counters(final)) == (status, (*counted, None))


def test_a_cancel_is_honoured() -> None:
    with receiver() as received, served(received.port) as archive, associate(archive) as assoc:
        asked = identifier("STUDY", StudyInstanceUID=FIRST.study_uid)
        for status, _ in assoc.send_c_move(asked, "RECEIVER", STUDY_ROOT_MOVE, msg_id=5):
            if status.get("NumberOfCompletedSuboperations") == 1:
                assoc.send_c_cancel(5, query_model=STUDY_ROOT_MOVE)
            final = status
        assert final.Status == 0xFE00
        completed, failed, _, remaining = counters(final)
        assert (completed, failed) == (len(received.requests), 0)
        assert remaining == 21 - len(received.requests) > 0
        assert assoc.send_c_echo().Status == 0


def test_associations_are_served_side_by_side() -> None:
    studies = generate_studies(3)
    with DemoArchive(studies) as archive, associate(archive) as one, associate(archive) as other:
        assert find(one, "STUDY", StudyInstanceUID="")[0] == 0
        assert len(find(other, "STUDY", StudyInstanceUID="")[1]) == 3
    assert archive.finds == {"STUDY": 2}
