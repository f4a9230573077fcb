"""What the command does around its steps."""

from __future__ import annotations

import os
import pty
import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import DemoStudy
from dicom_quarry.model import AE
from tests.diagnosis.conftest import ACCESSION, Check
from tests.e2e.command import QUARRY, Running, quarry, until
from tests.e2e.paused_archive import GatedArchive
from tests.peers.orthanc import Orthanc
from tests.peers.process import listens


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "which archive?"),
        (("--from", "nonsense"), "no archive is called 'nonsense'"),
        (("--from", "A@127.0.0.1:1,B@127.0.0.1:2"), "Check one at a time"),
    ],
)
def test_usage(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    done = quarry("check", *options, cwd=tmp_path)
    assert done.code == 2
    assert said in done.err


def test_outside_the_window_nothing_is_asked(tmp_path: Path, orthanc: Orthanc) -> None:
    # A window of one minute on the day before yesterday's weekday is never open in this test.
    toml = f'[archive.main]\naddress = "{orthanc.ae}"\nwindow = "{_closed()}"\ntime-zone = "UTC"\n'
    (tmp_path / "quarry.toml").write_text(toml)
    done = quarry("check", "--from", "main", cwd=tmp_path)
    assert (done.code, done.out) == (3, "")
    assert "outside the time window: the archive may not be queried until" in done.err


def _closed() -> str:
    day = datetime.now(UTC) - timedelta(days=2)
    return f"{day:%a} 00:00-00:01"


def test_a_letter_to_standard_output_stands_there_alone(check: Check, orthanc: Orthanc, us: AE) -> None:
    done = check(orthanc.ae, "--letter", "-")
    assert done.code == 0
    assert done.out.startswith("# Access for a research extraction: QUARRY and ORTHANC")
    assert "| Quarry, this computer" in done.out


def test_a_letter_is_not_written_over(check: Check, orthanc: Orthanc, tmp_path: Path) -> None:
    page = tmp_path / "letter.md"
    assert check(orthanc.ae, "--letter", page).code == 0
    page.write_text("filled in")
    assert check(orthanc.ae, "--letter", page).code == 2
    assert page.read_text() == "filled in"


def test_colour_on_a_terminal_only(orthanc: Orthanc, us: AE, tmp_path: Path) -> None:
    orthanc.register(us)
    command = ("check", "--from", orthanc.ae, "--as", f"QUARRY@{us.host}:{us.port}", "--accession", ACCESSION)
    assert "\x1b" not in quarry(*command, cwd=tmp_path).out
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(
        [str(QUARRY), *map(str, command)], stdout=theirs, cwd=tmp_path, env=environment
    ) as child:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the end, as a terminal has it
            while data := os.read(ours, 65536):
                shown += data
        os.close(ours)
    assert child.returncode == 0
    assert "\x1b[32m✓" in shown.decode()


def test_terminated_in_the_middle_it_leaves_nothing(tmp_path: Path, us: AE, studies: list[DemoStudy]) -> None:
    with GatedArchive(studies) as archive:
        archive.destinations["QUARRY"] = (us.host, us.port)
        archive.hold_after = 1
        command = ("check", "--from", archive.ae, "--as", f"QUARRY@{us.host}:{us.port}")
        with Running(
            tmp_path / "out.txt", *command, "--accession", studies[0].accession, cwd=tmp_path
        ) as run:
            until(run, "the first instance", archive.held.is_set)
            assert len(list(tmp_path.glob(".quarry-check-*"))) == 1
            run.terminate()
            archive.open()
            assert run.wait() == 3
    assert not list(tmp_path.glob(".quarry-check-*"))
    assert not listens(us.port)
