"""What the commands say and answer, one by one, against an archive that does as the test wants."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import dicom_quarry
from dicom_quarry.demo.query_matching import Catalogue
from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.model import OutcomeStatus
from tests.e2e.command import (
    Done,
    Running,
    check_folder,
    files,
    manifest,
    outcomes,
    quarry,
    report,
    status,
    studies,
    until,
    workbook,
)
from tests.e2e.paused_archive import GatedArchive
from tests.peers.process import free_port, listens

STUDIES = generate_studies(4, seed=5, images=3)
COMPLETE = ("complete", "all_listed_stored")
NOT_FOUND = ("not_found", "study_not_found")


class Job:
    """A cohort over the archive's studies, and the command that extracts it."""

    def __init__(self, archive: GatedArchive, folder: Path) -> None:
        self.archive = archive
        self.folder = folder
        self.cohort = folder / "cohort.csv"
        self.out = folder / "out"
        self.port = free_port()
        archive.destinations["QUARRY"] = ("127.0.0.1", self.port)
        self.write([study.accession for study in STUDIES])

    def write(self, accessions: list[str]) -> None:
        self.cohort.write_text("\n\n".join(["Accession", *accessions]) + "\n")

    @property
    def command(self) -> tuple[object, ...]:
        receiver = f"QUARRY@127.0.0.1:{self.port}"
        return ("extract", self.cohort, "--from", self.archive.ae, "--as", receiver, "--to", self.out)

    def run(self, *options: object) -> Done:
        return quarry(*self.command, *options)

    def running(self, *options: object) -> Running:
        """The command, in the middle of a move."""
        running = Running(self.folder / "output.txt", *self.command, *options)
        try:
            until(running, "the archive to hold", self.archive.held.is_set)
        except BaseException:
            running.kill()
            raise
        return running


@pytest.fixture
def archive() -> Iterator[GatedArchive]:
    with GatedArchive(STUDIES) as server:
        yield server


@pytest.fixture
def job(archive: GatedArchive, work: Path) -> Job:
    return Job(archive, work)


@pytest.fixture
def held(job: Job) -> Job:
    """The archive will hold in the second study, after its first instance."""
    job.archive.hold_after = 4
    return job


def sentence(done: Done) -> str:
    """The one thing that a command said before it gave up."""
    assert done.err.startswith("quarry: ") and done.err.count("\n") == 1, done.err
    return done.err.removeprefix("quarry: ").strip()


# -- what cannot start


def test_a_port_in_use(job: Job) -> None:
    with socket.create_server(("127.0.0.1", job.port)):
        done = job.run()
    assert done.code == 3
    assert f"port {job.port} is held by " in sentence(done)
    assert "receive on another port" in done.err
    assert not job.archive.finds and not job.archive.moves
    assert job.run().code == 0, "the refused start stands in the way of the next one"


def test_an_archive_that_is_not_there(job: Job) -> None:
    job.archive.stop()
    done = job.run()
    assert done.code == 3
    assert str(job.archive.port) in sentence(done) and "Check that the archive is running" in done.err
    assert not listens(job.port)


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (None, (), "cohort.csv"),
        ("", (), "cohort.csv"),
        ("Accession\n", (), "no row below it"),
        ("Ward,Bed\nA,1\n", (), "no column name is recognised; the table has 'Ward', 'Bed'"),
        ("AAAAA,20180723\nAAAAA,20180724\n", (), "looks like data, not like a header"),
        ("EMPI,MRN\nA,B\n", (), "both mean PatientID"),
        ("Accession\nA*\n", (), "wildcard"),
        ("EMPI\nAAAAA\n", (), "--whole-patients"),
        ("EMPI,Accession\nAAAAA,\n", (), "row 1, line 2: a patient alone"),
        ("Study Date\n20180723\n", (), "a date alone"),
        ("Accession\nA\n", ("--filepath", "{NoSuchThing}/x.dcm"), "NoSuchThing"),
        ("Accession\nA\n", ("--filepath", "{csv:Ward}/{SOPInstanceUID}.dcm"), "no such column"),
        ("Accession\nA\n", ("--filepath", "/etc/{SOPInstanceUID}"), "path pattern is relative"),
        ("Accession\nA\n", ("--parallel", "99"), "parallel"),
        ("Accession\nA\n", ("--from", "main"), "no archive is called 'main'"),
        ("Accession\nA\n", ("--from", "PACS@host"), "AET@HOST:PORT"),
        ("Accession\nA\n", ("--as", "QUARRY"), "AET[@IP]:PORT"),
        ("Accession\nA\n", ("--config", "nowhere.toml"), "nowhere.toml"),
        ("Accession\nA\n", ("--nonsense",), "--nonsense"),
    ],
)
def test_what_cannot_be_used(job: Job, table: str | None, options: tuple[str, ...], said: str) -> None:
    job.cohort.unlink()
    if table is not None:
        job.cohort.write_text(table)
    done = job.run(*options)
    assert done.code == 2, done.err
    assert said in done.err
    assert not job.archive.associations, "the archive was bothered"
    assert not job.out.exists(), "a folder was made"


