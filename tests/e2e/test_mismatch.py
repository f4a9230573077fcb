"""Images of another identity than the archive's answer: kept apart, until a person accepts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies
from tests.e2e.command import (
    Running,
    check_folder,
    digests,
    files,
    manifest,
    outcomes,
    quarry,
    report,
    until,
)
from tests.e2e.job_runs import Job, accessions
from tests.scripted import ScriptedArchive
from tests.scripted.faults import OtherPatient

STUDIES = generate_studies(2, seed=12, images=3)
COMPLETE, DIFFERS = ("complete", "all_listed_stored"), ("mismatch", "stored_differs")


class OtherPatientOf(OtherPatient):
    """Of one study alone."""

    def __init__(self, study: DemoStudy) -> None:
        super().__init__("MERGED-1")
        self._study_uid = study.study_uid

    def choose(self, archive, instances):  # type: ignore[no-untyped-def]
        wrong = instances[0].study.study_uid == self._study_uid
        return super().choose(archive, instances) if wrong else instances


@pytest.fixture
def archive() -> Iterator[ScriptedArchive]:
    with ScriptedArchive(STUDIES, [OtherPatientOf(STUDIES[0])]) as server:
        yield server


def apart(out: Path) -> set[str]:
    return {name for name in files(out) if name.startswith("mismatch/")}


def verified(out: Path) -> bool:
    return quarry("verify", out).code == 0


def test_apart_until_accepted(archive: ScriptedArchive, work: Path) -> None:
    job = Job(work, archive, accessions(STUDIES))
    assert job.run().code == 1
    assert outcomes(job.out) == [DIFFERS, COMPLETE]
    row = report(job.out)[0]
    assert "patient ID inside the images differs" in row["quarry_reason"]
    uid = STUDIES[0].study_uid
    assert len(apart(job.out)) == 3 and len(files(job.out)) == 6
    assert all(name.startswith(f"mismatch/MERGED-1/{uid}/") for name in apart(job.out))
    assert {row["path"] for row in manifest(job.out)} == files(job.out)
    check_folder(job.out)
    assert verified(job.out)
    before = digests(job.out)
    moves = len(archive.requests("move"))
    # Nobody has accepted it so far: it stays, and is not asked for again.
    assert job.run().code == 1
    assert quarry("retry", job.out).code == 1
    assert (outcomes(job.out), len(apart(job.out))) == ([DIFFERS, COMPLETE], 3)

    assert job.run("--accept-mismatch").code == 0
    assert len(archive.requests("move")) == moves
    assert outcomes(job.out) == [COMPLETE, COMPLETE]
    assert digests(job.out) == {name.removeprefix("mismatch/"): sha for name, sha in before.items()}
    assert not (job.out / "mismatch").exists(), "no empty folders are left"
    check_folder(job.out)
    assert verified(job.out)


def test_merged_identities_are_normal_here(archive: ScriptedArchive, work: Path) -> None:
    job = Job(work, archive, accessions(STUDIES))
    job.configure('merged-ids = "accept"')
    assert job.run().code == 0
    assert outcomes(job.out) == [COMPLETE, COMPLETE]
    assert not apart(job.out)
    check_folder(job.out)


def test_merged_identities_accepted_later(archive: ScriptedArchive, work: Path) -> None:
    job = Job(work, archive, accessions(STUDIES))
    assert job.run().code == 1
    moves = len(archive.requests("move"))
    job.configure('merged-ids = "accept"')
    assert job.run().code == 0
    assert len(archive.requests("move")) == moves
    assert (outcomes(job.out), apart(job.out)) == ([COMPLETE, COMPLETE], set())
    check_folder(job.out)
    assert "Nothing to do" in job.run().out


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_killed_while_it_is_brought_in(
    archive: ScriptedArchive, work: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    job = Job(work, archive, accessions(STUDIES))
    assert job.run().code == 1
    before, moves = digests(job.out), len(archive.requests("move"))
    with monkeypatch.context() as patched:
        stop_at(work, moment, patched)
        with Running(work / "killed.txt", *job.command("--accept-mismatch")) as running:
            until(running, "the moment", (work / "reached").exists)
            running.kill()
    # Nothing is lost, whatever name it has.
    found = {sha for name, sha in digests(job.out).items()}
    assert found == set(before.values())
    assert job.run("--accept-mismatch").code == 0
    assert len(archive.requests("move")) == moves
    assert digests(job.out) == {name.removeprefix("mismatch/"): sha for name, sha in before.items()}
    assert outcomes(job.out) == [COMPLETE, COMPLETE]
    check_folder(job.out)


STOP = """
import os, pathlib, sys, threading
if sys.argv and sys.argv[0].endswith("quarry"):
    real, calls = os.unlink, []
    def unlink(path, *rest, dir_fd=None, **more):
        folder = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else ""
        if "/mismatch/" in f"{folder}/{path}":
            calls.append(path)
            if len(calls) == MOMENT:
                pathlib.Path("reached").write_text("")
                threading.Event().wait()
        return real(path, *rest, dir_fd=dir_fd, **more)
    os.unlink = unlink
"""


def stop_at(work: Path, moment: int, patched: pytest.MonkeyPatch) -> None:
    """Hold the command when the file has its new name, and is about to lose its old one."""
    patched.setenv("PYTHONPATH", os.pathsep.join([str(work), os.environ.get("PYTHONPATH", "")]))
    (work / "sitecustomize.py").write_text(STOP.replace("MOMENT", str(moment)))
