"""What is wrong is named rightly, with archives that are real."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.model import AE
from tests.diagnosis.conftest import ACCESSION, INSTANCES, Check
from tests.peers.dcmtk import Dcmqrscp
from tests.peers.fixtures import Start
from tests.peers.orthanc import Orthanc
from tests.peers.process import free_port

STEPS = ["port", "association", "C-ECHO", "services", "our port", "clock", "disk"]
OF_A_STUDY = [
    "query, Study Root",
    "query, Patient Root",
    "key AccessionNumber",
    "key PatientID",
    "key StudyDate",
    "levels SERIES, IMAGE",
    "attributes",
    "C-MOVE",
]
ALL = [*STEPS, *OF_A_STUDY, "C-GET", "transfer syntaxes"]


def test_nobody_listens(check: Check) -> None:
    port = free_port()
    checked = check(f"PACS@127.0.0.1:{port}", "--accession", ACCESSION)
    assert checked.code == 1
    assert list(checked.steps) == ["port", "our port", "clock", "disk"]
    assert list(checked.bad) == ["port"]
    assert f"127.0.0.1:{port} refused the connection" in checked.bad["port"]
    assert f"allow connections from 127.0.0.1 to 127.0.0.1, TCP port {port}" in checked.out
    assert "--letter FILE" in checked.out


def test_a_name_that_nobody_knows(check: Check) -> None:
    checked = check("PACS@pacs.invalid:104")
    assert checked.code == 1
    assert list(checked.bad) == ["name"]
    assert "pacs.invalid is unknown" in checked.bad["name"]
    assert "port" not in checked.steps


def test_orthanc_healthy(check: Check, orthanc: Orthanc, us: AE) -> None:
    orthanc.register(us)
    checked = check(orthanc.ae, "--accession", ACCESSION)
    assert (checked.code, checked.bad) == (0, {})
    assert list(checked.steps) == ALL
    assert checked.steps["C-MOVE"] == ("✓", f"{INSTANCES} of {INSTANCES} instances arrived")
    assert checked.steps["C-GET"] == ("✓", f"{INSTANCES} of {INSTANCES} instances arrived")
    assert checked.steps["levels SERIES, IMAGE"] == ("✓", f"2 series, {INSTANCES} instances listed")
    assert checked.steps["transfer syntaxes"] == ("✓", "Explicit VR Little Endian")
    assert checked.steps["services"][1] == "C-FIND and C-MOVE in Study Root and Patient Root; C-GET"


def test_dcmqrscp_healthy(check: Check, dcmqrscp: Dcmqrscp, us: AE) -> None:
    dcmqrscp.register(us)
    checked = check(dcmqrscp.ae, "--accession", ACCESSION)
    assert (checked.code, checked.bad) == (0, {})
    assert list(checked.steps) == ALL
    assert checked.steps["C-MOVE"] == ("✓", f"{INSTANCES} of {INSTANCES} instances arrived")


@pytest.mark.parametrize("disabled", [False, True])
def test_an_archive_that_is_asked_by_c_get(
    check: Check, files: list[Path], start: Start, tmp_path: Path, disabled: bool
) -> None:
    server = Dcmqrscp(tmp_path / "archive", extra=["--disable-get"] if disabled else [])
    server.load(files)
    start(server)
    toml = tmp_path / "quarry.toml"
    toml.write_text(f'[archive.main]\naddress = "{server.ae}"\nretrieve = "get"\n')
    checked = check("main", "--config", toml, "--accession", ACCESSION)
    assert checked.steps.keys().isdisjoint({"C-MOVE"})
    if disabled:
        assert (checked.code, list(checked.bad)) == (1, ["services"])
        assert "with both C-FIND and C-GET (C-MOVE)" in checked.bad["services"]
    else:
        assert (checked.code, checked.bad) == (0, {})
        assert checked.steps["services"][1] == "C-FIND and C-GET in Study Root and Patient Root; C-MOVE"
        assert checked.steps["our port"][0] == "–"
        assert checked.steps["C-GET"] == ("✓", f"{INSTANCES} of {INSTANCES} instances arrived")


def test_without_an_accession_nothing_is_queried(check: Check, orthanc: Orthanc) -> None:
    checked = check(orthanc.ae)
    assert checked.code == 0
    assert list(checked.steps) == STEPS
    assert "To show it with one study, add: --accession" in checked.out


def test_orthanc_does_not_know_us(check: Check, orthanc: Orthanc, us: AE) -> None:
    for title in orthanc.get("/modalities"):
        orthanc.request("DELETE", f"/modalities/{title}")
    checked = check(orthanc.ae, "--accession", ACCESSION)
    assert (checked.code, list(checked.bad)) == (1, ["C-MOVE"])
    assert (
        "(C000) and sent nothing. Probably it does not know QUARRY as a destination" in checked.bad["C-MOVE"]
    )
    registration = f"AE title QUARRY, address 127.0.0.1, port {us.port}"
    assert f"register our receiver as a destination: {registration}" in checked.out
    assert checked.steps["C-GET"][0] == "✓"
    assert 'put retrieve = "get" in quarry.toml' in checked.out


def test_dcmqrscp_does_not_know_us(check: Check, dcmqrscp: Dcmqrscp, us: AE) -> None:
    dcmqrscp.forget()
    checked = check(dcmqrscp.ae, "--accession", ACCESSION)
    assert (checked.code, list(checked.bad)) == (1, ["C-MOVE"])
    assert checked.bad["C-MOVE"] == "the archive does not know QUARRY as a destination (A801)"
    assert f"AE title QUARRY, address 127.0.0.1, port {us.port}" in checked.out


def test_orthanc_sends_to_the_wrong_port(check: Check, orthanc: Orthanc, us: AE) -> None:
    orthanc.register(AE(us.title, us.host, free_port()))
    checked = check(orthanc.ae, "--accession", ACCESSION)
    assert (checked.code, list(checked.bad)) == (1, ["C-MOVE"])
    # Orthanc answers this as it answers an unknown destination: both have to be asked for.
    assert "or has another host or port for it" in checked.bad["C-MOVE"]


def test_dcmqrscp_sends_to_the_wrong_port(check: Check, dcmqrscp: Dcmqrscp, us: AE) -> None:
    dcmqrscp.register(AE(us.title, us.host, free_port()))
    checked = check(dcmqrscp.ae, "--accession", ACCESSION)
    assert (checked.code, list(checked.bad)) == (1, ["C-MOVE"])
    assert (
        "could not send to QUARRY (A702), and nothing arrived: it has another host" in checked.bad["C-MOVE"]
    )
    assert f"it should be: AE title QUARRY, address 127.0.0.1, port {us.port}" in checked.out


def test_no_such_study(check: Check, orthanc: Orthanc) -> None:
    checked = check(orthanc.ae, "--accession", "NOBODYS")
    assert (checked.code, list(checked.bad)) == (1, ["query, Study Root"])
    assert "has no study with the accession" in checked.bad["query, Study Root"]
    assert "C-MOVE" not in checked.steps
