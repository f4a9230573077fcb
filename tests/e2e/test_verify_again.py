"""After ``quarry verify``: damaged files come again; what changed in the archive is told, and taken."""

from __future__ import annotations

import csv
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.query_matching import Catalogue, QueryIdentifier, Record
from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies
from tests.e2e.command import Running, check_folder, digests, files, manifest, outcomes, quarry, until
from tests.e2e.damage import flip
from tests.e2e.job_runs import Job, accessions
from tests.e2e.paused_archive import GatedArchive
from tests.scripted import ScriptedArchive
from tests.scripted.find_faults import Capped

STUDIES = generate_studies(5, seed=31, images=4)
COMPLETE = ("complete", "all_listed_stored")


@pytest.fixture
def archive() -> Iterator[GatedArchive]:
    with GatedArchive(STUDIES) as server:
        yield server


@pytest.fixture
def job(work: Path, archive: GatedArchive) -> Job:
    made = Job(work, archive, accessions(STUDIES))
    assert made.run().code == 0
    return made


def with_images(study: DemoStudy, images: int) -> DemoStudy:
    """The study when instances have come to its series, or gone from it."""
    return replace(study, series=tuple(replace(series, instance_count=images) for series in study.series))


def changes(out: Path) -> dict[tuple[str, str], int]:
    """Lines of changes.csv by study and code."""
    found: dict[tuple[str, str], int] = {}
    with (out / "changes.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            key = row["study_uid"], row["code"]
            found[key] = found.get(key, 0) + 1
    return found


# -- damaged files


def test_damaged_files_are_moved_aside_and_sent_again(job: Job, archive: GatedArchive) -> None:
    before = digests(job.out)
    listed = [job.out / row["path"] for row in manifest(job.out)]
    flipped, gone, unlisted = listed[1:4]
    bad = flip(flipped)
    gone.unlink()
    assert quarry("verify", job.out).code == 1
    # It is damaged since, in a study that is tried again: it is no more taken for sound than the others.
    unlisted.write_bytes(b"damaged since")
    asked = len(archive.asked)
    done = quarry("retry", job.out, "--damaged")
    assert done.code == 0, done.err
    assert "studies tried again: 1; files damaged or missing: 3" in done.out
    assert "3 of the 3 are stored again" in done.out
    assert digests(job.out) == before
    check_folder(job.out)
    [again] = archive.asked[asked:]
    assert again.level == "IMAGE" and len(again.values("SOPInstanceUID")) == 3, "only what is missing"
    aside = job.out / ".quarry" / "damaged"
    assert files(aside) == {str(path.relative_to(job.out)) for path in (flipped, unlisted)}
    assert (aside / flipped.relative_to(job.out)).read_bytes() == bad
    assert quarry("verify", job.out).code == 0
    assert outcomes(job.out) == [COMPLETE] * 5


def test_a_list_is_needed_and_an_old_one_does_no_harm(job: Job, archive: GatedArchive) -> None:
    refused = quarry("retry", job.out, "--damaged")
    assert refused.code == 2 and f"quarry verify {job.out}" in refused.err
    path = job.out / manifest(job.out)[0]["path"]
    sound = path.read_bytes()
    path.write_bytes(b"damaged")
    assert quarry("verify", job.out).code == 1
    path.write_bytes(sound)
    asked = len(archive.asked)
    done = quarry("retry", job.out, "--damaged")
    assert done.code == 0 and "files damaged or missing: 0" in done.out
    assert len(archive.asked) == asked and outcomes(job.out) == [COMPLETE] * 5
    assert quarry("retry", job.out, "--damaged", "--outcome", "partial").code == 2


# -- the archive


def test_what_changed_in_the_archive_is_told_and_nothing_is_moved(job: Job, archive: GatedArchive) -> None:
    same = quarry("verify", job.out, "--against-archive")
    assert same.code == 0 and "5 complete studies listed again: 5 unchanged" in same.out
    assert not (job.out / "changes.csv").exists()
    grown, shrunk, gone = STUDIES[0], STUDIES[2], STUDIES[3]
    archive.catalogue = Catalogue([with_images(grown, 6), STUDIES[1], with_images(shrunk, 1), STUDIES[4]])
    before, asked = digests(job.out), len(archive.asked)
    done = quarry("verify", job.out, "--against-archive")
    assert done.code == 1, done.err
    assert changes(job.out) == {
        (grown.study_uid, "new"): 2,
        (shrunk.study_uid, "gone"): 3,
        (gone.study_uid, "study_gone"): 1,
    }
    for said in (
        "5 complete studies listed again: 2 unchanged",
        "1 study with new instances, 2 instances",
        "1 study without instances that were there before, 3 instances",
        "1 study no longer in the archive",
    ):
        assert said in done.out
    assert (job.out / "changes.csv").stat().st_mode & 0o777 == 0o600
    assert digests(job.out) == before and len(archive.asked) == asked
    again = quarry("retry", job.out, "--changed")
    assert again.code == 0, again.err
    [new] = archive.asked[asked:]
    assert new.level == "IMAGE" and len(new.values("SOPInstanceUID")) == 2
    assert len(files(job.out)) == 22
    assert outcomes(job.out) == [COMPLETE] * 5


def test_a_study_whose_list_ends_early_is_not_called_smaller(work: Path) -> None:
    with ScriptedArchive(STUDIES[:2]) as archive:
        job = Job(work, archive, accessions(STUDIES[:2]))
        assert job.run().code == 0
        archive.faults = [Capped(2, status=0xA700, level="IMAGE")]
        done = quarry("verify", job.out, "--against-archive")
    assert done.code == 1, done.err
    assert set(changes(job.out)) == {(study.study_uid, "not_compared") for study in STUDIES[:2]}
    assert "2 studies could not be compared" in done.out


class Listing(DemoArchive):
    """Remembers the studies that it lists; holds at the one that is to be held, until it is stopped."""

    def __init__(self, studies: list[DemoStudy]) -> None:
        super().__init__(studies)
        self.listed: list[str] = []
        self.hold: str | None = None
        self.held, self._gate = threading.Event(), threading.Event()

    def find(
        self, query: QueryIdentifier, cancelled: Callable[[], bool]
    ) -> Iterator[tuple[int, Record | None]]:
        study_uid = query.keys.get("StudyInstanceUID", "")
        if query.level in ("SERIES", "IMAGE") and study_uid not in self.listed[-1:]:
            self.listed.append(study_uid)
            if study_uid == self.hold:
                self.held.set()
                self._gate.wait()
        yield from super().find(query, cancelled)

    def open(self) -> None:
        self.hold = None
        self._gate.set()

    def stop(self) -> None:
        self.open()
        super().stop()


def test_killed_and_run_again_it_lists_the_rest(work: Path) -> None:
    with Listing(STUDIES) as archive:
        job = Job(work, archive, accessions(STUDIES))
        assert job.run().code == 0
        archive.catalogue = Catalogue([with_images(STUDIES[0], 5), *STUDIES[1:]])
        archive.listed.clear()
        archive.hold = STUDIES[3].study_uid
        with Running(work / "output.txt", "verify", job.out, "--against-archive") as running:
            until(running, "the archive to hold", archive.held.is_set)
            beside = job.run()
            assert beside.code == 3 and "is already working on" in beside.err
            running.kill()
        archive.open()
        archive.listed.clear()
        done = quarry("verify", job.out, "--against-archive")
    told = re.search(r"resuming after (\d) stud(?:y|ies)", done.out)
    assert done.code == 1 and told, done.err
    # The bookmark is kept once a second, and the first at once.
    assert 1 <= int(told[1]) <= 3
    assert archive.listed == [study.study_uid for study in STUDIES[int(told[1]) :]]
    assert "5 complete studies listed again: 4 unchanged" in done.out
    assert changes(job.out) == {(STUDIES[0].study_uid, "new"): 1}


def test_an_archive_that_is_away_is_a_sentence(job: Job, archive: GatedArchive) -> None:
    archive.stop()
    done = quarry("verify", job.out, "--against-archive")
    assert done.code == 3 and "Check that the archive is running" in done.err


# -- while a job runs


def test_verify_beside_a_job_calls_nothing_strange(work: Path, archive: GatedArchive) -> None:
    job = Job(work, archive, accessions(STUDIES))
    archive.hold_after = 6
    with Running(work / "output.txt", *job.command()) as running:
        until(running, "the archive to hold", archive.held.is_set)
        assert len(files(job.out)) == 6
        done = quarry("verify", job.out)
        assert done.code == 0 and "4 files compared by SHA-256: 0 damaged" in done.out
        assert "does not have" not in done.out, "what has just come belongs to a study in work"
        archive.open()
        assert running.wait() == 0
    check_folder(job.out)
