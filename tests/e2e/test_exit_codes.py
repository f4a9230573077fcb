"""Exit codes: 2 is for the user's input alone, 70 for a defect of Quarry, which is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.cli import main as command
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
    monkeypatch.setattr("dicom_quarry.api.read_job_status", fail)
    assert run(monkeypatch, "status", tmp_path) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    trace = tmp_path / "quarry" / "internal-error.log"
    assert trace.exists() == (code == 70) == ("this is a defect of Quarry" in said.replace("\n", " "))


@pytest.mark.parametrize("owner", [(Resolver, "resolve"), (StudyTask, "run")], ids=["query", "retrieval"])
def test_a_defect_in_a_job_is_one_sentence_and_its_trace_is_in_the_log(
    owner: tuple[type, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        try:
            raise KeyError(NAME)
        except KeyError as error:
            raise LocalProtocolError(NAME) from error

    stage = Stage(tmp_path)
    with ScriptedArchive(STUDIES, destinations={"QUARRY": ("127.0.0.1", stage.port)}) as archive:
        config = stage.config({"main": address(archive)})
        config.write_text("keep-free = 0\n" + config.read_text())
        arguments: tuple[object, ...] = ("extract", stage.cohort(by_accession(STUDIES)), "--from", "main")
        arguments += ("--to", stage.out, "--as", stage.local, "--config", config)
        with monkeypatch.context() as defect:
            defect.setattr(*owner, fail)
            assert run(defect, *arguments) == 70
        said = capsys.readouterr()
        # Without the defect the same command goes on.
        assert run(monkeypatch, *arguments) == 0
    last = said.err.replace("\n", " ")
    assert "internal error (LocalProtocolError)" in last and "Traceback" not in said.out + said.err
    (path,) = [path for path in (stage.out / ".quarry").iterdir() if str(path) in last]
    log = path.read_text()
    assert "in fail" in log and "KeyError" in log and "LocalProtocolError" in log
    assert NAME not in log
