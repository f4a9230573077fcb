"""Complete studies are handed over to a command: at least once, tried again, through kill -9 and stops."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.ledger.reader import LedgerReader
from tests.e2e.command import (
    Running,
    digests,
    files,
    manifest,
    outcomes,
    path_for_shell,
    quarry,
    report,
    status,
    studies,
    until,
)
from tests.e2e.file_systems import small_disk
from tests.e2e.job_runs import Job, accessions, script
from tests.scripted import ScriptedArchive

STUDIES = generate_studies(3, seed=21, images=4)
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _quarry_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path_for_shell())


@pytest.fixture
def archive() -> Iterator[ScriptedArchive]:
    with ScriptedArchive(STUDIES) as running:
        yield running


def job_with(work: Path, archive: ScriptedArchive, *settings: str, tables: str = "") -> Job:
    job = Job(work, archive, accessions(STUDIES))
    job.toml.write_text("\n".join([*settings, job.toml.read_text(), tables]))
    return job


def all_complete(out: Path) -> bool:
    """Of a job that runs, without a process each time."""
    with closing(LedgerReader(out / ".quarry" / "ledger.db")) as reader:
        return reader.counts().studies_complete == len(STUDIES)


def handed(job: Job) -> list[str]:
    return [row["on_complete"] for row in studies(job.out)]


def test_a_command_by_its_name_is_that_of_the_settings_file_and_not_in_the_record(
    work: Path, archive: ScriptedArchive
) -> None:
    notes = work / "notes"
    ship = script(work / "ship.sh", f'echo "$QUARRY_STUDY_UID" >> {notes}')
    job = job_with(work, archive, 'on-complete = "command:ship"')
    refused = job.run()
    assert refused.code == 2
    assert "write the command ship below [commands] in quarry.toml" in refused.err
    job.toml.write_text(f'{job.toml.read_text()}\n[commands]\nship = "{ship}"')
    assert job.run().code == 0
    assert sorted(notes.read_text().split()) == sorted(one.study_uid for one in STUDIES)
    with closing(LedgerReader(job.out / ".quarry" / "ledger.db")) as reader:
        assert str(ship) not in str(reader.metadata())


def test_a_command_that_fails_twice_is_run_a_third_time(work: Path, archive: ScriptedArchive) -> None:
    ship = script(
        work / "ship.sh",
        'cat > "told-$QUARRY_STUDY_UID.json"; echo x >> "tries-$QUARRY_STUDY_UID"\n'
        '[ $(wc -l < "tries-$QUARRY_STUDY_UID") -ge 3 ] || { echo no space at the other end; exit 7; }',
    )
    job = job_with(work, archive, f'on-complete = "{ship} first"', "on-complete-parallel = 3")
    done = job.run()
    assert done.code == 0, done.out + done.err
    assert done.out.count("on-complete failed, it ended with exit code 7; again in") == 6
    assert "on-complete: 3 done" in done.out
    assert "no space at the other end" not in done.out, "a command's words may name a patient"
    assert handed(job) == ["done"] * 3
    told = [json.loads(path.read_text()) for path in work.glob("told-*.json")]
    assert {one["study_uid"] for one in told} == {study.study_uid for study in STUDIES}
    listed = {row["path"]: row["sha256"] for row in manifest(job.out)}
    assert {file["path"]: file["sha256"] for one in told for file in one["files"]} == listed
    for one in told:
        assert (one["out"], one["outcome"], one["try"], one["instances"]) == (str(job.out), "complete", 3, 4)
        assert Path(one["folder"]).name == one["study_uid"]
        assert all(Path(folder).is_dir() for folder in one["folders"])
        assert one["accession"] == report(job.out)[one["rows"][0] - 1]["Accession"]
    assert quarry("verify", job.out).code == 0
    again = job.run()
    assert "Nothing to do" in again.out and again.code == 0
    assert len((work / f"tries-{STUDIES[0].study_uid}").read_text().split()) == 3


def test_what_still_fails_is_reported_and_tried_by_the_next_run(work: Path, archive: ScriptedArchive) -> None:
    ship = script(work / "ship.sh", "echo patient unknown there >&2; test -e mended")
    job = job_with(work, archive, f'on-complete = "{ship} {{folder}}"', 'on-complete-patience = "0s"')
    done = job.run()
    assert done.code == 1, done.out + done.err
    assert "on-complete: 3 failed" in done.out
    assert outcomes(job.out) == [("complete", "all_listed_stored")] * 3
    assert handed(job) == ["failed"] * 3
    said = {row["on_complete_error"] for row in studies(job.out)}
    assert said == {"it ended with exit code 1: patient unknown there"}
    assert status(job.out)["exit code"] == 1
    moves = len(archive.requests("move"))
    (work / "mended").touch()
    again = quarry("retry", job.out)
    assert again.code == 0, again.out + again.err
    assert handed(job) == ["done"] * 3
    assert len(archive.requests("move")) == moves


def test_killed_while_the_command_runs_it_is_run_again(work: Path, archive: ScriptedArchive) -> None:
    ship = script(
        work / "ship.sh",
        "echo $QUARRY_STUDY_UID >> begun; while [ ! -e go ]; do sleep 0.05; done; cat > /dev/null",
    )
    job = job_with(work, archive, f'on-complete = "{ship}"')
    with Running(work / "run.txt", *job.command()) as running:
        # One command waits, and the retrieval does not wait for it.
        until(running, "the command", (work / "begun").exists)
        until(running, "all three", lambda: all_complete(job.out))
        assert status(job.out)["waiting_for"] in (None, "the commands of on-complete to end")
        running.kill()
    moves = len(archive.requests("move"))
    first = (work / "begun").read_text().split()
    assert len(first) == 1
    assert status(job.out)["exit code"] == 4
    (work / "go").touch()
    done = job.run()
    assert done.code == 0, done.out + done.err
    assert sorted((work / "begun").read_text().split()) == sorted(
        [*first, *(one.study_uid for one in STUDIES)]
    )
    assert len(archive.requests("move")) == moves
    assert handed(job) == ["done"] * 3


def test_a_stop_lets_the_command_end_and_begins_no_other(work: Path, archive: ScriptedArchive) -> None:
    ship = script(work / "ship.sh", "echo >> begun; while [ ! -e go ]; do sleep 0.05; done; echo >> ended")
    job = job_with(work, archive, f'on-complete = "{ship}"')
    with Running(work / "run.txt", *job.command()) as running:
        until(running, "the command", (work / "begun").exists)
        until(running, "all three", lambda: all_complete(job.out))
        running.interrupt()
        until(running, "the stop", lambda: "stopping" in running.output)
        (work / "go").touch()
        assert running.wait() == 4
    assert (work / "begun").read_text() == (work / "ended").read_text() == "\n"
    assert "on-complete: 1 done, 2 not done yet" in running.output
    assert job.run().code == 0
    assert (work / "ended").read_text() == "\n" * 3


def test_stopped_twice_the_command_is_ended_with_what_it_started(
    work: Path, archive: ScriptedArchive
) -> None:
    ship = script(work / "ship.sh", "sleep 600 & echo $! > child; wait")
    job = job_with(work, archive, f'on-complete = "{ship}"')
    with Running(work / "run.txt", *job.command()) as running:
        until(running, "the command", lambda: (work / "child").exists() and (work / "child").read_text())
        until(running, "all three", lambda: all_complete(job.out))
        child = int((work / "child").read_text())
        running.interrupt()
        until(running, "the stop", lambda: "stopping" in running.output)
        running.interrupt()
        assert running.wait() == 4
    assert not alive(child)


def test_a_command_that_hangs_is_ended_in_time(work: Path, archive: ScriptedArchive) -> None:
    ship = script(work / "ship.sh", "trap '' TERM; sleep 600 & echo $! >> child; [ -e mended ] || wait")
    limits = ('on-complete-limit = "1s"', 'on-complete-patience = "0s"', "on-complete-parallel = 3")
    job = job_with(work, archive, f'on-complete = "{ship}"', *limits)
    done = job.run()
    assert done.code == 1
    assert "it took longer than 1 s and was stopped" in done.out
    assert not any(alive(int(child)) for child in (work / "child").read_text().split())


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_the_command_moves_away_is_released(work: Path, archive: ScriptedArchive) -> None:
    (work / "elsewhere").mkdir()
    job = job_with(work, archive, f'on-complete = "mv {{folder}} {work}/elsewhere"')
    assert job.run().code == 0
    assert all(row["released_at"] for row in studies(job.out))
    assert not files(job.out)
    assert len(files(work / "elsewhere")) == 12
    assert status(job.out)["studies_released"] == 3
    checked = quarry("verify", job.out)
    assert checked.code == 0
    assert "12 files of released studies were not compared" in checked.out


def test_released_by_its_command_a_study_is_never_moved_again(work: Path, archive: ScriptedArchive) -> None:
    ship = script(
        work / "ship.sh",
        'set -e; mkdir -p elsewhere; cp -a "$QUARRY_FOLDER" elsewhere\n'
        'quarry release "$QUARRY_OUT" --study "$QUARRY_STUDY_UID" --delete',
    )
    job = job_with(work, archive, f'on-complete = "{ship}"', "on-complete-parallel = 3")
    done = job.run()
    assert done.code == 0, done.out + done.err
    assert "3 studies released" in done.out
    assert not files(job.out)
    assert not [path for path in job.out.iterdir() if path.is_dir() and path.name != ".quarry"]
    shipped = digests(work / "elsewhere")
    assert sorted(shipped.values()) == sorted(row["sha256"] for row in manifest(job.out))
    moves = len(archive.requests("move"))
    job.cohort.write_text(job.cohort.read_text() + "NOSUCH\n")
    assert job.run("--update").code == 1
    assert quarry("retry", job.out, "--outcome", "complete").code == 1
    assert job.run().code == 1
    assert len(archive.requests("move")) == moves
    assert outcomes(job.out)[:3] == [("complete", "all_listed_stored")] * 3
    assert [int(row["stored"]) for row in studies(job.out)] == [4, 4, 4]
    assert quarry("verify", job.out).code == 0


def test_begun_later_it_takes_what_is_complete_and_forgets_when_it_is_gone(
    work: Path, archive: ScriptedArchive
) -> None:
    job = job_with(work, archive)
    assert job.run().code == 0
    assert handed(job) == [""] * 3
    job.toml.write_text('on-complete = "false"\non-complete-patience = "0s"\n' + job.toml.read_text())
    assert job.run().code == 1
    assert handed(job) == ["failed"] * 3
    assert job.run("--on-complete", "true").code == 0
    assert handed(job) == ["done"] * 3


def test_a_program_that_is_not_there_is_named_before_anything_is_asked(
    work: Path, archive: ScriptedArchive
) -> None:
    job = job_with(work, archive, 'on-complete = "no-such-program {folder}"')
    done = job.run()
    assert done.code == 2
    assert "on-complete: there is no program 'no-such-program'" in done.err
    assert not archive.requests("find")


def test_more_cohort_than_disk(work: Path) -> None:
    """The script of the documentation, on a disk that has room for a part of the cohort alone."""
    page = (DOCS / "running-for-days.md").read_text()
    text = re.search(r"```text\n#!/bin/sh\n(.*?QUARRY_FOLDER.*?)```", page, re.DOTALL)
    assert text is not None
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    # Not before the disk is full: the retrieval has to wait for it.
    full = "while ! grep -q 'disk full' run.txt; do sleep 0.05; done\n"
    ship = script(work / "ship.sh", full + text[1].replace("/mnt/elsewhere", str(elsewhere)))
    cohort = generate_studies(5, seed=14, profile="ct", images=4)  # 2.1 MB each
    with ScriptedArchive(cohort) as archive, small_disk(work / "disk", "40m") as disk:
        job = Job(work, archive, accessions(cohort))
        job.out = disk / "out"
        job.toml.write_text(f'keep-free = 0.02\non-complete = "{ship}"\n{job.toml.read_text()}')
        # Room for two or three studies beside the reserve and the job's own record.
        (disk / "others").write_bytes(bytes(15_500_000))
        with Running(work / "run.txt", *job.command()) as running:
            assert running.wait() == 0, running.output
        assert "there is enough free disk space again" in running.output
        assert "5 studies released" in running.output
        assert not files(job.out)
        assert sorted(digests(elsewhere).values()) == sorted(row["sha256"] for row in manifest(job.out))
        assert len(manifest(job.out)) == 20
        assert quarry("verify", job.out).code == 0


def test_no_secret_and_no_identifier_reaches_the_command_unless_it_is_wanted(
    work: Path, archive: ScriptedArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PACS_PASSWORD", "AWS_PROFILE"):
        monkeypatch.setenv(name, "secret")
    hook = script(
        work / "hook.sh", f'env > {work}/env; echo "$1" >> {work}/words; cat "$1" >> {work}/folders'
    )
    command = f"on-complete = '{hook} {{folder-file}}'"
    job = job_with(work, archive, command, "on-complete-env = ['AWS_*']")
    assert job.run().code == 0
    names = {line.partition("=")[0] for line in (work / "env").read_text().splitlines()}
    assert {"PATH", "QUARRY_FOLDER", "AWS_PROFILE"} <= names
    assert "PACS_PASSWORD" not in names
    folders = {str(path.parent.parent) for path in job.out.rglob("*.dcm")}
    assert set((work / "folders").read_text().splitlines()) == folders
    words = (work / "words").read_text()
    assert not any(study.patient.patient_id in words for study in STUDIES)
    assert not list((job.out / ".quarry").glob("on-complete.*")), "removed with the command"