def test_rows_that_cannot_be_used_can_be_left_out(job: Job) -> None:
    job.write([STUDIES[0].accession, "A*", STUDIES[1].accession])
    assert job.run().code == 2
    assert job.run("--skip-bad-rows").code == 1
    assert outcomes(job.out) == [COMPLETE, ("invalid_row", "row_unusable"), COMPLETE]
    assert "wildcard" in report(job.out)[1]["quarry_reason"]


def test_commands_on_a_folder_without_a_job(work: Path) -> None:
    for command in ("status", "report", "verify", "retry"):
        done = quarry(command, work)
        assert done.code == 2
        assert "holds no job" in sentence(done)


# -- settings


def test_settings_from_quarry_toml(job: Job) -> None:
    lines = [
        *('from = "main"', f'to = "{job.out}"', f'as = "QUARRY@127.0.0.1:{job.port}"', "parallel = 2"),
        *("[archive.main]", f'address = "{job.archive.ae}"', "settle = 1"),
        *("[archive.other]", 'address = "OTHER@127.0.0.1:9"'),
    ]
    (job.folder / "quarry.toml").write_text("\n".join(lines))
    assert quarry("extract", job.cohort).code == 0
    assert {row["outcome"] for row in studies(job.out)} == {"complete"}
    # A flag wins: this archive does not answer.
    assert quarry("extract", job.cohort, "--from", "other", "--to", job.folder / "elsewhere").code == 3
    elsewhere = job.folder / "settings.toml"
    (job.folder / "quarry.toml").rename(elsewhere)
    assert quarry("extract", job.cohort).code == 2
    assert quarry("extract", job.cohort, "--config", elsewhere).code == 0
    elsewhere.write_text("speed = 9\n" + elsewhere.read_text())
    assert "'speed' is not a setting" in quarry("extract", job.cohort, "--config", elsewhere).err


def test_state_elsewhere(job: Job) -> None:
    state = job.folder / "state"
    job.archive.hold_after = None
    assert job.run("--state", "state").code == 0
    assert {path.name for path in state.iterdir()} >= {"ledger.db", "quarry.log"}
    assert {path.name for path in (job.out / ".quarry").iterdir()} == {"incoming", "state-folder"}
    check_folder(job.out)
    assert status(job.out)["exit code"] == 0
    assert quarry("verify", job.out).code == 0
    assert quarry("report", job.out).code == 0
    again = job.run()
    assert again.code == 0 and "Nothing to do" in again.out
    other = job.run("--state", job.folder / "other")
    assert other.code == 2 and str(state) in sentence(other)
    elsewhere = job.folder / "elsewhere"
    elsewhere.mkdir()
    assert quarry("retry", job.out, cwd=elsewhere).code == 0


# -- going on


def test_a_changed_cohort(job: Job) -> None:
    accessions = [study.accession for study in STUDIES]
    job.write(accessions[:3])
    assert job.run().code == 0
    moves = dict(job.archive.moves)
    job.write([*accessions[1:], "NOBODY"])
    refused = job.run()
    assert refused.code == 2
    assert "--update" in sentence(refused)
    assert job.archive.moves == moves
    updated = job.run("--update")
    assert updated.code == 1
    assert "2 rows added, 1 removed, 0 changed" in updated.out
    assert outcomes(job.out) == [COMPLETE, COMPLETE, COMPLETE, NOT_FOUND]
    assert [row["Accession"] for row in report(job.out)] == [*accessions[1:], "NOBODY"]
    assert job.archive.moves == {study.study_uid: 1 for study in STUDIES}
    assert job.run().code == 1, "the table is now that of the job"


