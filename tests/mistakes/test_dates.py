"""Dates in another form, and identifiers without their zeros: read where that is certain, else a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from random import Random

import pytest

from dicom_quarry.demo.synthetic_studies import TINY, make_patient, make_study
from tests.mistakes.commands import Shell, shell_with

PATIENT, OTHER = "Q-0013", "Q-0014"  # both with a study on 14 February 2019


@pytest.fixture
def zeros(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    """An archive whose patient IDs have seven digits, and its accessions nine."""
    chance, day = Random(7), date(2019, 3, 5)
    studies = [
        make_study(make_patient(chance, f"000{n}"), f"0000{n}9", day, (TINY, 1)) for n in range(4711, 4714)
    ]
    with shell_with(studies, tmp_path, capsys, monkeypatch) as shell:
        yield shell


def test_one_date_settles_the_order_of_all(shell: Shell) -> None:
    shell.table(f"MRN,Study Date\n{PATIENT},02/14/2019\n{OTHER},2/14/2019\nQA,02/03/2019\n")
    done = shell.plan()
    assert "Dates in 'Study Date' are read as %m/%d/%Y, because line 2 fits no other format" in done.text
    assert done.code == 1 and "1 of 3 rows has no study to fetch" in done.text


def test_a_date_with_the_name_of_the_month_and_extract(shell: Shell) -> None:
    shell.table(f"MRN,Study Date\n{PATIENT},14-Feb-2019\n")
    done = shell.extract()
    assert done.code == 0 and "are read as %d-%b-%Y" in done.text, done.text


@pytest.mark.parametrize(
    ("cell", "option", "meaning"),
    [
        ("05/02/2019", "%d/%m/%Y", "2019-02-05"),
        ("05/02/2019", "%m/%d/%Y", "2019-05-02"),
        ("14-Feb-19", "%d-%b-%y", "2019-02-14"),
        ("02/14/19", "%m/%d/%y", "2019-02-14"),
        ("02/14/2019 08:15", "'%m/%d/%Y %H:%M'", "2019-02-14"),
        ("43510", "excel", "2019-02-14"),
    ],
)
def test_the_formats_that_fit_are_suggested(shell: Shell, cell: str, option: str, meaning: str) -> None:
    shell.table(f"MRN,Study Date\n{PATIENT},{cell}\n")
    refused = shell.extract()
    assert refused.code == 2
    assert f"--date-format {option} to read it as {meaning}" in refused.text
    done = shell.plan("--date-format", option.strip("'"))
    assert done.code == (0 if meaning == "2019-02-14" else 1), done.text


def test_dates_that_contradict_each_other(shell: Shell) -> None:
    shell.table(f"MRN,Study Date\n{PATIENT},02/14/2019\n{OTHER},14/02/2019\n")
    refused = shell.extract()
    assert refused.code == 2
    assert "line 2 can only be %m/%d/%Y, line 3 only %d/%m/%Y; write all dates as YYYYMMDD" in refused.text
    shell.table(f"MRN,Study Date\n{PATIENT},20190214\n{OTHER},20190214\n")
    assert shell.plan().code == 0


def test_a_format_as_spreadsheets_write_it(shell: Shell) -> None:
    shell.table(f"MRN,Study Date\n{PATIENT},02/14/2019\n")
    refused = shell.extract("--date-format", "dd/mm/yyyy")
    assert refused.code == 2 and "is not a date in the format %d/%m/%Y" in refused.text
    assert "Dates in" not in refused.text
    assert "use --date-format %m/%d/%Y to read it as 2019-02-14" in refused.text
    assert shell.extract("--date-format", "mm/dd/yyyy").code == 0


def test_a_format_without_a_year(shell: Shell) -> None:
    shell.table(f"MRN,Study Date\n{PATIENT},02/14/2019\n")
    refused = shell.extract("--date-format", "mm/dd")
    assert refused.code == 2 and "write them as in %d/%m/%Y or dd/mm/yyyy" in refused.text
    assert shell.plan("--date-format", "mm/dd/yyyy").code == 0


def test_patient_ids_without_their_zeros(zeros: Shell) -> None:
    zeros.table("MRN,Study Date\n4711,20190305\n4712,20190305\n")
    done = zeros.extract()
    assert done.code == 1 and zeros.outcomes() == ["not_found", "not_found"]
    assert done.text.count("if Excel dropped zeros, add --pad PatientID=7") == 1
    reasons = [row["quarry_reason"] for row in zeros.report()]
    assert all("if Excel dropped zeros, add --pad PatientID=7" in reason for reason in reasons)
    zeros.table("MRN,Study Date\n4711,20190305\n4712,20190305\n")
    assert zeros.extract("--pad", "PatientID=7", "--update").code == 0
    assert zeros.outcomes() == ["complete", "complete"]


def test_accessions_without_their_zeros_in_a_plan(zeros: Shell) -> None:
    zeros.table("Accession\n47119\n47129\n")
    done = zeros.plan("-o", "plan.csv")
    assert done.code == 1
    assert "add --pad AccessionNumber=9" in done.text
    assert "add --pad AccessionNumber=9" in (zeros.folder / "plan.csv").read_text()
    assert zeros.plan("--pad", "AccessionNumber=9").code == 0
