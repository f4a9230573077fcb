"""``progress=True``: one output that is updated in a notebook, silence in a script."""

from __future__ import annotations

import _thread
import threading
from pathlib import Path

import pytest

import dicom_quarry
from dicom_quarry.api import progress as progress_module
from tests.e2e.expected_outcomes import demo_holding
from tests.e2e.logging_archive import LoggingArchive, Office, Pause
from tests.notebook.conftest import TABLE, Kernel, Site


def test_each_call_has_one_output_which_ends_with_the_result(
    tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_module, "_INTERVAL", 0.0)
    seen: list[str] = []

    class Mine(dicom_quarry.JobObserver):
        def on_message(self, message: str) -> None:
            seen.append(message)

        def on_progress(self, snapshot: dicom_quarry.Snapshot) -> None:
            seen.append(snapshot.waiting_for)

    with LoggingArchive(demo_holding()) as archive:
        office = Office(tmp_path, archive)
        result = office.extract(TABLE, progress=True, observer=Mine())
        dicom_quarry.plan(tmp_path / "cohort.csv", config=office.settings, progress=True)
        dicom_quarry.retry(tmp_path / "out", progress=True)
        dicom_quarry.resume(tmp_path / "out", progress=True)
        dicom_quarry.verify(tmp_path / "out", progress=True).run()
    assert seen, "the observer of the user is called, too"
    ends = [updates[-1]["text/plain"] for updates in kernel.outputs.values()]
    assert [end.split(":")[0] for end in ends] == ["Done"] * 5
    assert result.summary.verdict in ends[0]
    assert "byte for byte" in ends[4]
    assert len(next(iter(kernel.outputs.values()))) > 2, "it was updated"
    for updates in kernel.outputs.values():
        assert "MARK" not in str(updates)
        assert "QA0000" not in str(updates)
    assert not capsys.readouterr().out


def test_an_interrupted_kernel(tmp_path: Path, kernel: Kernel) -> None:
    pause = Pause(after=1)
    with LoggingArchive(demo_holding(), [pause]) as archive:

        def interrupt() -> None:
            assert pause.reached.wait(60)
            _thread.interrupt_main()

        threading.Thread(target=interrupt).start()
        office = Office(tmp_path, archive)
        with pytest.raises(KeyboardInterrupt):
            office.extract(["Accession", "QA00003", "QA00004"], progress=True)
        [updates] = kernel.outputs.values()
        assert updates[-1]["text/plain"].startswith("Interrupted")
        pause.go_on.set()
        assert dicom_quarry.resume(tmp_path / "out").exit_code == 0, "the job goes on"


def test_an_output_that_cannot_be_sent_never_ends_a_job(
    tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("the notebook went away")

    monkeypatch.setattr(sys.modules["IPython.display"], "display", broken)
    with LoggingArchive(demo_holding()) as archive, pytest.warns(UserWarning, match="went away"):
        assert Office(tmp_path, archive).extract(["Accession", "QA00003"], progress=True).exit_code == 0


def test_a_mistake_has_no_output(site: Site, kernel: Kernel) -> None:
    with pytest.raises(dicom_quarry.InputError, match="progress"):
        dicom_quarry.verify(site.folder / "out", progress="yes")  # type: ignore[arg-type]
    assert not kernel.outputs
