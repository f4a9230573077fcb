"""Jobs in the background: real processes, which outlive the session that started them."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dicom_quarry.demo.query_matching import Catalogue
from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.system.locks import read_lock_owner
from tests.e2e.command import PATIENCE, QUARRY, Done, check_folder, outcomes, quarry, status
from tests.e2e.paused_archive import GatedArchive
from tests.e2e.test_terminal import Terminal
from tests.peers.process import free_port, listens, wait_for

STUDIES = generate_studies(3, seed=12, images=3)
COMPLETE = ("complete", "all_listed_stored")


class Background:
    """A job that is started with --detach; what still runs at the end of the test is killed."""

    def __init__(self, archive: GatedArchive, folder: Path) -> None:
        self.archive, self.folder = archive, folder
        self.out, self.cohort, self.port = folder / "out", folder / "cohort.csv", free_port()
        self.cohort.write_text("\n".join(["Accession", *(study.accession for study in STUDIES)]) + "\n")
        archive.destinations["QUARRY"] = ("127.0.0.1", self.port)

    def command(self, cohort: object = None) -> tuple[object, ...]:
        receiver = f"QUARRY@127.0.0.1:{self.port}"
        command = ("extract", cohort or self.cohort, "--from", self.archive.ae, "--as", receiver)
        return (*command, "--to", self.out, "--detach")

    def run(self, *options: object) -> Done:
        """Returns with the launcher: the job has let go of its output by then."""
        return quarry(*self.command(), *options)

    @property
    def process(self) -> int | None:
        return read_lock_owner(self.out / ".quarry" / "lock")

    @property
    def said(self) -> str:
        return (self.out / ".quarry" / "output.log").read_text()

    def finish(self) -> dict[str, Any]:
        """Let the archive go on, and wait for the end of the job."""
        self.archive.open()
        wait_for(lambda: self.process is None, "the job to end", PATIENCE)
        return status(self.out)

    def kill(self) -> None:
        if process := self.process:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@pytest.fixture
def job(work: Path) -> Iterator[Background]:
    with GatedArchive(STUDIES) as archive:
        # It will hold in the second study.
        archive.hold_after = 4
        background = Background(archive, work)
        yield background
        background.kill()


def test_it_runs_by_itself_and_says_where(job: Background) -> None:
    done = job.run()
    assert done.code == 0, done.err
    wait_for(job.archive.held.is_set, "the archive to hold")
    process = job.process
    assert process is not None
    assert f"Running in the background (process {process})" in done.out
    assert f"quarry status {job.out}\n" in done.out and f"quarry stop {job.out}\n" in done.out
    assert str(job.out / ".quarry" / "output.log") in done.out
    assert os.getsid(process) == process, "a session of its own"
    terminal = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[4]
    assert terminal == "0", "without a terminal"
    assert Path(f"/proc/{process}/fd/0").readlink() == Path("/dev/null")
    assert job.finish()["exit code"] == 0
    assert outcomes(job.out) == [COMPLETE] * 3
    check_folder(job.out)
    # What it said names no patient.
    # It lets the folder go before it reports.
    wait_for(lambda: "3 rows: 3 complete" in job.said, "the report", PATIENCE)
    names = {name for study in STUDIES for name in (study.accession, study.patient.patient_id)}
    assert not any(name in job.said for name in names)
    assert "\x1b" not in job.said
    assert (job.out / ".quarry" / "output.log").stat().st_mode & 0o777 == 0o600


def test_the_end_of_the_session_does_not_end_it(job: Background) -> None:
    ours, theirs = pty.openpty()
    line = " ".join(map(str, (QUARRY, *job.command()))) + "; echo started; read wait"
    shell = subprocess.Popen(
        ["setsid", "--ctty", "sh", "-c", line], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while b"started" not in shown:
        shown += os.read(ours, 65536)
    assert b"Running in the background" in shown
    # The line drops: the session's terminal hangs up, and all that belongs to it gets SIGHUP.
    os.close(ours)
    assert shell.wait(PATIENCE) in (-signal.SIGHUP, 1)  # 1: the shell saw the end of its input first
    process = job.process
    assert process is not None
    os.kill(process, signal.SIGHUP)
    wait_for(job.archive.held.is_set, "the archive to hold")
    assert job.process == process
    assert job.finish()["exit code"] == 0


def test_stop_and_go_on(job: Background) -> None:
    job.run()
    wait_for(job.archive.held.is_set, "the archive to hold")
    assert "is already working on" in job.run().err
    stopped = quarry("stop", job.out, "--now")
    assert stopped.code == 0 and "stopped" in stopped.out
    assert status(job.out)["exit code"] == 4
    assert "not finished: run the same command again" in job.said
    job.archive.open()
    assert job.run().code == 0
    assert job.finish()["exit code"] == 0
    again = job.run()
    assert again.code == 0 and "Nothing to do" in again.out and "every row is complete" in again.out


def test_a_table_from_standard_input(job: Background) -> None:
    command = [str(word) for word in (QUARRY, *job.command("-"))]
    with job.cohort.open("rb") as table:
        assert subprocess.run(command, stdin=table, timeout=PATIENCE, check=False).returncode == 0
    assert Path(f"/proc/{job.process}/fd/0").readlink() == Path("/dev/null")
    assert job.finish()["rows_by_outcome"] == {"complete": 3}


def test_retry(job: Background) -> None:
    job.archive.open()
    job.archive.catalogue = Catalogue(STUDIES[:2])
    job.run()
    assert job.finish()["exit code"] == 1
    job.archive.catalogue = Catalogue(STUDIES)
    assert "in the background" in quarry("retry", job.out, "--detach").out
    assert job.finish()["exit code"] == 0


# -- what cannot start is told by the launcher


def test_a_port_in_use(job: Background) -> None:
    with socket.create_server(("127.0.0.1", job.port)):
        done = job.run()
    assert done.code == 3
    assert done.err.startswith(f"quarry: port {job.port} is held by ") and "background" not in done.out
    assert not job.archive.moves


def test_an_archive_that_is_not_there(job: Background) -> None:
    job.archive.stop()
    done = job.run()
    assert done.code == 3
    assert "Check that the archive is running" in done.err
    assert not listens(job.port)


def test_control_c_while_it_starts(job: Background) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        archive = f"DEMO@127.0.0.1:{silent.getsockname()[1]}"
        terminal = Terminal(*job.command(), "--from", archive)
        connection, _ = silent.accept()
        # The job asks whether the archive is there, and gets no answer.
        process = job.process
        terminal.type("\x03")
        terminal.wait_for("^C")
        connection.close()
        assert terminal.end() == 3
    assert process and job.process is None, "nothing is left in the background"


def test_what_cannot_be_used(job: Background) -> None:
    assert job.run("--parallel", "99").code == 2
    job.cohort.write_text("Accession\nA*\n")
    done = job.run()
    assert done.code == 2 and "wildcard" in done.err
    assert not job.out.exists()


# -- quarry list


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(quarry("list", "--json").out)
    return found


def test_list(job: Background, work: Path) -> None:
    assert "No jobs" in quarry("list").out
    job.run()
    wait_for(job.archive.held.is_set, "the archive to hold")
    wait_for(lambda: listed()[0]["rows_complete"] == 1, "a row", PATIENCE)
    (running,) = listed()
    assert (running["state"], running["process"]) == ("running", job.process)
    assert (running["folder"], running["rows"]) == (str(job.out), 3)
    plain = quarry("list").out
    assert "running" in plain and "1 of 3 rows complete" in plain
    job.finish()
    assert [one["state"] for one in listed()] == ["finished"]
    other = ("extract", job.cohort, "--from", job.archive.ae, "--as", f"QUARRY@127.0.0.1:{job.port}")
    assert quarry(*other, "--to", work / "later").code == 0
    assert [Path(one["folder"]).name for one in listed()] == ["later", "out"], "the latest first"
    remembered = list(Path(os.environ["XDG_STATE_HOME"], "quarry", "jobs").iterdir())
    (work / "later").rename(work / "away")
    assert [Path(one["folder"]).name for one in listed()] == ["out"]
    left = list(Path(os.environ["XDG_STATE_HOME"], "quarry", "jobs").iterdir())
    assert len(remembered) == 2 and len(left) == 1, "what is gone is forgotten"
