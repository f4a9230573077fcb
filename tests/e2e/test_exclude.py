"""What must not be taken is not: not by a row, not by an answer, not on arrival; nor forgotten later."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

import dicom_quarry
from dicom_quarry.demo.synthetic_studies import DemoInstance, DemoStudy, generate_studies
from dicom_quarry.errors import InputError
from tests.e2e.command import (
    check_folder,
    files,
    outcomes,
    quarry,
    report,
    studies,
    temporary,
)
from tests.e2e.job_runs import Job, accessions
from tests.scripted import Fault, ScriptedArchive

ROW, PATIENT, ARRIVES, SHARED, HIDDEN, OTHER = (
    replace(study, patient=replace(study.patient, patient_id=f"PATIENT-{number}"))
    for number, study in enumerate(generate_studies(6, seed=31, images=3))
)
HIDDEN = replace(HIDDEN, patient=SHARED.patient, accession=SHARED.accession)
STUDIES = [ROW, PATIENT, ARRIVES, SHARED, HIDDEN, OTHER]
ROWS = [ROW, PATIENT, ARRIVES, SHARED, OTHER]
COMPLETE = ("complete", "all_listed_stored")
OPTED_OUT = "OPTED-OUT-1"


class AnotherArrives(Fault):
    """Of one study the instances from ``first`` on bear another patient ID than the archive answers."""

    def __init__(self, study: DemoStudy, first: int = 1) -> None:
        super().__init__()
        self._study_uid, self._first = study.study_uid, first

    def choose(self, archive: ScriptedArchive, instances: Sequence[DemoInstance]) -> Sequence[DemoInstance]:
        return [
            replace(i, study=replace(i.study, patient=replace(i.study.patient, patient_id=OPTED_OUT)))
            if i.study.study_uid == self._study_uid and i.number >= self._first
            else i
            for i in instances
        ]


@pytest.fixture
def archive() -> Iterator[ScriptedArchive]:
    with ScriptedArchive(STUDIES, [AnotherArrives(ARRIVES)]) as server:
        yield server


def optout(work: Path, *lines: str, name: str = "optout.csv") -> Path:
    (work / name).write_text("\n".join(["MRN,Accession,SUID", *lines]) + "\n")
    return work / name


def patients(out: Path) -> set[str]:
    return {str(pydicom.dcmread(out / name, stop_before_pixels=True).PatientID) for name in files(out)}


def moved(archive: ScriptedArchive) -> set[str]:
    return {seen.uids[0] for seen in archive.requests("move")}


def test_rows_answers_and_arrivals(archive: ScriptedArchive, work: Path) -> None:
    """The excluded patient who arrives under another row's accession is not written."""
    job = Job(work, archive, accessions(ROWS))
    listed = optout(
        work,
        f",{ROW.accession.lower()} ,",
        f"{PATIENT.patient.patient_id},,",
        f"{OPTED_OUT},,",
        f",,{HIDDEN.study_uid}",
    )
    done = job.run("--exclude", listed)
    assert done.code == 1
    assert "2 patient IDs, 1 accession, 1 Study Instance UID" in done.out
    assert outcomes(job.out) == [
        ("excluded", "row_excluded"),
        ("excluded", "study_excluded"),
        ("excluded", "excluded_on_arrival"),
        COMPLETE,
        COMPLETE,
    ]
    asked = {seen.keys.get("AccessionNumber") for seen in archive.requests("find", "STUDY")}
    assert ROW.accession not in asked, "nothing is asked about a row that is excluded"
    assert moved(archive) == {one.study_uid for one in (ARRIVES, SHARED, OTHER)}
    assert "1 study left out: on the exclusion list" in report(job.out)[3]["quarry_reason"]
    assert patients(job.out) == {SHARED.patient.patient_id, OTHER.patient.patient_id}
    assert len(files(job.out)) == 6
    assert not temporary(job.out)
    here = [path.read_bytes() for path in job.out.rglob("*.dcm")]
    assert not any(OPTED_OUT.encode() in content for content in here), "not kept apart either"
    check_folder(job.out)
    for word in (ROW.accession, PATIENT.patient.patient_id, OPTED_OUT):
        assert word not in done.out + done.err + (job.out / ".quarry" / "quarry.log").read_text()

    # It ends there: neither the same command nor a retry asks again.
    moves = len(archive.requests("move"))
    assert job.run("--exclude", listed).code == 1
    assert quarry("retry", job.out).code == 1
    assert len(archive.requests("move")) == moves


def test_what_came_before_the_excluded_instance_is_told(work: Path) -> None:
    with ScriptedArchive(STUDIES, [AnotherArrives(ARRIVES, first=3)]) as archive:
        job = Job(work, archive, accessions([ARRIVES]))
        done = job.run("--exclude", optout(work, f"{OPTED_OUT},,"))
    assert outcomes(job.out) == [("excluded", "excluded_but_stored")]
    assert len(files(job.out)) == 2
    assert patients(job.out) == {ARRIVES.patient.patient_id}
    assert "Quarry itself deletes nothing" in done.out


