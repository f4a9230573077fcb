"""A job is removed by its owner, while nothing works on it; and its weight."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from dicom_quarry import api
from dicom_quarry.errors import InputError
from tests.e2e.command import quarry
from tests.named_jobs.named_job import NamedJob
from tests.peers.process import wait_for


def schemas_of(job: NamedJob) -> list[str]:
    with psycopg.connect(job.database) as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ '^job_'").fetchall()
    return [name for (name,) in rows]


def test_reports_are_written_where_the_folder_is_not(job: NamedJob, work: Path) -> None:
    assert job.run().code == 1
    elsewhere = job.out.rename(work / "elsewhere")  # as on another computer
    assert f"the images of {job.label} are in {job.out} of the computer" in quarry("report", job.label).err
    done = quarry("report", job.label, "--to", "reports", "--xlsx")
    assert done.code == 1, done.err
    names = {path.name for path in (work / "reports").iterdir()}
    assert names >= {"report.csv", "studies.csv", "manifest.csv.gz", "proof.json", "report.html", "audit.csv"}
    assert (work / "reports" / "report.csv").read_bytes() == (elsewhere / "report.csv").read_bytes()
    assert (work / "reports").stat().st_mode & 0o777 == 0o700
    assert not job.out.exists()
    refused = quarry("report", job.label, "--to", elsewhere)
    assert refused.code == 2
    assert "is the folder of a job" in refused.err


def test_a_job_is_removed_with_its_record_and_its_files_stay(job: NamedJob) -> None:
    assert job.run().code == 1
    schema, before = job.place.ledger.schema, sorted(job.out.rglob("*.dcm"))
    asked = quarry("cluster", "remove", job.label)
    assert asked.code == 2
    assert f"would go: the record of {job.label}, with 5 rows, 4 studies, " in asked.out
    assert f"would stay: {job.out} of the computer " in asked.out
    assert f"nothing was removed. To remove it:  quarry cluster remove {job.label} --yes" in asked.err
    assert schema in schemas_of(job)
    done = quarry("cluster", "remove", job.label, "--yes")
    assert (done.code, done.err) == (0, "")
    assert f"gone: the record of {job.label}" in done.out
    assert schema not in schemas_of(job)
    assert sorted(job.out.rglob("*.dcm")) == before != []
    assert f"has no {job.label}" in quarry("status", job.label).err
    assert f"has no {job.label}" in quarry("cluster", "remove", job.label, "--yes").err
    again = job.run()
    assert (again.code, job.status().counts.studies_complete) == (1, 4), "the folder is free"
    pointer = job.place.state / "job.json"
    text = pointer.read_text()
    assert quarry("cluster", "remove", job.label, "--yes").code == 0
    pointer.write_text(text)  # as on a computer from which it was not removed
    for told in (quarry("status", job.out), job.run()):
        assert told.code == 2
        assert f"was the folder of {job.label}, which is not in {job.database} any more: " in told.err
        assert "removed it on 2" in told.err
        assert f"delete {pointer}" in told.err


def test_not_while_something_works_on_it(job: NamedJob) -> None:
    with job.start() as running:
        wait_for(lambda: job.hold.reached, "the second study", 60)
        refused = quarry("cluster", "remove", job.label, "--yes")
        assert refused.code == 3
        assert f"{job.label} is not removed: a process works on it" in refused.err
        assert f"quarry stop {job.label}" in refused.err
        job.hold.released = True
        assert running.wait() == 1
    job.place.hand_over("", command="", is_changed=False)
    assert "is not removed: the workers have it" in quarry("cluster", "remove", job.label, "--yes").err


def test_the_weight_of_a_job_is_set_by_a_command(job: NamedJob) -> None:
    job.cluster.add(job.name, job.out)
    assert f"{job.label} has the weight 2.5" in quarry("cluster", "weight", job.label, "2.5").out
    for wrong in (0, -1, float("nan"), 1e9):
        with pytest.raises(InputError, match="a weight is more than 0"):
            api.set_weight(job.label, wrong)
    with pytest.raises(InputError, match="write it as job:NAME"):
        api.set_weight(job.name, 2)
    with pytest.raises(InputError, match="has no job:nowhere"):
        api.set_weight("job:nowhere", 2)
    with psycopg.connect(job.database) as connection:
        found = connection.execute("SELECT weight FROM quarry.jobs WHERE name = %s", (job.name,)).fetchone()
    assert found == (2.5,)
