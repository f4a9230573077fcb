"""A plan names patient and accession in every line, checks its file first, and advises in its own flags."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from dicom_quarry.outcomes import CATALOGUE, make_outcome
from dicom_quarry.reporting.plan_advice import for_plan
from tests.docs import arguments
from tests.e2e.expected_outcomes import SHARED_ACCESSION, demo_holding
from tests.faults.short_delays import hasten
from tests.mistakes.commands import Shell
from tests.peers.corpus import TEN_STUDIES_PATIENT
from tests.scripted.archive import ScriptedArchive
from tests.scripted.faults import MoveStatus


def written(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_line_of_a_plan_has_patient_and_accession(shell: Shell) -> None:
    shell.table("EMPI,Accession\nQ-0013,QA00013\nQ-0013,QA99999\n")
    done = shell.plan("-o", "plan.csv")
    assert done.code == 1
    found, absent = written(shell.folder / "plan.csv")
    assert (found["PatientID"], found["AccessionNumber"]) == ("Q-0013", "QA00013")
    assert (absent["PatientID"], absent["AccessionNumber"]) == ("Q-0013", "QA99999")
    shell.plan("-o", "plan.json")
    rows = json.loads((shell.folder / "plan.json").read_text())["rows"]
    assert rows[1]["keys"] == {"PatientID": "Q-0013", "AccessionNumber": "QA99999"}


@pytest.mark.parametrize(
    ("name", "sentence", "better"),
    [
        ("plans", "plans is a folder: name a file in it, such as plans/plan.csv", "plans/plan.csv"),
        (
            "plan.xlsx",
            "written as CSV or JSON, and Excel opens the CSV. Name it plan.csv",
            "plan.csv",
        ),
        ("cohort.csv", "is the table itself, and the plan would replace it", "plan.csv"),
        ("notes.csv", "notes.csv exists already, and is no plan", "notes-plan.csv"),
        ("nowhere/plan.csv", "there is no folder nowhere", "plan.csv"),
        ("-", "To print the plan, use --json", "plan.json"),
    ],
)
def test_the_file_of_a_plan_is_checked_before_the_archive_is_queried(
    shell: Shell, name: str, sentence: str, better: str
) -> None:
    table = shell.table("Accession\nQA00003\n")
    shell.table("Accession\nQA00004\n", "notes.csv")
    (shell.folder / "plans").mkdir()
    before = table.read_text()
    # No archive is there: the sentence comes before it is missed.
    done = shell.quarry("plan", "cohort.csv", "--from", "GONE@127.0.0.1:1", "-o", name)
    assert done.code == 2
    assert sentence in done.text
    assert table.read_text() == before
    assert shell.plan("-o", better).code == 0


def test_an_earlier_plan_is_replaced(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    for name in ("plan.csv", "plan.json"):
        assert [shell.plan("-o", name).code for _ in range(2)] == [0, 0]


def test_several_patients_in_a_plan(shell: Shell) -> None:
    shell.table(f"Accession\n{SHARED_ACCESSION}\n")
    done = shell.plan()
    assert done.code == 1
    assert "fetch all of these studies with --allow-several-patients; then run quarry plan again" in done.text
    assert "quarry retry" not in done.text and "--update" not in done.text
    assert shell.plan("--allow-several-patients").code == 0


def test_too_many_studies_in_a_plan(shell: Shell) -> None:
    shell.table(f"EMPI\n{TEN_STUDIES_PATIENT}\n")
    done = shell.plan("--whole-patients", "--max-studies", "3")
    assert done.code == 1
    assert "allow more with --max-studies NUMBER; then run quarry plan again" in done.text
    assert shell.plan("--whole-patients", "--max-studies", "99").code == 0


def test_a_similar_study_in_a_plan(shell: Shell) -> None:
    shell.table("EMPI,Accession\nQ-0014,QA00013\n")
    done = shell.plan()
    assert done.code == 1
    assert "correct the row in the table, then run quarry plan again" in done.text
    shell.table("EMPI,Accession\nQ-0013,QA00013\n")
    assert shell.plan().code == 0


def test_a_row_that_cannot_be_used_in_a_plan(shell: Shell) -> None:
    shell.table("Accession\nQA00003\nQA*\n")
    done = shell.plan()
    assert done.code == 1
    assert "to extract without such rows, use quarry extract --skip-bad-rows" in done.text
    assert shell.extract("--skip-bad-rows").code == 1
    assert shell.outcomes() == ["complete", "invalid_row"]


def test_the_advice_of_a_plan_names_flags_of_the_plan() -> None:
    for code, entry in CATALOGUE.items():
        step = for_plan(make_outcome(code, **dict.fromkeys(re.findall(r"{(\w+)", entry.reason), 1))).next_step
        if step == entry.next_step:
            continue  # of a retrieval, or without a flag
        for command, flags in re.findall(r"(?:quarry (\w+) )?((?:--[a-z-]+(?:, )?)+)", step):
            for flag in flags.split(", "):
                assert not arguments.unknown(f"quarry {command or 'plan'} {flag}"), (code, step)


@pytest.mark.parametrize("letter", ["there.md", "nowhere/letter.md"])
def test_the_letter_of_a_check_is_checked_first(shell: Shell, letter: str) -> None:
    (shell.folder / "there.md").write_text("filled in")
    done = shell.quarry("check", "--from", "GONE@127.0.0.1:1", "--as", shell.local, "--letter", letter)
    assert done.code == 2
    assert letter in done.text and "C-ECHO" not in done.text
    assert shell.quarry("check", "--from", shell.remote, "--as", shell.local, "--letter", "new.md").code == 0
    assert (shell.folder / "new.md").is_file() and (shell.folder / "there.md").read_text() == "filled in"


def test_a_check_without_an_accession_names_what_it_has_not_shown(shell: Shell) -> None:
    words = ("check", "--from", shell.remote, "--as", shell.local)
    done = shell.quarry(*words)
    assert done.code == 0
    last = done.out.strip().splitlines()[-1]
    assert last == (
        "Not yet shown: whether the archive knows QUARRY as a destination. To show it with one study, add: "
        "--accession NUMBER"
    )
    shown = shell.quarry(*words, "--accession", "QA00003")
    assert shown.code == 0 and "Not yet shown" not in shown.text


@pytest.mark.parametrize("status", [0xC000, 0xA702, 0xC502])
def test_a_refused_destination_is_not_called_busy(
    status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hasten(monkeypatch.setattr)
    with ScriptedArchive(demo_holding()[:3], [MoveStatus(status)]) as archive:
        shell = Shell(tmp_path, archive, capsys, monkeypatch)
        shell.table("Accession\nQA00000\nQA00001\nQA00002\n")
        done = shell.extract("--parallel", "2")
        assert done.code == 0, done.text
        assert shell.outcomes() == ["complete"] * 3  # by C-GET
        log = (shell.out / ".quarry" / "quarry.log").read_text()
        assert "busy" not in done.text + log
        assert "the archive could not send" in log and f"({status:04X})" in log
