"""A job with a name: the same result as in a folder, every command on ``job:NAME``, and what is refused."""

from __future__ import annotations

import csv
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

import dicom_quarry
from dicom_quarry import api
from dicom_quarry.errors import InputError
from dicom_quarry.ledger.file_state import FileDamage, record_damage
from tests.e2e.command import check_folder, digests, quarry, report, studies
from tests.named_jobs.named_job import STUDIES, NamedJob
from tests.peers.process import free_port, wait_for


@pytest.fixture(scope="module")
def finished_job(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[NamedJob]:
    """A job that has ended, and one in the folder ``there``; a test leaves them to those below it."""
    with pytest.MonkeyPatch.context() as patch, NamedJob(tmp_path_factory.mktemp("named"), database) as made:
        patch.chdir(made.work)
        patch.setenv("XDG_STATE_HOME", str(made.work / "state"))
        assert made.run("--protocol", "IRB-1").code == 1
        assert made.run_in_folder(made.work / "there").code == 1
        yield made


@pytest.fixture
def finished(finished_job: NamedJob, monkeypatch: pytest.MonkeyPatch) -> NamedJob:
    """The same, in its folder."""
    monkeypatch.chdir(finished_job.work)
    monkeypatch.setenv("XDG_STATE_HOME", str(finished_job.work / "state"))
    return finished_job


def without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: cell for name, cell in row.items() if not name.endswith("_at")} for row in rows]


def test_the_result_is_that_of_a_job_in_a_folder(finished: NamedJob) -> None:
    job = finished
    assert {path.name for path in (job.out / ".quarry").iterdir()} == {
        *("incoming", "quarry.log", "job.json", "audit.csv")
    }
    check_folder(job.out)
    there = job.work / "there"
    assert without_times(report(job.out)) == without_times(report(there))
    assert without_times(studies(job.out)) == without_times(studies(there))
    assert digests(job.out) == digests(there)
    before = job.place.job.number
    again = job.run("--protocol", "IRB-1")
    assert again.code == 1 and "Nothing to do" in again.out and job.place.job.number == before


def test_a_path_that_exists_is_that_path(finished: NamedJob) -> None:
    job = finished
    folder = job.work / job.label
    shutil.copytree(job.work / "there", folder)
    facts = json.loads(quarry("status", job.label, "--json").out)
    assert facts["name"] is None
    unknown = quarry("status", job.name)
    assert unknown.code == 2 and f"{job.name} holds no job" in unknown.err
    shutil.rmtree(folder)


def test_what_is_refused(finished: NamedJob) -> None:
    job = finished
    elsewhere = quarry(*job.command("--to", "elsewhere"))
    assert elsewhere.code == 2 and f"{job.label} extracts to {job.out}" in elsewhere.err
    assert not (job.work / "elsewhere").exists()
    other = quarry(*job.command("--job", "other"))
    assert other.code == 2 and f"is the folder of {job.label}" in other.err
    nameless = job.run_in_folder(job.out)
    assert nameless.code == 2 and "give its name with --job" in nameless.err
    received = quarry("receive", "-b", f"QUARRY:{free_port()}", "--directory", job.out)
    assert received.code == 2 and "is the folder of a job" in received.err
    recorded = quarry(*job.command("--job", "other", "--to", job.work / "there"))
    assert recorded.code == 2 and "leave --job out" in recorded.err
    for name in ("", "-x", "a/b", "a b", "ä", "x" * 64):
        done = quarry(*job.command(f"--job={name}"))
        assert done.code == 2 and "cannot be the name of a job" in done.err, name
    assert "--state does not go with --job" in job.run("--state", "s").err
    assert f"no {job.label}x" in quarry("status", f"{job.label}x").err
    with job.cluster.connected() as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM quarry.jobs")}
    assert "other" not in names


def test_the_functions_take_the_name(finished: NamedJob) -> None:
    job = finished
    opened = dicom_quarry.open(job.label)
    assert opened.status().state == "finished" and opened.folder == job.out
    assert [row.outcome.status for row in opened.rows()][-1] == "not_found"
    assert not opened.verify().damaged and opened.report().exit_code == 1
    assert opened.retry(["not_found"]).exit_code == 1
    assert not opened.stop()
    assert dicom_quarry.open(job.out).status().folder.label == job.label


def test_the_pages_notice_what_changes(finished: NamedJob) -> None:
    job = finished
    place = next(one for one in api.latest_job_folders() if one.label == job.label)
    signs = place.signs()
    assert place.signs() == signs
    record_damage(place.ledger, None, FileDamage(1, "quarry verify", 0.0))
    wait_for(lambda: place.signs() != signs, "that the server counts the change", 60)
    record_damage(place.ledger, FileDamage(1, "quarry verify", 0.0), None)


def test_a_folder_may_be_moved(finished: NamedJob) -> None:
    job = finished
    moved = job.out.rename(job.work / "moved")
    assert quarry("status", moved).code == 1
    gone = quarry("report", job.label)
    assert gone.code == 2 and f"the images of {job.label} are in {job.out}" in gone.err
    assert quarry(*job.command("--to", moved)).code == 1
    assert job.place.out == moved
    moved.rename(job.out)
    job.cluster.move(job.place.job.number, job.out)


