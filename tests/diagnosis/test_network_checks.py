"""The steps up to the services, with an archive that refuses what a test tells it to."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.settings import Settings
from dicom_quarry.config.time_window import Schedule
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, StepStatus
from dicom_quarry.diagnosis.network_checks import check_network
from dicom_quarry.diagnosis.runner import run_checks
from dicom_quarry.model import AE
from tests.diagnosis.conftest import ACCESSION
from tests.peers.orthanc import Orthanc
from tests.peers.process import free_port
from tests.peers.relay import C_ECHO, RelayedMessage
from tests.peers.scripted import SUCCESS, Conversation, ScriptedArchive

QUERY = "query, Study Root"
VERIFICATION = "1.2.840.10008.1.1"
PATIENT, STUDY = "1.2.840.10008.5.1.4.1.2.1.", "1.2.840.10008.5.1.4.1.2.2."


def walked(peer: AE, **settings: object) -> tuple[dict[str, CheckStep], CheckContext]:
    profile = ArchiveProfile.model_validate({"name": "main", "address": peer, **settings})
    bench = CheckContext(Settings(archives=(profile,), to=Path(), local=AE("QUARRY", "", free_port())))
    return {step.name: step for step in check_network(bench)}, bench


def refusing(*refused: str, echo: int = SUCCESS) -> tuple[dict[str, CheckStep], CheckContext]:
    def script(talk: Conversation, request: RelayedMessage) -> None:
        assert request.field == C_ECHO, "only the echo is asked"
        talk.answer(request, echo)

    with ScriptedArchive(script, refused=refused) as archive:
        return walked(archive.ae)


def test_all_is_offered() -> None:
    shown, bench = refusing()
    assert {step.status for step in shown.values()} == {StepStatus.GOOD}
    assert bench.findings.usable_models == {"study": True, "patient": True}
    assert bench.findings.our_address == "127.0.0.1"


def test_no_c_get() -> None:
    shown, _ = refusing(f"{STUDY}3", f"{PATIENT}3")
    assert shown["services"].status is StepStatus.GOOD
    assert shown["services"].message.endswith("no C-GET")


@pytest.mark.parametrize("missing", ["1", "2"])
def test_patient_root_alone(missing: str) -> None:
    shown, bench = refusing(f"{STUDY}{missing}")
    assert shown["services"].status is StepStatus.NOTE
    assert 'model = "patient"' in shown["services"].remedy
    assert bench.findings.usable_models == {"study": False, "patient": True}


def test_no_model() -> None:
    shown, _ = refusing(f"{STUDY}2", f"{PATIENT}1")
    assert shown["services"].status is StepStatus.BAD
    assert "allow QUARRY to query and retrieve" in shown["services"].remedy


def test_no_echo_is_offered() -> None:
    shown, _ = refusing(VERIFICATION)
    assert shown["C-ECHO"].status is StepStatus.NOTE
    assert "does not offer C-ECHO to QUARRY" in shown["C-ECHO"].message
    assert shown["services"].status is StepStatus.GOOD


def test_neither_echo_nor_queries_are_offered() -> None:
    shown, _ = refusing(VERIFICATION, f"{STUDY}1")
    assert shown["C-ECHO"].status is StepStatus.BAD
    assert "services" not in shown


def test_the_echo_fails() -> None:
    shown, _ = refusing(echo=0x0124)
    assert (shown["C-ECHO"].status, "0124" in shown["C-ECHO"].message) == (StepStatus.NOTE, True)


def test_tls_is_not_spoken_there(orthanc: Orthanc) -> None:
    shown, _ = walked(orthanc.ae, tls="query")
    assert (shown["port"].status, shown["association"].status) == (StepStatus.GOOD, StepStatus.BAD)
    assert "port for TLS" in shown["association"].remedy
    assert "none" not in shown["association"].remedy


def test_what_an_archive_says_of_the_study_is_not_repeated() -> None:
    def script(talk: Conversation, request: RelayedMessage) -> None:
        if request.field == C_ECHO:
            talk.answer(request, SUCCESS)
        else:
            talk.answer(request, 0xC000, comment=f"no luck with {ACCESSION}")

    with ScriptedArchive(script) as archive:
        _, bench = walked(archive.ae)
        said = [
            step.message for step in run_checks(bench, Schedule(), accession=ACCESSION) if step.name == QUERY
        ]
    assert len(said) == 1
    assert "no luck with …" in said[0]
