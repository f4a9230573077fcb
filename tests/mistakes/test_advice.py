"""The advice of every outcome, followed literally, leads out of that outcome."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import CT, MR, DemoStudy, make_patient, make_study
from dicom_quarry.outcomes import CATALOGUE
from tests.mistakes.commands import Done, Shell
from tests.scripted import Fault, ScriptedArchive
from tests.scripted.faults import MoveStatus, OtherPatient
from tests.scripted.find_faults import FindStatus, Ignore, Without

#: Outcomes whose advice is the work of other people (the PACS team, a viewer, a corrected version of Quarry),
#: and those of an archive that sends or lists too little: ``quarry retry`` is tried here for one of a kind.
OF_OTHERS = {
    *("archive_cannot_list", "count_disagrees", "list_cut_short", "unlisted_arrived", "content_conflict"),
    *("no_instances_listed", "answers_do_not_match", "excluded_on_arrival", "internal_error"),
    *("some_images_refused", "images_refused", "instances_missing", "nothing_arrived", "gave_up_waiting"),
    *("query_cut_short", "other_study_uid"),
}


def make_studies() -> list[DemoStudy]:
    chance, day = random.Random(16), date(2021, 5, 17)
    one, other = make_patient(chance, "P-1"), make_patient(chance, "P-2")
    return [
        make_study(one, "A1", day, (CT, 1)),
        make_study(one, "S", day, (CT, 1), variant=1),
        make_study(other, "S", day, (MR, 1), variant=2),
        make_study(other, "T", date(2021, 6, 1), (CT, 1), variant=3),
        make_study(other, "T", date(2021, 6, 2), (CT, 1), variant=4),
    ]


@dataclass(frozen=True)
class Case:
    """A table and options that end with an outcome; ``words`` of its advice, and the advice followed."""

    table: str
    words: Sequence[str]
    follow: Callable[[Shell], Done]
    options: Sequence[str] = ()
    faults: Sequence[Fault] = ()
    after: str = "complete"


def retry(*options: str) -> Callable[[Shell], Done]:
    return lambda shell: shell.quarry("retry", "out", *options)


def corrected(table: str, *options: str) -> Callable[[Shell], Done]:
    """The table is corrected, and the same command run again, with these options."""

    def follow(shell: Shell) -> Done:
        shell.table(table)
        return shell.extract(*options)

    return follow


def without_faults(follow: Callable[[Shell], Done]) -> Callable[[Shell], Done]:
    def follow_later(shell: Shell) -> Done:
        assert isinstance(shell.archive, ScriptedArchive)
        shell.archive.faults.clear()
        return follow(shell)

    return follow_later


def elsewhere(*options: str) -> Callable[[Shell], Done]:
    """Another folder is filled, and is the one to look at."""

    def follow(shell: Shell) -> Done:
        shell.out = shell.folder / "other"
        return shell.extract("--to", "other", *options)

    return follow


def shorter_list(shell: Shell) -> Done:
    shell.table("EMPI\nP-77\n", "optout.csv")
    return shell.quarry("retry", "out", "--outcome", "excluded")


def without_folder(shell: Shell) -> Done:
    """The folder of the study is deleted; an exclusion stays one, and nothing of the patient is stored."""
    shutil.rmtree(shell.out / "P-1")
    return shell.extract("--exclude", "optout.csv")


CASES: dict[str, list[Case]] = {
    "several_patients": [
        Case(
            "Accession\nS\n",
            ["quarry retry with --allow-several-patients"],
            retry("--allow-several-patients"),
        ),
        Case(
            "EMPI,Accession\n,S\n",
            ["add the patient ID", "--update"],
            corrected("EMPI,Accession\nP-1,S\n", "--update"),
        ),
    ],
    "too_many_studies": [
        Case(
            "Accession\nT\n",
            ["quarry retry with a higher --max-studies"],
            retry("--max-studies", "2"),
            ["--max-studies", "1"],
        ),
        Case(
            "Accession,Study Date\nT,\n",
            ["add a date", "--update"],
            corrected("Accession,Study Date\nT,20210601\n", "--max-studies", "1", "--update"),
            ["--max-studies", "1"],
        ),
    ],
    "study_filtered": [
        Case(
            "Accession\nA1\n",
            ["another --where", "--update"],
            corrected("Accession\nA1\n", "--where", "Modality=CT", "--update"),
            ["--where", "Modality=MR"],
        )
    ],
    "no_series_wanted": [
        Case(
            "Accession\nA1\n",
            ["another folder (--to)", "--series"],
            elsewhere("--series", "Modality=CT"),
            ["--series", "Modality=MR"],
        )
    ],
    "condition_not_returned": [
        Case(
            "Accession\nA1\n",
            ["--series Modality=CT", "--update"],
            corrected("Accession\nA1\n", "--series", "Modality=CT", "--update"),
            ["--where", "Modality=CT"],
            [Without("ModalitiesInStudy")],
        ),
        Case(
            "Accession\nA1\n",
            ["leave it out", "--update"],
            corrected("Accession\nA1\n", "--update"),
            ["--where", "Modality=CT"],
            [Without("ModalitiesInStudy")],
        ),
    ],
    "attribute_not_returned": [
        Case(
            "Accession\nA1\n",
            ["another folder (--to)", "another attribute"],
            elsewhere("--series", "Modality=CT"),
            ["--series", "SeriesDescription=*AXIAL*"],
            [Without("SeriesDescription")],
        )
    ],
    "study_not_found": [
        Case("Accession\nQQ9\n", ["check the values"], corrected("Accession\nA1\n", "--update")),
    ],
    "near_miss": [
        Case("Accession\n0A1\n", ["correct the row", "--update"], corrected("Accession\nA1\n", "--update")),
    ],
    "row_unusable": [
        Case(
            "EMPI,Accession\nP-1,\n",
            ["correct the row", "--update"],
            corrected("EMPI,Accession\nP-1,A1\n", "--update"),
            ["--skip-bad-rows"],
        ),
        Case(
            "EMPI,Accession\nP-2,\n",
            ["allow it with --whole-patients"],
            corrected("EMPI,Accession\nP-2,\n", "--skip-bad-rows", "--whole-patients"),
            ["--skip-bad-rows"],
        ),
    ],
    "row_excluded": [
        Case(
            "EMPI,Accession\nP-1,A1\n",
            ["correct the list", "quarry retry --outcome excluded"],
            shorter_list,
            ["--exclude", "optout.csv"],
        )
    ],
    "study_excluded": [
        Case(
            "Accession\nA1\n",
            ["correct the list", "quarry retry --outcome excluded"],
            shorter_list,
            ["--exclude", "optout.csv"],
        )
    ],
    "stored_differs": [
        Case(
            "Accession\nA1\n",
            ["quarry retry with --accept-mismatch"],
            retry("--accept-mismatch"),
            faults=[OtherPatient("P-MERGED")],
        )
    ],
    "query_failed": [
        Case(
            "Accession\nA1\n",
            ["quarry retry"],
            without_faults(retry()),
            faults=[FindStatus(0xA900)],
        )
    ],
    "archive_refused": [
        Case(
            "Accession\nA1\n",
            ["quarry retry"],
            retry("--retrieve", "get"),
            ["--retrieve", "move"],
            [MoveStatus(0xA900)],
        ),
    ],
}


@pytest.fixture
def scripted() -> Iterator[ScriptedArchive]:
    with ScriptedArchive(make_studies()) as archive:
        yield archive


@pytest.fixture
def user(
    tmp_path: Path,
    scripted: ScriptedArchive,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Shell:
    shell = Shell(tmp_path, scripted, capsys, monkeypatch)
    shell.table("EMPI\nP-1\n", "optout.csv")
    return shell


@pytest.mark.parametrize(
    ("code", "number"), [(code, number) for code, cases in CASES.items() for number in range(len(cases))]
)
def test_the_advice_leads_out_of_the_outcome(
    code: str, number: int, user: Shell, scripted: ScriptedArchive
) -> None:
    case = CASES[code][number]
    scripted.faults += case.faults
    user.table(case.table)
    first = user.extract(*case.options)
    (row,) = user.report()
    assert row["quarry_code"] == code, first.text
    for word in case.words:
        assert word in row["quarry_what_to_do"] + row["quarry_reason"]
    done = case.follow(user)
    assert user.outcomes() == [case.after], done.text
    assert done.code == 0, done.text


def test_a_stored_study_that_is_excluded_now(user: Shell) -> None:
    user.table("Accession\nA1\n")
    assert user.extract().code == 0
    done = user.extract("--exclude", "optout.csv")
    assert "excluded_but_stored" in done.text
    assert "delete the study's folder" in user.report()[0]["quarry_what_to_do"]
    done = without_folder(user)
    assert [row["quarry_code"] for row in user.report()] == ["study_excluded"], done.text


def test_a_key_that_the_archive_ignores(user: Shell, scripted: ScriptedArchive) -> None:
    user.table("Accession,StudyInstanceUID\nQQ9,\n")
    scripted.faults.append(Ignore("AccessionNumber"))
    user.extract()
    (row,) = user.report()
    assert row["quarry_code"] == "answers_do_not_match"
    assert "StudyInstanceUID" in row["quarry_what_to_do"]
    uid = make_studies()[0].study_uid
    user.table(f"Accession,StudyInstanceUID\n,{uid}\n")
    assert user.extract("--update").code == 0


def test_every_outcome_has_a_case() -> None:
    known = {*CASES, *OF_OTHERS, "all_listed_stored", "pending", "excluded_but_stored"}
    assert known == set(CATALOGUE)
