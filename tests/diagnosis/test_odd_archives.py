"""What is wrong is named rightly, with archives that do one thing wrong."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_operations import MoveOperation, Tally
from dicom_quarry.demo.store_scu import StoreSCU
from dicom_quarry.demo.synthetic_studies import DemoInstance, DemoStudy
from dicom_quarry.model import AE
from tests.diagnosis.conftest import Check, Checked
from tests.e2e.test_senders import connect_from_elsewhere
from tests.peers.process import free_port
from tests.scripted import Fault, ScriptedArchive, faults, find_faults
from tests.scripted.faults import PERMANENT, TRANSIENT


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """A quarry.toml whose archive ``main`` is impatient."""
    return tmp_path / "quarry.toml"


class Tried:
    """Checks a scripted archive by the accession of its first study."""

    def __init__(self, check: Check, studies: list[DemoStudy], us: AE, toml: Path) -> None:
        self._check, self._us, self._toml = check, us, toml
        self.studies = studies

    def __call__(
        self, *wrong: Fault, known: AE | None = None, settings: str = "", options: Sequence[object] = ()
    ) -> Checked:
        known = known or self._us
        destinations = {known.title: (known.host, known.port)}
        with ScriptedArchive(self.studies, wrong, destinations=destinations) as archive:
            address = f"SCRIPTED@127.0.0.1:{archive.port}"
            self._toml.write_text(f'[archive.main]\naddress = "{address}"\nsettle = 0.5\n{settings}')
            accession = self.studies[0].accession
            checked = self._check("main", "--config", self._toml, "--accession", accession, *options)
            self.log = archive.log
        assert accession not in checked.out
        assert self.studies[0].patient.patient_id not in checked.out
        return checked


@pytest.fixture
def tried(check: Check, studies: list[DemoStudy], us: AE, toml: Path) -> Tried:
    return Tried(check, studies, us, toml)


def test_a_healthy_one(tried: Tried) -> None:
    checked = tried()
    assert (checked.code, checked.bad) == (0, {})
    assert checked.steps["services"][1].endswith("; C-GET")
    assert checked.steps["C-GET"][0] == "✓"


def test_attributes_that_are_not_answered(tried: Tried) -> None:
    assert tried().steps["attributes"][0] == "✓"
    mark, message = tried(find_faults.Without("SeriesDescription", "ModalitiesInStudy")).steps["attributes"]
    assert mark != "✓"
    assert "no value of ModalitiesInStudy, SeriesDescription for this study" in message


def test_our_title_is_rejected(tried: Tried) -> None:
    checked = tried(faults.Reject(PERMANENT))
    assert (checked.code, list(checked.bad)) == (1, ["association"])
    said = checked.bad["association"]
    assert "does not know the calling AE title QUARRY" in said
    assert "result 1, source 1, reason 3" in said
    assert "ask the PACS team to admit QUARRY from 127.0.0.1 to SCRIPTED" in checked.out


def test_it_is_full_for_now(tried: Tried) -> None:
    checked = tried(faults.Reject(TRANSIENT))
    assert "has reached its limit of associations" in checked.bad["association"]
    assert "try again later" in checked.out


@pytest.mark.parametrize("keyword", ["AccessionNumber", "PatientID", "StudyDate"])
def test_a_key_is_ignored(tried: Tried, keyword: str) -> None:
    checked = tried(find_faults.Ignore(keyword))
    # An archive that ignores a key finds too much by it, and too much is matched again: the rest goes on.
    assert (checked.code, list(checked.bad)) == (1, [f"key {keyword}"])
    assert checked.bad[f"key {keyword}"].startswith("ignored: a value that no study has returns")


def test_a_level_is_not_known(tried: Tried) -> None:
    checked = tried(find_faults.FindStatus(0xC000, level="IMAGE"))
    assert "levels SERIES, IMAGE" in checked.bad


def test_success_and_nothing_arrives(tried: Tried) -> None:
    checked = tried(faults.NothingSent(claimed=True))
    assert list(checked.bad) == ["C-MOVE"]
    assert (
        "reports that it sent 2 instances, and nothing arrived: a firewall, or it has another host or port"
        in (checked.bad["C-MOVE"])
    )


def test_success_of_nothing(tried: Tried) -> None:
    said = tried(faults.NothingSent()).bad["C-MOVE"]
    assert "reports success and sent nothing. It may not know us, or the study is not online" in said


@pytest.mark.slow
def test_silence_instead_of_images(tried: Tried) -> None:
    checked = tried(faults.Silence(0, 60.0), settings="silence = 1")
    assert "stopped answering when it had to send to QUARRY: a firewall" in checked.bad["C-MOVE"]


def test_not_all_arrive(tried: Tried) -> None:
    assert tried(faults.HalfSent()).bad["C-MOVE"].startswith("1 of 2 instances arrived")


def test_it_may_not_retrieve(tried: Tried) -> None:
    checked = tried(faults.MoveStatus(0x0124))
    assert "does not authorise this AE title (0124)" in checked.bad["C-MOVE"]
    assert "ask the PACS team to allow QUARRY to retrieve" in checked.out


def test_what_comes_late_is_waited_for(tried: Tried) -> None:
    assert tried(faults.Late(0.3), settings="settle = 30").bad == {}


class FromElsewhere(Fault):
    """All is sent from 127.0.0.2, for the title ``called``."""

    def __init__(self, called: str) -> None:
        super().__init__()
        self._called = called

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("dicom_quarry.demo.store_scu.socket.create_connection", connect_from_elsewhere)
            move.destination = self._called
            archive.destinations[self._called] = address
            tally = Tally(len(instances))
            try:
                with StoreSCU(address, self._called, archive.title, instances) as store:
                    archive.send(move, store, instances, tally)
            except Exception:  # noqa: BLE001 - refused, which is what is wanted
                for instance in instances[len(instances) - tally.remaining :]:
                    tally.count(instance.sop_uid, 0xA700)
            move.respond(tally.final_status, tally)
        return True


def test_another_node_sends(tried: Tried, toml: Path) -> None:
    checked = tried(FromElsewhere("QUARRY"), settings='senders = ["10.9.0.0/16"]', options=["--save"])
    assert (checked.code, list(checked.bad)) == (1, ["C-MOVE"])
    assert "sends from 127.0.0.2, which is not its own address" in checked.bad["C-MOVE"]
    line = 'senders = ["10.9.0.0/16", "127.0.0.2"]'
    assert f"add  {line}  to the archive's table" in checked.out
    assert line in toml.read_text()


def test_another_title_is_called(tried: Tried) -> None:
    checked = tried(FromElsewhere("OTHER"))
    assert "it called the AE title OTHER, but this receiver is" in checked.bad["C-MOVE"]
    assert "register our receiver under its own AE title: AE title QUARRY" in checked.out


def test_a_stranger_does_not_become_a_sender(tried: Tried, toml: Path) -> None:
    class Stranger(FromElsewhere):
        """Sends from 127.0.0.2 an instance of the study that the archive does not list, and nothing else."""

        def choose(
            self, archive: ScriptedArchive, instances: Sequence[DemoInstance]
        ) -> Sequence[DemoInstance]:
            return [replace(instances[0], number=99)]

    checked = tried(Stranger("QUARRY"), options=["--save"])
    assert "a sender at 127.0.0.2 was refused: its address" in checked.bad["C-MOVE"]
    assert "senders" not in toml.read_text()


def test_the_only_road_is_saved(tried: Tried, toml: Path) -> None:
    checked = tried(known=AE("OTHER", "127.0.0.1", 104), options=["--save"])
    assert list(checked.bad) == ["C-MOVE"]
    assert checked.steps["C-GET"][0] == "✓"
    assert 'retrieve = "get"' in toml.read_text()


def test_our_port_is_taken(tried: Tried, us: AE) -> None:
    with closing(socket.create_server((us.host, us.port))):
        checked = tried()
    assert (checked.code, list(checked.bad)) == (1, ["our port"])
    assert f"port {us.port} is held by" in checked.bad["our port"]
    assert checked.steps["C-MOVE"] == ("–", "not tested: our port is not free")
    assert not [seen for seen in tried.log if seen.kind == "move"]


@pytest.mark.parametrize("status", [0x0000, 0xFE00])
def test_a_result_cap_is_found_and_saved(tried: Tried, toml: Path, status: int) -> None:
    checked = tried(find_faults.Capped(5, status), options=["--probe", "--save"])
    assert checked.code == 0
    assert checked.steps["result cap"] == ("–", "the archive never returns more than 5 results")
    assert "result-cap = 5" in toml.read_text()


def test_no_cap(tried: Tried) -> None:
    checked = tried(options=["--probe"])
    assert checked.steps["result cap"] == ("✓", "none found, with up to 12 results")
    # Asked by dates, never by nothing.
    assert all(any(seen.keys.values()) for seen in tried.log if seen.kind == "find")


def test_wrong_port(tried: Tried, us: AE) -> None:
    checked = tried(known=AE(us.title, us.host, free_port()))
    assert "could not send to QUARRY" in checked.bad["C-MOVE"]