def test_another_archive_or_layout_is_refused(job: Job) -> None:
    assert job.run().code == 0
    with GatedArchive(STUDIES, title="OTHER") as other:
        assert "is filled from DEMO" in sentence(job.run("--from", other.ae))
    assert "are named by --layout niffler: give that option again" in sentence(
        job.run("--filepath", "{SOPInstanceUID}.dcm")
    )


def test_a_finished_folder_needs_no_archive(job: Job) -> None:
    job.write([STUDIES[0].accession, "NOBODY"])
    assert job.run().code == 1
    before = files(job.out)
    job.archive.stop()
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", job.archive.port)) as nobody_calls:
        nobody_calls.settimeout(0)
        done = job.run()
        with pytest.raises(BlockingIOError):
            nobody_calls.accept()
    print(f"a finished folder: {time.monotonic() - started:.2f} s")
    assert done.code == 1
    assert "Nothing to do" in done.out
    assert "row 2" in done.out and "study_not_found" in done.out
    assert files(job.out) == before


def test_interrupted_once_and_run_again(held: Job) -> None:
    with held.running() as running:
        running.interrupt()
        until(running, "the job to stop", lambda: stopping(held))
        assert listens(held.port), "what is in flight has nowhere to go"
        held.archive.open()
        assert running.wait() == 4
    assert not listens(held.port)
    assert "run the same command again" in running.output
    assert outcomes(held.out)[:2] == [COMPLETE, COMPLETE], "what was in flight was not finished"
    assert ("pending", "pending") in outcomes(held.out)
    assert status(held.out)["exit code"] == 4
    assert held.run().code == 0
    assert outcomes(held.out) == [COMPLETE] * len(STUDIES)
    assert set(held.archive.moves.values()) == {1}
    check_folder(held.out)


def stopping(job: Job) -> bool:
    progress = job.out / ".quarry" / "progress.json"
    return progress.is_file() and '"stopping": true' in progress.read_text()


def test_interrupted_twice(held: Job) -> None:
    """What is in flight is cancelled, and the archive heeds that: nobody opens the gate."""
    with held.running() as running:
        running.interrupt()
        until(running, "the job to stop", lambda: stopping(held))
        running.interrupt()
        assert running.wait() == 4
        assert not listens(held.port)
    assert len(files(held.out)) == 4
    assert outcomes(held.out) == [COMPLETE, *[("pending", "pending")] * 3]
    held.archive.open()
    assert held.run().code == 0
    assert outcomes(held.out) == [COMPLETE] * len(STUDIES)
    check_folder(held.out)


def test_two_runs_on_one_folder(held: Job) -> None:
    with held.running() as running:
        second = held.run()
        assert second.code == 3
        assert f"another quarry (process {running.pid}) is already working on" in sentence(second)
        retry = quarry("retry", held.out)
        assert retry.code == 3
        held.archive.open()
        assert running.wait() == 0
    assert outcomes(held.out) == [COMPLETE] * len(STUDIES)


# -- looking on


def test_status_and_report_while_it_runs_and_after(held: Job) -> None:
    with held.running() as running:
        until(running, "the first study to be complete", lambda: status(held.out)["studies_complete"] == 1)
        until(running, "the move to be told", lambda: status(held.out)["active_studies"])
        facts = status(held.out)
        assert facts["running"] and facts["process"] == running.pid and not facts["finished"]
        assert facts["rows"] == len(STUDIES) and facts["exit code"] == 4
        assert facts["rows_by_outcome"] == {"complete": 1, "pending": len(STUDIES) - 1}
        assert facts["active_studies"][0]["listed"] == 3
        plain = quarry("status", held.out)
        assert plain.code == 4 and f"running (process {running.pid})" in plain.out

        middle = quarry("report", held.out)
        assert middle.code == 4
        assert outcomes(held.out) == [COMPLETE, *[("pending", "pending")] * (len(STUDIES) - 1)]
        assert len(manifest(held.out)) == 3
        held.archive.open()
        assert running.wait() == 0
    assert outcomes(held.out) == [COMPLETE] * len(STUDIES)
    facts = status(held.out)
    assert facts["finished"] and not facts["running"] and facts["exit code"] == 0
    assert facts["instances_stored"] == facts["instances_expected"] == 3 * len(STUDIES)
    assert facts["bytes"] == sum((held.out / name).stat().st_size for name in files(held.out))
    assert "finished" in quarry("status", held.out).out


