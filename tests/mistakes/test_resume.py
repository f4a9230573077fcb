"""A job goes on without its first command, and commands find the job that they are about."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from dicom_quarry.config.credentials import HttpSettings, TlsFiles
from tests.e2e.expected_outcomes import SHARED_ACCESSION
from tests.mistakes.commands import Shell
from tests.peers.corpus import TEN_STUDIES_PATIENT


@contextmanager
def port_in_use(shell: Shell) -> Iterator[None]:
    """Another program has the receiver's port."""
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", int(shell.local.rpartition(":")[2])))
        other.listen()
        yield


@pytest.fixture
def unfinished(shell: Shell) -> Shell:
    """A job that began, with two rows, and could not fetch."""
    shell.table("Accession\nQA00003\nQA00004\n")
    with port_in_use(shell):
        assert shell.extract("--parallel", "2").code == 3
    return shell


def test_resume_needs_neither_table_nor_options(unfinished: Shell) -> None:
    (unfinished.folder / "cohort.csv").unlink()
    done = unfinished.quarry("resume", "out")
    assert done.code == 0, done.text
    assert "cohort.csv cannot be read any more; the rows of the job's record are used" in done.text
    assert unfinished.outcomes() == ["complete", "complete"]


def test_resume_from_another_folder(unfinished: Shell, tmp_path: Path) -> None:
    out = unfinished.out
    unfinished.folder = tmp_path / "elsewhere"
    unfinished.folder.mkdir()
    assert unfinished.quarry("resume", out).code == 0
    # The places of secrets are recorded as absolute paths, so that they are found from there.
    secrets = (
        TlsFiles(certificate=Path("quarry.pem")).certificate,
        HttpSettings(token_file=Path("t")).token_file,
    )
    assert all(path and path.is_absolute() for path in secrets)


def test_status_and_list_show_the_command_that_continues(unfinished: Shell) -> None:
    status = unfinished.quarry("status", "out")
    assert status.code == 4
    assert "Not finished, and not running. To continue: quarry resume out" in status.text
    listed = unfinished.quarry("list")
    command = next(line for line in listed.out.splitlines() if "to continue: " in line).partition(": ")[2]
    assert json.loads(unfinished.quarry("list", "--json").out)[0]["resume"] == command
    assert unfinished.quarry(*command.split()[1:]).code == 0
    assert "to continue" not in unfinished.quarry("list").text


def test_a_table_that_changed_meanwhile_is_named(unfinished: Shell) -> None:
    unfinished.table("Accession\nQA00003\nQA00004\nQA00005\n")
    done = unfinished.quarry("resume", "out")
    assert done.code == 0
    assert "cohort.csv has changed since; the rows of the job's record are used" in done.text
    assert len(unfinished.report()) == 2
    assert "quarry extract with the table and --update" in done.text
    assert unfinished.extract("--update").code == 0
    assert len(unfinished.report()) == 3


def test_resume_of_a_finished_job_says_so(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    shell.extract()
    done = shell.quarry("resume", "out")
    assert done.code == 0
    assert "Nothing to do: the job in out is finished" in done.text


def test_resume_does_not_guess_the_job(unfinished: Shell) -> None:
    done = unfinished.quarry("resume")
    assert done.code == 2
    assert f"Which job? Give its folder. The last one is {unfinished.out}" in done.text
    assert unfinished.quarry("resume", unfinished.out).code == 0


def test_resume_takes_no_options_of_extract(unfinished: Shell) -> None:
    done = unfinished.quarry("resume", "out", "--parallel", "1")
    assert done.code == 2
    assert "--parallel. It is an option of quarry extract" in done.text
    assert unfinished.extract("--parallel", "1").code == 0


def test_resume_of_a_folder_without_a_job(shell: Shell) -> None:
    (shell.folder / "empty").mkdir()
    done = shell.quarry("resume", "empty")
    assert done.code == 2
    assert "empty holds no job" in done.text


def test_commands_without_a_folder_take_the_last_job(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    shell.extract()
    for command in (["status"], ["verify"], ["report"], ["explain", "--row", "1"]):
        done = shell.quarry(*command)
        assert done.code == 0, done.text
        assert f"job: {shell.out} (the last job on this computer)" in done.err


def test_the_folder_of_the_settings_comes_before_the_last_job(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    shell.extract()
    shell.quarry("extract", "cohort.csv", "--from", shell.remote, "--as", shell.local, "--to", "later")
    (shell.folder / "quarry.toml").write_text('to = "out"\n')
    assert "job: out ('to' in quarry.toml)" in shell.quarry("status").err
    (shell.folder / "quarry.toml").write_text('to = "later"\n')
    assert "job: later ('to' in quarry.toml)" in shell.quarry("status").err


def test_in_the_folder_of_a_job_no_folder_is_needed(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    shell.extract()
    shell.folder = shell.out
    done = shell.quarry("resume")
    assert done.code == 0
    assert "job: . (the current folder)" in done.err


def test_without_any_job_a_command_asks_for_the_folder(shell: Shell) -> None:
    for command in (["status"], ["verify"], ["report"], ["resume"], ["explain", "--row", "1"]):
        done = shell.quarry(*command)
        assert done.code == 2
        assert "Which job? Give its folder (its --to)" in done.text


def test_explain_by_accession_and_by_patient(shell: Shell) -> None:
    shell.table(f"EMPI,Accession\n{TEN_STUDIES_PATIENT},QA00003\n{TEN_STUDIES_PATIENT},QA00004\nQ-0013,QA0\n")
    shell.extract()
    assert "row 2, line 3 of the table" in shell.quarry("explain", "--accession", "QA00004").text
    both = shell.quarry("explain", "out", "--patient", TEN_STUDIES_PATIENT)
    assert both.code == 0
    assert "row 1, line 2" in both.text and "row 2, line 3" in both.text and "row 3" not in both.text


def test_explain_finds_a_patient_of_the_archive_behind_an_accession(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    shell.extract()
    assert "row 1, line 2" in shell.quarry("explain", "out", "--patient", TEN_STUDIES_PATIENT).text


def test_explain_forgives_capital_letters_and_zeros(shell: Shell) -> None:
    shell.table(f"Accession\nQA00003\n{SHARED_ACCESSION}\n")
    shell.extract("--allow-several-patients")
    assert "row 1, line 2" in shell.quarry("explain", "out", "--accession", " qa00003").text
    assert "row 2, line 3" in shell.quarry("explain", "out", "--accession", f"00{SHARED_ACCESSION}").text


def test_explain_of_a_value_that_no_row_has(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    shell.extract()
    done = shell.quarry("explain", "out", "--accession", "QA00009")
    assert done.code == 2
    assert "has this accession. report.csv lists all rows with their values" in done.text
    assert "QA00009" not in done.err
    assert "QA00003" in (shell.out / "report.csv").read_text(encoding="utf-8-sig")


def test_explain_with_two_questions(shell: Shell) -> None:
    done = shell.quarry("explain", "out", "--row", "1", "--patient", "4")
    assert done.code == 2
    assert "Name one row with --row NUMBER, or with --accession or --patient" in done.text
