"""Several jobs for one port: whose it is, and one after another in the order in which they came."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.system.locks import read_lock_owner
from tests.e2e.command import PATIENCE, Done, Running, quarry, status, until
from tests.e2e.paused_archive import GatedArchive
from tests.peers.process import free_port, wait_for

STUDIES = generate_studies(4, seed=21, images=2)


class Jobs:
    """Jobs for one receiver; the first has the port and is held in its second study."""

    def __init__(self, archive: GatedArchive, folder: Path) -> None:
        self.archive, self.folder, self.port = archive, folder, free_port()
        archive.destinations["QUARRY"] = ("127.0.0.1", self.port)
        archive.hold_after = 3

    def out(self, name: str) -> Path:
        return self.folder / name

    def command(self, name: str, *numbers: int) -> tuple[object, ...]:
        cohort = self.folder / f"{name}.csv"
        cohort.write_text("\n".join(["Accession", *(STUDIES[number].accession for number in numbers)]) + "\n")
        receiver = f"QUARRY@127.0.0.1:{self.port}"
        return ("extract", cohort, "--from", self.archive.ae, "--as", receiver, "--to", self.out(name))

    def running(self, name: str, *numbers: int, queue: bool = False) -> Running:
        options = ["--queue"] if queue else []
        return Running(self.folder / f"{name}.txt", *self.command(name, *numbers), *options)

    def first(self) -> Running:
        running = self.running("first", 0, 1)
        until(running, "the archive to hold", self.archive.held.is_set)
        return running

    def queued(self, name: str, number: int) -> Running:
        running = self.running(name, number, queue=True)
        until(running, "it to queue", lambda: "waiting for port" in running.output)
        return running

    def detached(self, name: str, number: int) -> Done:
        return quarry(*self.command(name, number), "--queue", "--detach")

    def ends(self, name: str) -> int:
        """The exit code of ``status`` once nobody works on the job."""
        wait_for(lambda: self.process(name) is None, f"{name} to end", PATIENCE)
        code: int = status(self.out(name))["exit code"]
        return code

    def process(self, name: str) -> int | None:
        return read_lock_owner(self.out(name) / ".quarry" / "lock")

    def kill(self, name: str) -> None:
        """What runs in the background would outlive a test that has failed."""
        if process := self.process(name):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@pytest.fixture
def jobs(work: Path) -> Iterator[Jobs]:
    with GatedArchive(STUDIES) as archive:
        jobs = Jobs(archive, work)
        yield jobs
        jobs.kill("third")


def test_a_job_that_does_not_queue_is_told_whose_the_port_is(jobs: Jobs) -> None:
    with jobs.first() as first:
        done = quarry(*jobs.command("second", 2))
        assert done.code == 3
        said = done.err
        assert f"port {jobs.port} is held by another job, {jobs.out('first')} (user " in said
        assert f"process {first.pid})" in said and "start with --queue" in said
        assert not any(STUDIES[2].study_uid in str(asked) for asked in jobs.archive.asked)
        jobs.archive.open()
        assert first.wait() == 0


def test_jobs_queue_and_run_one_after_another(jobs: Jobs) -> None:
    with jobs.first() as first, jobs.queued("second", 2) as second:
        done = jobs.detached("third", 3)
        assert done.code == 0, done.err
        assert f"held by the job {jobs.out('first')} (user " in done.out
        assert "queued before this one: 1" in done.out and "in the background" in done.out
        facts = status(jobs.out("second"))
        assert facts["running"] and facts["queued"] and facts["process"] == second.pid
        assert facts["waiting_for"].startswith(f"port {jobs.port}, held by the job {jobs.out('first')} ")
        assert f"queued (process {second.pid})" in quarry("status", jobs.out("second")).out
        listed = quarry("list").out.splitlines()
        states = [line.split()[0] for line in listed if not line.startswith(" ")]
        assert sorted(states) == ["queued", "queued", "running"], "two may have started in the same second"
        assert sum("waiting for port" in line for line in listed) == 2
        jobs.archive.open()
        assert first.wait() == 0 and second.wait() == 0
        assert jobs.ends("third") == 0
    moved = list(jobs.archive.moves)
    assert moved == [study.study_uid for study in STUDIES], "in the order in which they came"


def test_the_next_begins_when_the_first_is_killed(jobs: Jobs) -> None:
    with jobs.first() as first, jobs.queued("second", 2) as second:
        first.kill()
        jobs.archive.open()
        assert second.wait() == 0


def test_a_queued_job_is_stopped(jobs: Jobs) -> None:
    with jobs.first() as first, jobs.queued("second", 2) as second:
        assert jobs.detached("third", 3).code == 0
        stopped = quarry("stop", jobs.out("second"))
        assert stopped.code == 0 and "stopped" in stopped.out
        assert second.wait() == 4
        assert "run the same command again" in second.output
        assert quarry("stop", jobs.out("third")).code == 0
        assert jobs.ends("third") == 4
        assert not first.ended
        jobs.archive.open()
        assert first.wait() == 0
    assert quarry(*jobs.command("second", 2)).code == 0


def test_a_port_that_no_job_has_is_not_waited_for(jobs: Jobs) -> None:
    with socket.create_server(("127.0.0.1", jobs.port)):
        done = quarry(*jobs.command("first", 0), "--queue")
    assert done.code == 3
    assert f"port {jobs.port} is held by " in done.err and "another job" not in done.err


def test_a_free_port_is_had_at_once(jobs: Jobs) -> None:
    jobs.archive.open()
    done = quarry(*jobs.command("first", 0), "--queue")
    assert done.code == 0 and "waiting" not in done.out
