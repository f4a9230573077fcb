"""Names of folders: what people expect of them, ask for twice, or mistype."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import SR, TINY, DemoStudy, make_patient, make_study
from dicom_quarry.ledger.ledger import Ledger
from tests.mistakes.commands import Done, Shell

#: Patient IDs as real ones are, and some that no folder may have.
IDS = (
    "case01",
    "Case01",
    "CASE01",
    "abc_Def-9",
    "müller",
    "mismatch",
    "report.csv",
    "SHA256SUMS",
    "-rf",
    "x~",
    "a/b",
)
TABLE = "Accession\n" + "".join(f"L{number}\n" for number in range(len(IDS)))


def studies() -> list[DemoStudy]:
    rng = random.Random(16)
    made = [
        make_study(make_patient(rng, identifier), f"L{number}", date(2024, 1, 31), (TINY, 1))
        for number, identifier in enumerate(IDS)
    ]
    mixed = make_study(make_patient(rng, "case77"), "MIX1", date(2023, 5, 2), (TINY, 2), (SR, 1))
    return [*made, mixed]


@pytest.fixture(scope="module")
def archive() -> Iterator[DemoArchive]:
    with DemoArchive(studies()) as server:
        yield server


@pytest.fixture
def sloppy_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not distinguish capitals, for a new job."""
    monkeypatch.setattr("dicom_quarry.jobs.naming.distinguishes_names", lambda _folder: False)


def folders(out: Path) -> set[str]:
    return {path.name for path in out.iterdir() if path.is_dir() and not path.name.startswith(".")}


def succeeds(done: Done) -> None:
    assert done.code == 0, done.text


def test_ids_in_small_letters_are_the_names_of_their_folders(shell: Shell) -> None:
    shell.table(TABLE)
    succeeds(shell.extract())
    assert set(IDS[:5]) < folders(shell.out)
    assert sorted(path.name for path in shell.out.glob("case*")) == ["case01"]
    succeeds(shell.quarry("verify", "out"))


def test_an_id_that_is_the_name_of_a_report_harms_no_report(shell: Shell) -> None:
    shell.table(TABLE)
    succeeds(shell.extract())
    expected = {"%6Dismatch", "%72eport.csv", "%53HA256SUMS", "%2Drf", "x%7E", "a%2Fb"}
    assert folders(shell.out) == {*IDS[:5], *expected}
    succeeds(shell.quarry("report", "out"))
    assert len(shell.outcomes()) == len(IDS)


@pytest.mark.usefixtures("sloppy_disk")
def test_on_a_disk_that_ignores_case_no_two_patients_share_a_folder(shell: Shell) -> None:
    shell.table(TABLE)
    done = shell.extract()
    succeeds(done)
    assert "abc123 becomes abc123~. This disk does not distinguish them from capitals" in done.text
    names = folders(shell.out)
    assert {"case01~", "Case01~e", "CASE01", "mismatch~", "%53HA256SUMS"} <= names
    assert len({name.casefold() for name in names}) == len(IDS)
    succeeds(shell.quarry("verify", "out"))


