"""Whole jobs over DICOMweb, with a server that misbehaves."""

from __future__ import annotations

import socket
import threading
from datetime import date
from pathlib import Path

import pytest

from dicom_quarry.demo.dicomweb_services import WebRequest, WebResponse
from dicom_quarry.demo.synthetic_studies import CR, US, generate_studies, make_study
from dicom_quarry.errors import StartError
from dicom_quarry.system.atomic_file import atomic_write_text
from tests.e2e.command import check_folder
from tests.faults.dicomweb_faults import SCENARIOS, WebScenario
from tests.faults.documented_tests import shows
from tests.faults.scenario import COMPLETE, PENDING, STUDIES, by_accession
from tests.faults.scenario_runner import Stage, outcomes, stored
from tests.scripted.web import ScriptedWeb, WebFault
from tests.scripted.web_faults import Answer, CutBody, Guarded, anything, file_of, web_page


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_fault(scenario: WebScenario, stage: Stage) -> None:
    accessions = dict.fromkeys(study.accession for study in scenario.studies)
    with ScriptedWeb(scenario.studies, scenario.faults()) as web:
        result = stage.extract("\n".join(["Accession", *accessions]), {"main": web.base_url}, {})
        log = list(web.log)
    print(*stage.messages, sep="\n")
    assert outcomes(result) == list(scenario.rows)
    assert stored(stage.out, scenario.studies) == (*scenario.stored, 0)
    assert result.exit_code == scenario.exit_code
    if scenario.requests is not None:
        assert tuple(_requests(log, study.study_uid) for study in scenario.studies) == scenario.requests
    if scenario.searches is not None:
        assert sum(one.is_search for one in log) == scenario.searches
    for words in scenario.messages:
        assert any(words in message for message in stage.messages), words
    text = "\n".join([*stage.messages, (stage.out / ".quarry" / "quarry.log").read_text()])
    assert not any(word in text for word in scenario.silent)
    check_folder(stage.out)


def _requests(log: list[WebRequest], study_uid: str) -> str:
    mine = [one for one in log if not one.is_search and study_uid in one.query.values("StudyInstanceUID")]
    return " ".join(one.query.level for one in mine)


@shows(29, "a token expires half-way", "reads it again, once, and goes on by itself")
def test_a_token_expires(stage: Stage) -> None:
    token = stage.folder / "token"
    token.write_text("1")

    class Changes(Guarded):
        """The file holds the next token by the time that the last one is refused."""

        lock = threading.Lock()

        def intercept(self, web: ScriptedWeb, request: WebRequest) -> WebResponse | None:
            with self.lock:
                refused = super().intercept(web, request)
                if refused is not None and request.headers["Authorization"] == f"Bearer {token.read_text()}":
                    with atomic_write_text(token) as file:
                        file.write(str(int(token.read_text()) + 1))
                return refused

    with ScriptedWeb(STUDIES, [Changes("1", "2", "3", "4", "5", uses=3)]) as web:
        result = stage.extract(by_accession(), {"main": web.base_url}, {"http": Access(token)})
        assert sum(one.headers["Authorization"] == "Bearer 2" for one in web.log) >= 3
    assert outcomes(result) == [COMPLETE, COMPLETE]
    log = (stage.out / ".quarry" / "quarry.log").read_text()
    assert "Bearer" not in log
    check_folder(stage.out)


class Access(dict[str, str]):
    """[archive.NAME.http] as an inline table."""

    def __init__(self, token: Path) -> None:
        super().__init__({"token-file": str(token)})


@shows(
    29, "401: a token that is good for nothing", "does not start; names the place of the credentials (exit 3)"
)
def test_no_access(stage: Stage) -> None:
    with ScriptedWeb(STUDIES, [Answer(401, which=anything)]) as web, pytest.raises(StartError) as refused:
        stage.extract(by_accession(), {"main": web.base_url}, {})
    assert "[archive.NAME.http]" in str(refused.value)


@shows(29, "401 from the middle of the job on", "stops and shows what to do; the rows stay pending")
def test_access_is_lost(stage: Stage) -> None:
    with ScriptedWeb(STUDIES, [Answer(401, which=lambda request: not request.is_search)]) as web:
        result = stage.extract(by_accession(), {"main": web.base_url}, {})
    assert (outcomes(result), result.exit_code) == ([PENDING, PENDING], 4)
    with ScriptedWeb(STUDIES, port=web.port) as web:
        result = stage.extract(by_accession(), {"main": web.base_url}, {})
    assert outcomes(result) == [COMPLETE, COMPLETE]


@shows(29, "no DICOMweb at this address: a web page", "does not start, and reports that (exit 3)")
def test_another_address(stage: Stage) -> None:
    with ScriptedWeb(STUDIES, [web_page(anything)]) as web, pytest.raises(StartError, match="web page"):
        stage.extract(by_accession(), {"main": web.base_url}, {})


@shows(29, "a redirect to another server", "is not followed: no other server sees the credentials (exit 3)")
def test_sent_elsewhere(stage: Stage) -> None:
    with ScriptedWeb(STUDIES) as other:
        away = Answer(302, headers={"Location": f"{other.base_url}/studies"}, which=anything)
        with ScriptedWeb(STUDIES, [away]) as web, pytest.raises(StartError, match="another server"):
            stage.extract(by_accession(), {"main": web.base_url}, {})
        assert not other.log


class _EveryThird(WebFault):
    def __init__(self) -> None:
        super().__init__()
        self._cut = CutBody("chunks", parts=1)
        self._count = 0

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        self._count += not request.is_search
        cut = not request.is_search and request.query.level == "STUDY" and self._count % 3 == 0
        return self._cut.reply(web, request, reply) if cut else reply


@shows(29, "every third body is cut", "the job ends complete by itself")
def test_bodies_are_cut_again_and_again(stage: Stage) -> None:
    studies = generate_studies(9, seed=31, series=2, images=2)
    with ScriptedWeb(studies, [_EveryThird()]) as web:
        result = stage.extract(by_accession(studies), {"main": web.base_url}, {}, parallel=3)
    assert outcomes(result) == [COMPLETE] * 9
    check_folder(stage.out)


@shows(
    21,
    "compressed and big-endian images over WADO-RS",
    "transfer-syntax=*: the files are those of the archive",
)
def test_files_come_as_they_are_stored(stage: Stage) -> None:
    patient = STUDIES[0].patient
    study = make_study(patient, "A21", date(2020, 1, 1), (US, 2), (CR, 1))
    with ScriptedWeb([study]) as web:
        result = stage.extract(by_accession([study]), {"main": web.base_url}, {})
        assert {one.headers["Accept"] for one in web.requests(search=False)} == {
            'multipart/related; type="application/dicom"; transfer-syntax=*'
        }
    assert outcomes(result) == [COMPLETE]
    files = {path.stem: path.read_bytes() for path in stage.out.rglob("*.dcm")}
    expected = {instance.sop_uid: file_of(instance) for instance in study.instances()}
    assert files == expected


def test_no_port_is_taken_where_nothing_is_sent(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", stage.port)), ScriptedWeb(STUDIES) as web:
        result = stage.extract(by_accession(), {"main": web.base_url}, {})
    assert outcomes(result) == [COMPLETE, COMPLETE]