def test_a_list_that_grows(archive: ScriptedArchive, work: Path) -> None:
    archive.faults.clear()
    job = Job(work, archive, [*accessions([ROW, PATIENT]), "NOWHERE"])
    listed = optout(work, "NOBODY-YET,,")
    assert job.run("--exclude", listed).code == 1
    moves = len(archive.requests("move"))
    optout(work, "NOBODY-YET,,", f"{ROW.patient.patient_id},,", ",NOWHERE,")
    done = job.run("--exclude", listed)
    assert (
        "excluded, 1 row (excluded_but_stored): images that are already stored are on the exclusion list"
        in done.out
    )
    assert "  row 1\n  what to do: delete the study's folder (see studies.csv)" in done.out
    assert outcomes(job.out)[:2] == [("excluded", "excluded_but_stored"), COMPLETE]
    assert "already stored (3 instances)" in report(job.out)[0]["quarry_reason"]
    assert len(files(job.out)) == 6, "nothing is deleted by itself"
    check_folder(job.out)
    # Another try does not take it, nor lose sight of it; a row that is tried again is not asked about.
    queries = len(archive.requests("find"))
    retried = quarry("retry", job.out, "--outcome", "excluded", "--outcome", "not_found")
    assert "2 rows and studies are tried again" in retried.out
    assert outcomes(job.out) == [
        ("excluded", "excluded_but_stored"),
        COMPLETE,
        ("excluded", "row_excluded"),
    ]
    assert len(archive.requests("move")) == moves
    assert len(archive.requests("find")) == queries

    shutil.rmtree(job.out / studies(job.out)[0]["folder"])
    assert job.run("--exclude", listed).code == 1
    assert outcomes(job.out)[:2] == [("excluded", "study_excluded"), COMPLETE]
    assert quarry("verify", job.out).code == 0, "what was removed is not missed"
    assert len(archive.requests("move")) == moves


def test_a_list_that_was_wrong_and_shrinks(archive: ScriptedArchive, work: Path) -> None:
    archive.faults.clear()
    job = Job(work, archive, accessions([ROW, OTHER]))
    listed = optout(work, f"{ROW.patient.patient_id},,", f",{OTHER.accession},")
    assert job.run("--exclude", listed).code == 1
    optout(work, "SOMEBODY-ELSE,,")
    assert quarry("retry", job.out, "--outcome", "excluded").code == 0
    assert outcomes(job.out) == [COMPLETE, COMPLETE]


def test_studies_that_wait_are_checked_again(archive: ScriptedArchive, work: Path) -> None:
    """The answers of a plan, or of an interrupted run, are not believed over a list that has grown."""
    archive.faults.clear()
    job = Job(work, archive, accessions([ROW, OTHER]))
    listed = optout(work, "NOBODY-YET,,")
    plan = ["plan", job.cohort, "--from", "main", "--exclude", listed]
    assert quarry(*plan).code == 0
    optout(work, f"{ROW.patient.patient_id},,")
    planned = quarry(*plan)
    assert planned.code == 1
    assert "excluded, 1 row (study_excluded)" in planned.out
    assert job.run("--exclude", listed).code == 1
    assert outcomes(job.out) == [("excluded", "study_excluded"), COMPLETE]
    assert moved(archive) == {OTHER.study_uid}


def test_a_list_that_cannot_be_used_stops_everything(archive: ScriptedArchive, work: Path) -> None:
    job = Job(work, archive, accessions(ROWS))
    done = job.run("--exclude", optout(work))
    assert done.code == 2
    assert "the exclusion list cannot be used" in done.err
    for lines in ([], [",,"], ["4*,,"]):
        listed, pacs = optout(work, *lines), str(job.archive)
        with pytest.raises(InputError, match="exclusion list cannot be used"):
            dicom_quarry.extract(job.cohort, archive=pacs, to=job.out, exclude=listed)
        with pytest.raises(InputError, match="exclusion list cannot be used"):
            dicom_quarry.plan(job.cohort, archive=pacs, to=job.out, exclude=listed)
    with pytest.raises(InputError, match="exclusion list cannot be used"):
        dicom_quarry.extract(job.cohort, archive=str(job.archive), to=job.out, exclude=work / "none.csv")
    assert not job.out.exists()
    assert not archive.log


def test_a_list_is_not_left_out_by_mistake(archive: ScriptedArchive, work: Path) -> None:
    job = Job(work, archive, accessions([ROW, PATIENT]))
    first = optout(work, f",{ROW.accession},", name="first.csv")
    job.toml.write_text(f'exclude = "{first.name}"\n{job.toml.read_text()}')
    # A flag adds to the list of the file.
    second = optout(work, f",{PATIENT.accession},", name="second.csv")
    assert job.run("--exclude", second).code == 1
    assert outcomes(job.out) == [("excluded", "row_excluded")] * 2
    job.configure()
    done = job.run()
    assert done.code == 2
    assert "this job was started with --exclude" in done.err
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    assert quarry("retry", job.out, "--outcome", "excluded", cwd=elsewhere).code == 1
    assert outcomes(job.out) == [("excluded", "row_excluded")] * 2
    assert not archive.requests("move")
