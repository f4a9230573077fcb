"""Release: what went elsewhere stays proved; what is removed was verified; killed half way, it goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dicom_quarry import api
from dicom_quarry.completion.release import ReleaseOutcome
from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.errors import InputError, StartError
from dicom_quarry.jobs.open_place import open_existing
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from tests.e2e.command import Running, files, manifest, outcomes, quarry, studies, until
from tests.e2e.damage import flip
from tests.e2e.job_runs import Job, accessions
from tests.e2e.paused_archive import GatedArchive

STUDIES = generate_studies(3, seed=8, images=4)
UIDS = [study.study_uid for study in STUDIES]


@pytest.fixture
def archive() -> Iterator[GatedArchive]:
    with GatedArchive(STUDIES) as running:
        yield running


@pytest.fixture
def job(work: Path, archive: GatedArchive) -> Job:
    """Three studies, complete."""
    made = Job(work, archive, accessions(STUDIES))
    assert made.run().code == 0
    return made


def folder_of(out: Path, uid: str) -> Path:
    return next(out / row["folder"] for row in studies(out) if row["study_uid"] == uid)


def became(out: Path, *uids: str, delete: bool = False) -> dict[str, tuple[ReleaseOutcome, str]]:
    return {one.study_uid: (one.outcome, one.problem) for one in api.release(out, uids, delete=delete)}


def test_it_releases_what_was_moved_away_and_removes_nothing(work: Path, job: Job) -> None:
    shutil.move(folder_of(job.out, UIDS[0]), work / "elsewhere")
    next(folder_of(job.out, UIDS[1]).rglob("*.dcm")).unlink()
    here = files(job.out)
    assert len(here) == 7
    done = quarry("release", job.out)
    assert done.code == 1
    assert "1 study released\n" in done.out
    assert "1 study not released: the files are still in the folder. --delete deletes them" in done.out
    assert f"study {UIDS[1]}: 3 of its 4 files exist, the others are missing; not released" in done.err
    assert files(job.out) == here
    checked = quarry("verify", job.out)
    assert checked.code == 1
    assert "8 files compared by SHA-256: 1 damaged or missing" in checked.out
    assert became(job.out, UIDS[0]) == {UIDS[0]: (ReleaseOutcome.ALREADY_RELEASED, "")}
    assert quarry("report", job.out).code == 1, "one of the files that are here is missing"
    assert [bool(row["released_at"]) for row in studies(job.out)] == [uid == UIDS[0] for uid in UIDS]
    assert len(manifest(job.out)) == 12


def test_nothing_is_removed_that_is_not_what_was_recorded(job: Job) -> None:
    damaged = next(folder_of(job.out, UIDS[0]).rglob("*.dcm"))
    flip(damaged)
    next(folder_of(job.out, UIDS[1]).rglob("*.dcm")).unlink()
    found = became(job.out, delete=True)
    assert found[UIDS[0]][0] is ReleaseOutcome.NOT_RELEASED
    assert found[UIDS[0]][1].startswith("1 of its files are damaged")
    assert found[UIDS[1]] == (ReleaseOutcome.NOT_RELEASED, "3 of its 4 files exist, the others are missing")
    assert found[UIDS[2]] == (ReleaseOutcome.RELEASED, "")
    assert len(files(job.out)) == 7
    assert not folder_of(job.out, UIDS[2]).exists()


def test_a_study_that_nobody_asked_for_ends_it_before_anything_is_done(job: Job) -> None:
    with pytest.raises(InputError, match=r"has no study 1\.2\.3"):
        became(job.out, UIDS[0], "1.2.3", delete=True)
    assert len(files(job.out)) == 12


def test_what_is_not_complete_is_kept(work: Path, archive: GatedArchive) -> None:
    job = Job(work, archive, accessions(STUDIES))
    archive.hold_after = 5
    with Running(work / "run.txt", *job.command()) as running:
        until(running, "the hold", lambda: archive.held.is_set() and len(files(job.out)) == 5)
        # From another terminal, while the job runs.
        found = {word for word, _ in became(job.out, delete=True).values()}
        assert found == {ReleaseOutcome.RELEASED}
        assert len(files(job.out)) == 1
        others = set(UIDS) - released(job.out)
        assert became(job.out, *others) == dict.fromkeys(
            others, (ReleaseOutcome.NOT_RELEASED, "it is not complete")
        )
        archive.open()
        assert running.wait() == 0
    assert outcomes(job.out) == [("complete", "all_listed_stored")] * 3
    assert len(files(job.out)) == 8
    assert len(manifest(job.out)) == 12
    assert quarry("verify", job.out).code == 0


def released(out: Path) -> set[str]:
    with closing(LedgerReader(out / ".quarry" / "ledger.db")) as reader:
        return {view.study.study_uid for view in reader.studies() if view.released_at}


#: Ends itself as kill -9 would, at the third file that it removes.
_KILLED = """
import os, signal, sys
removed = 0
def hook(event, arguments):
    global removed
    if event == "os.remove" and str(arguments[0]).endswith(".dcm"):
        removed += 1
        if removed == 3:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from dicom_quarry.cli.main import main
main()
"""


def test_killed_while_it_removes_it_goes_on_when_run_again(job: Job) -> None:
    command = [sys.executable, "-c", _KILLED, "release", str(job.out), "--delete"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert len(files(job.out)) == 10
    checked = quarry("verify", job.out)
    assert checked.code == 0, "a file that was removed after its release is not missing"
    again = quarry("release", job.out, "--delete")
    assert again.code == 0, again.out + again.err
    assert "3 studies released; 10 files removed" in again.out
    assert not files(job.out)
    assert quarry("release", job.out, "--delete").out == "0 studies released\n"


def test_another_version_at_work_is_not_disturbed(job: Job) -> None:
    ledger = Ledger(job.out / ".quarry" / "ledger.db")
    ledger.set_metadata(version="0.0.1")
    ledger.close()
    with open_existing(job.out).lock(), pytest.raises(StartError, match="another version of Quarry"):
        became(job.out, delete=True)
    assert len(files(job.out)) == 12
