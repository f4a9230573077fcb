"""A disk that fills up in the middle of a job, and gets space again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_operations import RetrieveOperation, Tally
from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.e2e.command import Running, check_folder, files, outcomes, status, until
from tests.e2e.file_systems import small_disk
from tests.e2e.job_runs import Job, accessions
from tests.scripted import Fault, ScriptedArchive

STUDIES = generate_studies(2, seed=14, profile="ct", images=12)  # 0.5 MB each


class Told(Fault):
    """Nothing goes wrong; it keeps the failures that it was told of."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = 0

    def respond(self, move: RetrieveOperation, status: int, tally: Tally) -> bool:
        self.failed = max(self.failed, tally.failed)
        return False


@pytest.fixture
def disk(work: Path) -> Iterator[Path]:
    with small_disk(work / "disk", "40m") as path:
        yield path


@pytest.mark.parametrize("keep_free", [0.02, 0], ids=["reserve", "to the last byte"])
def test_it_pauses_and_goes_on_by_itself(work: Path, disk: Path, keep_free: float) -> None:
    told = Told()
    with ScriptedArchive(STUDIES, [told]) as archive:
        job = Job(work, archive, accessions(STUDIES))
        job.out = disk / "out"
        job.toml.write_text(f"keep-free = {keep_free}\n{job.toml.read_text()}")
        # Room for a few instances beside the reserve, which leaves the job's own record its place.
        others = disk / "others"
        others.write_bytes(bytes(37_000_000 - int(keep_free * 1e9)))
        # The state needs room of its own where the disk is filled to the last byte.
        state = ["--state", work / "state"]
        with Running(work / "out.txt", *job.command(*state)) as running:
            until(running, "the pause", lambda: "disk full" in running.output)
            until(running, "status", lambda: status(job.out)["waiting_for"] == "free disk space")
            moves = len(archive.requests("move"))
            here = len(files(job.out))
            assert 0 < here < 24
            assert told.failed > 0
            assert not list((job.out / ".quarry" / "incoming").rglob("*.part"))
            others.unlink()
            assert running.wait() == 0
            assert "there is enough free disk space again" in running.output
        assert len(archive.requests("move")) <= moves + 3, "no flood"
    assert outcomes(job.out) == [("complete", "all_listed_stored")] * 2
    assert len(files(job.out)) == 24
    check_folder(job.out)


def test_a_job_begins_no_study_without_room_for_it(work: Path) -> None:
    with ScriptedArchive(STUDIES) as archive:
        job = Job(work, archive, accessions(STUDIES[:1]))
        assert job.run().code == 0
        job.toml.write_text(f"room = 1e-6\n{job.toml.read_text()}")
        job.cohort.write_text("\n".join(["Accession", *accessions(STUDIES)]) + "\n")
        with Running(work / "out.txt", *job.command("--update")) as running:
            until(running, "its word", lambda: "its room of 1e-06 GB is used up" in running.output)
            until(running, "status", lambda: status(job.out)["waiting_for"] == "room for the job")
            running.interrupt()
            assert running.wait() == 4
        assert len(archive.requests("move")) == 1