def test_every_command_takes_the_name(finished: NamedJob) -> None:
    job = finished
    facts = json.loads(quarry("status", job.label, "--json").out)
    assert (facts["name"], facts["finished"], facts["killed"]) == (job.name, True, False)
    assert "proved complete" in quarry("explain", job.label, "--row", 1).out
    assert quarry("report", job.label, "--problems").code == 1 and (job.out / "problems.csv").exists()
    proved = quarry("verify", job.label, "--proof")
    assert proved.code == 0 and "The proof holds" in proved.out, proved.out + proved.err
    compared = quarry("verify", job.label, "--against-archive")
    assert compared.code == 0 and "4 complete studies listed again: 4 unchanged" in compared.out
    shown = quarry("list", "--json")
    assert shown.code == 0, shown
    listed = json.loads(shown.out)
    assert [(one["name"], one["folder"]) for one in listed if one["name"] == job.name] == [
        (job.name, str(job.out))
    ]
    lost = next(job.out.rglob("*.dcm"))
    lost.unlink()
    assert quarry("verify", job.label, "--quick").code == 1
    assert quarry("retry", job.label, "--damaged").code == 1 and lost.exists()
    assert quarry("resume", job.label).code == 1
    assert "no job is running" in quarry("stop", job.label).out
    assert "Nothing to do" in quarry("prune", job.label).out
    uid = STUDIES[0].study_uid
    assert "1 study released" in quarry("release", job.label, "--study", uid, "--delete").out
    events = [record["event"] for record in job.place.read_audit()]
    assert events[:6] == ["started", "study", "study", "study", "study", "ended"]
    assert events[-5:] == ["retried", "started", "study", "ended", "released"]
    assert quarry("report", job.label).code == 1
    with (job.out / ".quarry" / "audit.csv").open(encoding="utf-8", newline="") as stream:
        assert [line["event"] for line in csv.DictReader(stream)] == events
    assert quarry("verify", job.label, "--proof").code == 0


def test_commands_of_another_role_are_not_run(finished: NamedJob) -> None:
    job = finished
    assert job.run("--on-complete", "true").code == 1
    assert quarry("resume", job.label).code == 1
    with psycopg.connect(job.database, autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{job.name}"')
        connection.execute(f'GRANT UPDATE ON {job.place.ledger.schema}.job TO "{job.name}"')
    done = quarry("resume", job.label)
    assert done.code == 2 and "other users of the database may change it" in done.err
    assert quarry("resume", job.label, "--trust-owner").code == 1


def test_a_database_is_needed(work: Path, job: NamedJob) -> None:
    text = (work / "quarry.toml").read_text()
    (work / "quarry.toml").write_text(text.replace(job.database, f"{job.database}_2"))
    assert job.run().code == 3
    (work / "quarry.toml").write_text(text.split("[cluster]")[0])
    done = job.run()
    assert done.code == 2 and "which database?" in done.err and not job.out.exists()
    with pytest.raises(InputError, match="which database has job:"):
        dicom_quarry.status(job.label)


def test_a_database_without_a_list(work: Path, job: NamedJob, empty_database: str) -> None:
    text = (work / "quarry.toml").read_text()
    (work / "quarry.toml").write_text(text.replace(job.database, empty_database))
    done = job.run()
    assert done.code == 2 and f"quarry cluster init {empty_database}" in done.err


def test_the_rights_of_the_documentation(work: Path, empty_database: str) -> None:
    assert api.init_cluster(empty_database)
    page = (Path(__file__).parents[2] / "docs" / "many-hosts.md").read_text()
    name = secrets.token_hex(4)
    anna, bob = f"anna_{name}", f"bob_{name}"
    with psycopg.connect(empty_database, autocommit=True) as connection:
        for role in (anna, bob):
            connection.execute(f"CREATE ROLE {role} LOGIN")
            for line in re.findall(r"^ +(GRANT .* TO anna;)$", page, re.MULTILINE):
                database = urlsplit(empty_database).path[1:]
                connection.execute(
                    line.replace("DATABASE quarry", f"DATABASE {database}").replace("anna", role)
                )
    with NamedJob(work, empty_database.replace("quarry@", f"{anna}@")) as job:
        assert job.run().code == 1
        assert quarry("verify", job.label, "--proof").code == 0
        schema = job.place.ledger.schema
        (work / "quarry.toml").write_text(
            (work / "quarry.toml").read_text().replace(f"//{anna}@", f"//{bob}@")
        )
        done = quarry("status", job.label)
        assert done.code == 2 and "no record that you may read" in done.err
        with psycopg.connect(job.database, autocommit=True) as connection:
            for line in re.findall(r"(GRANT [^;]*job_17 TO bob;)", page):
                connection.execute(line.replace("job_17", schema).replace("bob", bob))
        assert quarry("status", job.label).code == 1
        refused = quarry("retry", job.label)
        assert refused.code == 2 and "its members alone can change it" in refused.err
        foreign = quarry("cluster", "remove", job.label, "--yes")
        assert foreign.code == 2 and f"{job.label} belongs to {anna}, who alone can remove it" in foreign.err
        (work / "quarry.toml").write_text(
            (work / "quarry.toml").read_text().replace(f"//{bob}@", f"//{anna}@")
        )
        assert quarry("cluster", "weight", job.label, "2").code == 0
        removed = quarry("cluster", "remove", job.label, "--yes")
        assert removed.code == 0, removed.err


def test_a_database_that_is_away_is_named_once_in_the_list_and_its_jobs_are_not_called_none(
    job: NamedJob,
) -> None:
    assert job.run().code == 1
    port, closed = urlsplit(job.database).port, free_port()
    for file in (job.out / ".quarry" / "job.json", Path("quarry.toml")):
        file.write_text(file.read_text().replace(f":{port}/", f":{closed}/"))
    done = quarry("list")
    assert "No jobs" not in done.out
    assert done.err.count("the database of the jobs cannot be used") == 1, done.err
