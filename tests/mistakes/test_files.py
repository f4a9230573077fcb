"""Files that are deleted, cut short or damaged: the job shows the command that mends them, and it works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mistakes.commands import Shell

MEND = "quarry retry out --damaged"


@pytest.fixture
def job(shell: Shell) -> Shell:
    """A finished job of two complete studies."""
    shell.table("Accession\nQA00001\nQA00014\n")
    assert shell.extract().code == 0
    return shell


def images(shell: Shell) -> list[Path]:
    return sorted(shell.out.glob("Q-*/**/*.dcm"))


def change_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_damage_is_part_of_the_state_until_it_is_mended(job: Shell) -> None:
    change_a_byte(images(job)[0])
    assert job.quarry("verify", "out").code == 1
    for done in (job.quarry("status", "out"), job.quarry("report", "out"), job.extract()):
        assert done.code == 1, done.text
        assert "1 file is damaged or missing (found by quarry verify, " in done.text
        assert MEND in done.text
    assert json.loads(job.quarry("status", "out", "--json").out)["files_damaged"] == 1
    assert job.quarry(*MEND.split()[1:]).code == 0
    for done in (job.quarry("status", "out"), job.quarry("report", "out"), job.quarry("verify", "out")):
        assert done.code == 0, done.text
        assert MEND not in done.text


def test_files_that_were_put_back_are_no_damage_any_more(job: Shell) -> None:
    path = images(job)[0]
    saved = path.read_bytes()
    change_a_byte(path)
    job.quarry("verify", "out")
    path.write_bytes(saved)
    assert job.quarry("verify", "out", "--quick").code == 0
    assert MEND in job.quarry("status", "out").text, "sizes prove nothing about the content"
    assert job.quarry("verify", "out").code == 0
    assert job.quarry("status", "out").code == 0


@pytest.mark.parametrize(
    ("lose", "command"),
    [
        (lambda path: path.unlink(), "extract"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "resume"),
        (lambda path: shutil.rmtree(path.parent), "extract"),
    ],
    ids=["a file", "a file that was cut short", "a series"],
)
def test_a_finished_job_fetches_lost_files_again(
    job: Shell, lose: Callable[[Path], object], command: str
) -> None:
    before = images(job)
    lose(next(path for path in before if "Q-TEN" in path.parts))
    moved = job.archive.moves.total()
    done = job.extract() if command == "extract" else job.quarry("resume", "out")
    assert done.code == 0, done.text
    assert "missing or of another size" in done.text
    assert "the files of 1 study are fetched again" in done.text
    assert images(job) == before
    assert job.archive.moves.total() > moved
    assert job.quarry("verify", "out").code == 0


def test_what_verify_has_found_is_forgotten_once_it_is_fetched_again(job: Shell) -> None:
    next(job.out.rglob("*.dcm")).unlink()
    assert job.quarry("verify", "out").code == 1
    done = job.extract()
    assert done.code == 0 and "damaged or missing (found by" not in done.text, done.text
    assert job.quarry("status", "out").code == 0


def test_a_finished_job_whose_files_are_there(job: Shell) -> None:
    moved, found = job.archive.moves.total(), job.archive.finds.total()
    done = job.extract()
    assert done.code == 0
    assert f"{len(images(job))} files compared by size in " in done.text and "all are there" in done.text
    assert "Nothing to do" in done.text
    assert (job.archive.moves.total(), job.archive.finds.total()) == (moved, found)


def test_many_lost_studies_are_rather_a_disk(shell: Shell) -> None:
    accessions = [f"QA{number:05d}" for number in range(10)] + ["QA00013", "QA00014"]
    shell.table("Accession\n" + "\n".join(accessions) + "\n")
    shell.extract()
    before = images(shell)
    for place in shell.out.glob("Q-*"):
        shutil.rmtree(place)
    moved = shell.archive.moves.total()
    done = shell.extract()
    assert done.code == 1, done.text
    assert "files of 12 studies are gone. Is the disk of out mounted?" in done.text
    assert MEND in done.text and "quarry release" in done.text
    assert shell.archive.moves.total() == moved
    assert MEND in shell.quarry("status", "out").text
    assert shell.quarry(*MEND.split()[1:]).code == 0
    assert images(shell) == before
    assert shell.quarry("status", "out").code == 0


def test_a_study_that_is_gone_is_fetched_again_or_released(job: Shell) -> None:
    before = images(job)
    for next_step, count in ((MEND, len(before)), ("quarry release out", 2)):
        shutil.rmtree(job.out / "Q-TEN")
        done = job.extract()
        assert done.code == 1, done.text
        assert next_step in done.text
        assert job.quarry(*next_step.split()[1:]).code == 0
        assert len(images(job)) == count
        assert job.quarry("status", "out").code == 0
        again = job.extract()
        assert again.code == 0, again.text


def test_the_disk_is_mounted_again(shell: Shell) -> None:
    accessions = [f"QA{number:05d}" for number in range(10)] + ["QA00013"]
    shell.table("Accession\n" + "\n".join(accessions) + "\n")
    shell.extract()
    for place in list(shell.out.glob("Q-*")):
        place.rename(shell.folder / place.name)
    assert shell.extract().code == 1
    for place in shell.folder.glob("Q-*"):
        place.rename(shell.out / place.name)
    done = shell.extract()
    assert done.code == 0, done.text
    assert shell.quarry("status", "out").code == 0


def test_released_studies_are_not_fetched_again(job: Shell) -> None:
    released = job.quarry("release", "out", "--delete")
    assert released.code == 0, released.text
    assert images(job) == []
    moved = job.archive.moves.total()
    done = job.extract()
    assert done.code == 0, done.text
    assert "missing" not in done.text
    assert job.archive.moves.total() == moved


def test_a_study_that_was_deleted_because_it_is_excluded(job: Shell) -> None:
    job.table("EMPI\nQ-0014\n", "optout.csv")
    assert job.extract("--exclude", "optout.csv").code == 1
    shutil.rmtree(job.out / "Q-0014")
    moved = job.archive.moves.total()
    done = job.extract("--exclude", "optout.csv")
    assert done.code == 1
    assert job.outcomes() == ["complete", "excluded"]
    assert job.archive.moves.total() == moved
