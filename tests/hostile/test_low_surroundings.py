"""A poor machine: closed streams, old terminals, names that are no text, a full disk of the record."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.e2e.command import PATIENCE, Done
from tests.e2e.command import quarry as quarry_elsewhere
from tests.e2e.file_systems import small_disk
from tests.peers.process import free_port

pytestmark = pytest.mark.hostile

STUDIES = generate_studies(2, seed=16, images=2)
QUARRY = (sys.executable, "-m", "dicom_quarry")


@pytest.fixture
def archive() -> Iterator[DemoArchive]:
    with DemoArchive(STUDIES) as running:
        yield running


def extract(work: Path, archive: DemoArchive, out: object, *more: object) -> list[object]:
    cohort, port = work / "cohort.csv", free_port()
    cohort.write_text("\n".join(["Accession", *(study.accession for study in STUDIES)]) + "\n")
    archive.destinations["QUARRY"] = ("127.0.0.1", port)
    remote = f"{archive.title}@{archive.host}:{archive.port}"
    to = ["--as", f"QUARRY@127.0.0.1:{port}", "--to", out, "--no-diagnosis"]
    return ["extract", cohort, "--from", remote, *to, *more]


def quarry(*words: object, shell: str = "", **variables: str) -> Done:
    """Run a command; ``shell`` are redirections."""
    command = [os.fsencode(str(word)) for word in (*QUARRY, *words)]
    done = subprocess.run(
        [b"sh", b"-c", f'exec "$@" {shell}'.encode(), b"sh", *command],
        env={**os.environ, **variables},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    out, err = done.stdout.decode("latin-1"), done.stderr.decode("latin-1")
    assert "Traceback" not in err, err
    return Done(done.returncode, out, err)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(tmp_path: Path, archive: DemoArchive, closed: str) -> None:
    out = tmp_path / "out"
    assert quarry(*extract(tmp_path, archive, out), shell=closed).code == 0
    assert len(list(out.rglob("*.dcm"))) == 4
    assert quarry_elsewhere("verify", out).code == 0


def test_a_latin_1_terminal_and_letters_that_it_does_not_have(tmp_path: Path, archive: DemoArchive) -> None:
    out = tmp_path / "山田"
    assert quarry(*extract(tmp_path, archive, out), PYTHONIOENCODING="latin-1").code == 0
    done = quarry("report", out, PYTHONIOENCODING="latin-1")
    assert done.code == 0
    assert "\\u5c71\\u7530" in done.out


def test_a_folder_whose_name_is_no_text_is_refused_with_a_sentence(
    tmp_path: Path, archive: DemoArchive
) -> None:
    done = quarry(*extract(tmp_path, archive, os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")))
    assert done.code == 2
    assert "is not text in the encoding of this system" in done.err


def test_standard_output_that_is_full_is_a_sentence(tmp_path: Path, archive: DemoArchive) -> None:
    done = quarry("--help", shell=">/dev/full")
    assert done.code == 4
    assert "disk full" in done.err


def test_a_full_disk_of_the_record_is_exit_4_and_the_job_goes_on_later(
    tmp_path: Path, archive: DemoArchive
) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        state, filler = disk / "state", disk / "filler"
        command = extract(tmp_path, archive, tmp_path / "out", "--state", state)
        with filler.open("wb") as file:
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            file.write(bytes(free - 64 * 1024))
        done = quarry_elsewhere(*command)
        assert done.code == 4, done.err
        assert "disk full" in done.err.lower()
        filler.unlink()
        assert quarry_elsewhere(*command).code == 0


@pytest.mark.parametrize("delay", [0.05, 0.1, 0.2, 0.4])
def test_an_early_ctrl_c_is_quiet(tmp_path: Path, delay: float) -> None:
    """Behind the start of Python itself, which handles the signal in its own way."""
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); from dicom_quarry.__main__ import main; main()", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    try:
        child.wait(delay)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE)
    assert b"Traceback" not in err