def test_the_disk_decides_once(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is continued on a copy keeps its names."""
    shell.table("Accession\nL0\n")
    succeeds(shell.extract())
    monkeypatch.setattr("dicom_quarry.jobs.naming.distinguishes_names", lambda _folder: False)
    shell.table("Accession\nL0\nL1\n")
    succeeds(shell.extract("--update"))
    assert folders(shell.out) == {"case01", "Case01"}


def test_a_job_of_before_goes_on_under_its_rule(shell: Shell) -> None:
    shell.table("Accession\nL0\n")
    succeeds(shell.extract("--portable-names"))
    with closing(Ledger(shell.out / ".quarry" / "ledger.db")) as ledger:  # as an earlier version wrote it
        ledger.database.write(
            lambda connection: connection.exec_driver_sql("DELETE FROM job WHERE name = 'names'")
        )
    shell.table("Accession\nL0\nL1\nL5\n")
    succeeds(shell.extract("--update"))
    assert folders(shell.out) == {"case01~", "Case01~e", "mismatch~"}
    succeeds(shell.quarry("verify", "out"))


def test_portable_names_come_too_late(shell: Shell) -> None:
    shell.table("Accession\nL0\n")
    succeeds(shell.extract())
    done = shell.extract("--portable-names")
    assert done.code == 2
    assert "named without --portable-names, and they keep their names: leave it out" in done.text
    assert "or give another folder" in done.text
    succeeds(shell.extract())
    succeeds(shell.extract("--portable-names", "--to", "share"))
    assert folders(shell.folder / "share") == {"case01~"}


def test_portable_names_are_set_in_the_settings_file(shell: Shell) -> None:
    shell.table("Accession\nL0\n", "cohort.csv")
    shell.table("portable-names = true\n", "quarry.toml")
    succeeds(shell.extract())
    assert folders(shell.out) == {"case01~"}


def test_a_layout_that_is_mistyped(shell: Shell) -> None:
    shell.table("Accession\nMIX1\n")
    done = shell.extract("--layout", "patient/modality")
    assert done.code == 2
    assert (
        "--layout 'patient/modality' is unknown: write one of niffler, patient/date-modality, acc"
        in done.text
    )
    assert not shell.out.exists()
    succeeds(shell.extract("--layout", "patient/date-modality"))
    assert {path.name for path in (shell.out / "case77").iterdir()} == {"20230502-CT", "20230502-SR"}
    succeeds(shell.quarry("verify", "out"))


def test_a_layout_and_a_pattern(shell: Shell) -> None:
    shell.table("Accession\nMIX1\n")
    done = shell.extract("--layout", "accession", "--filepath", "{PatientID}/{SOPInstanceUID}.dcm")
    assert done.code == 2
    assert "--layout and --filepath both name the files: give one of them" in done.text
    succeeds(shell.extract("--layout", "accession"))
    assert folders(shell.out) == {"MIX1"}


def test_a_job_that_is_continued_without_its_layout(shell: Shell) -> None:
    shell.table("Accession\nL0\n")
    succeeds(shell.extract("--layout", "accession"))
    done = shell.extract()
    assert done.code == 2
    advice = re.search(r"are named by (--layout \S+): give that option again, or another folder", done.text)
    assert advice, done.text
    succeeds(shell.extract(*advice[1].split()))


def test_a_layout_on_the_command_line_wins_over_the_pattern_of_the_file(shell: Shell) -> None:
    shell.table("Accession\nL0\n")
    shell.table("filepath = '{StudyDate}/{SOPInstanceUID}.dcm'\n", "quarry.toml")
    succeeds(shell.extract("--layout", "accession"))
    assert folders(shell.out) == {"L0"}


def test_a_layout_and_a_pattern_in_the_settings_file(shell: Shell) -> None:
    shell.table("Accession\nL0\n")
    text = "layout = 'accession'\n"
    shell.table(text + "filepath = '{StudyDate}/{SOPInstanceUID}.dcm'\n", "quarry.toml")
    done = shell.extract()
    assert done.code == 2
    assert "quarry.toml: layout and filepath both name the files: give one of them" in done.text
    shell.table(text, "quarry.toml")
    succeeds(shell.extract())
    assert folders(shell.out) == {"L0"}


@pytest.mark.parametrize("name", ["mismatch", "Studies.csv"])
def test_a_pattern_that_begins_with_a_name_of_quarrys_own(shell: Shell, name: str) -> None:
    shell.table("Accession\nL0\n")
    done = shell.extract("--filepath", f"{name}/{{SOPInstanceUID}}.dcm")
    assert done.code == 2
    assert f"the name {name} is for Quarry's own files: begin the pattern with another one" in done.text
    assert not shell.out.exists()
    succeeds(shell.extract("--filepath", f"all-{name}/{{SOPInstanceUID}}.dcm"))
    assert folders(shell.out) == {f"all-{name}"}
