"""Exit codes: 2 is for the user's input alone, 70 for a defect of Quarry, which is one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dicom_quarry.cli import main as command
from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies
from dicom_quarry.errors import (
    ConfigError,
    ConnectionLost,
    InputError,
    InstanceRefused,
    LedgerError,
    LocalProtocolError,
    OperatorActionRequired,
    PortInUse,
    QueryFailed,
    RemoteProtocolError,
    StartError,
)
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.extraction.study_task import StudyTask
from tests.faults.scenario import STUDIES, by_accession
from tests.faults.scenario_runner import Stage, address
from tests.scripted.archive import ScriptedArchive

NAME = "Doe^John"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    monkeypatch.setattr("sys.argv", ["quarry", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 2),
        (ConfigError("x"), 2),
        (StartError("x"), 3),
        (PortInUse("x"), 3),
        (LedgerError("x"), 3),
        (ConnectionLost("x"), 3),
        (QueryFailed("x", status=0xA700), 3),
        (FileNotFoundError("x"), 3),
        (OperatorActionRequired("x"), 4),
        (LocalProtocolError("x"), 70),
        (RemoteProtocolError("x"), 70),
        (InstanceRefused("x", status=0xA700), 70),
        (KeyError("x"), 70),
        (RecursionError("x"), 70),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_cause_has_its_exit_code(
    error: Exception,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("dicom_quarry.api.open_job", fail)
    assert run(monkeypatch, "status", tmp_path) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    trace = tmp_path / "quarry" / "internal-error.log"
    assert trace.exists() == (code == 70) == ("this is a defect of Quarry" in said.replace("\n", " "))


def test_ctrl_c_before_a_job_has_begun_is_not_a_failure_of_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dicom_quarry.api.open_job", interrupt)
    assert run(monkeypatch, "status", tmp_path) == 4
    assert "stopped by Ctrl-C" in capsys.readouterr().err


def fail(*_: object) -> None:
    try:
        raise KeyError(NAME)
    except KeyError as error:
        raise LocalProtocolError(NAME) from error


def arguments(stage: Stage, archive: ScriptedArchive, studies: Sequence[DemoStudy]) -> tuple[object, ...]:
    config = stage.config({"main": address(archive)})
    config.write_text("keep-free = 0\n" + config.read_text())
    command: tuple[object, ...] = ("extract", stage.cohort(by_accession(studies)), "--from", "main")
    return (*command, "--to", stage.out, "--as", stage.local, "--config", config)


@pytest.mark.parametrize(
    "owner",
    [(Resolver, "resolve"), (StudyTask, "list_instances"), (StudyTask, "run")],
    ids=lambda owner: f"{owner[0].__name__}.{owner[1]}",
)
def test_a_defect_ends_its_row_alone_and_its_trace_is_in_the_log(
    owner: tuple[type, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage, calls, usual = Stage(tmp_path), iter(range(1)), getattr(*owner)

    def fail_once(*given: object) -> object:
        if next(calls, None) is not None:
            fail()
        return usual(*given)

    with ScriptedArchive(STUDIES, destinations={"QUARRY": ("127.0.0.1", stage.port)}) as archive:
        command = arguments(stage, archive, STUDIES)
        with monkeypatch.context() as defect:
            defect.setattr(*owner, fail_once)
            assert run(defect, *command) == 70
        said = capsys.readouterr()
        rows = (stage.out / "report.csv").read_text()
        assert rows.count("internal_error") == 1 and rows.count("all_listed_stored") == len(STUDIES) - 1
        # A restart does not try it again, and quarry retry does.
        assert run(monkeypatch, *command) == 70
        assert "Nothing to do" in capsys.readouterr().out
        assert run(monkeypatch, "retry", stage.out) == 0
    assert "Traceback" not in said.out + said.err
    log = (stage.out / ".quarry" / "quarry.log").read_text()
    assert "in fail" in log and "KeyError" in log and "LocalProtocolError" in log
    assert NAME not in log


@pytest.mark.parametrize("owner", [(Resolver, "resolve"), (StudyTask, "run")], ids=["query", "retrieval"])
def test_three_defects_of_one_kind_stop_the_job_with_a_sentence(
    owner: tuple[type, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage, studies = Stage(tmp_path), generate_studies(5, seed=3, images=1)
    with ScriptedArchive(studies, destinations={"QUARRY": ("127.0.0.1", stage.port)}) as archive:
        command = arguments(stage, archive, studies)
        with monkeypatch.context() as defect:
            defect.setattr(*owner, fail)
            assert run(defect, *command) == 70
        said = capsys.readouterr()
        # Without the defect the same command goes on with the others.
        assert run(monkeypatch, *command) == 70
        rows = (stage.out / "report.csv").read_text()
        ended = rows.count("internal_error")
        assert 3 <= ended < len(studies) and rows.count("all_listed_stored") == len(studies) - ended
    last = said.err.replace("\n", " ")
    assert "internal error (LocalProtocolError)" in last and "in a row" in last
    assert "Traceback" not in said.out + said.err
    assert str(stage.out / ".quarry" / "quarry.log") in last
    assert NAME not in (stage.out / ".quarry" / "quarry.log").read_text()