def test_the_reports_as_a_workbook(job: Job) -> None:
    """Asked for once, report.xlsx is kept up to date: it must not tell of an earlier state."""
    job.archive.catalogue = Catalogue(STUDIES[:3])
    assert job.run().code == 1
    book = job.out / "report.xlsx"
    assert not book.exists()
    assert quarry("report", job.out, "--xlsx").code == 1
    assert workbook(book) == report(job.out)
    assert book.stat().st_mode & 0o777 == 0o600
    job.archive.catalogue = Catalogue(STUDIES)
    assert quarry("retry", job.out).code == 0
    assert outcomes(job.out) == [COMPLETE] * len(STUDIES)
    assert workbook(book) == report(job.out)


def test_verify_finds_what_has_changed(job: Job) -> None:
    assert job.run().code == 0
    assert quarry("verify", job.out).code == 0
    rows = manifest(job.out)
    flipped, cut, gone = (job.out / rows[at]["path"] for at in (0, 4, 8))
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-2])
    gone.unlink()
    job.archive.stop()
    slow, quick = quarry("verify", job.out), quarry("verify", job.out, "--quick")
    assert slow.code == quick.code == 1
    found = [{row["sop_uid"] for row in rows if row["sop_uid"] in done.err} for done in (slow, quick)]
    assert found == [{rows[at]["sop_uid"] for at in (0, 4, 8)}, {rows[at]["sop_uid"] for at in (4, 8)}]
    assert "3 damaged or missing" in slow.out and "2 damaged or missing" in quick.out
    assert "is missing" in slow.err and "has other content" in slow.err and "bytes instead of" in slow.err


def test_verify_works_where_the_folder_was_moved_to(job: Job) -> None:
    assert job.run().code == 0
    moved = job.out.rename(job.folder / "moved")
    assert quarry("verify", moved).code == 0
    assert status(moved)["exit code"] == 0


# -- trying again


def test_retry_finds_what_has_come_to_the_archive(job: Job) -> None:
    job.archive.catalogue = Catalogue(STUDIES[:2])
    assert job.run().code == 1
    assert outcomes(job.out) == [COMPLETE, COMPLETE, NOT_FOUND, NOT_FOUND]
    job.archive.catalogue = Catalogue(STUDIES[:3])
    done = quarry("retry", job.out)
    assert done.code == 1, done.err
    assert outcomes(job.out) == [COMPLETE, COMPLETE, COMPLETE, NOT_FOUND]
    assert quarry("retry", job.out, "--outcome", "partial").code == 1
    job.archive.catalogue = Catalogue(STUDIES)
    elsewhere = job.folder / "elsewhere"
    elsewhere.mkdir()
    assert quarry("retry", "../out", "--outcome", "not_found", cwd=elsewhere).code == 0
    assert outcomes(job.out) == [COMPLETE] * 4
    assert set(job.archive.moves.values()) == {1}
    assert not list(elsewhere.iterdir())
    check_folder(job.out)


def test_retry_of_a_job_that_was_begun_with_a_relative_path(job: Job) -> None:
    job.archive.catalogue = Catalogue(STUDIES[:3])
    receiver = f"QUARRY@127.0.0.1:{job.port}"
    command = ("extract", "cohort.csv", "--from", job.archive.ae, "--as", receiver, "--to", "out")
    assert quarry(*command, cwd=job.folder).code == 1
    job.archive.catalogue = Catalogue(STUDIES)
    elsewhere = job.folder / "elsewhere"
    elsewhere.mkdir()
    done = quarry("retry", job.out, cwd=elsewhere)
    assert done.code == 0, done.err
    assert outcomes(job.out) == [COMPLETE] * 4
    assert not list(elsewhere.iterdir())


# -- the same from Python


def test_the_function_does_what_the_command_does(job: Job) -> None:
    job.write([STUDIES[0].accession, "NOBODY"])
    result = dicom_quarry.extract(
        job.cohort,
        archive=str(job.archive.ae),
        receiver=f"QUARRY@127.0.0.1:{job.port}",
        to=job.out,
        parallel=2,
    )
    assert result.exit_code == 1
    assert [row.outcome.status for row in result.rows()] == [OutcomeStatus.COMPLETE, OutcomeStatus.NOT_FOUND]
    assert [study.study.study_uid for study in result.studies()] == [STUDIES[0].study_uid]
    assert outcomes(job.out) == [COMPLETE, NOT_FOUND]
    assert not listens(job.port)
    assert all(not checked.problem for checked in dicom_quarry.verify(job.out))
    assert job.run().code == 1, "the command goes on with the function's job"
