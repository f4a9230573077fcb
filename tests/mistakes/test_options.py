"""Options that are given, changed or forgotten when the job exists: each has an effect, or is refused."""

from __future__ import annotations

import random
from datetime import date

import pytest

import dicom_quarry
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import CT, make_patient, make_study
from dicom_quarry.errors import ConfigError
from tests.e2e.expected_outcomes import SHARED_ACCESSION
from tests.mistakes.commands import Done, Shell

#: An accession of two patients, one of two studies, and one that has a study.
SEVERAL = f"Accession\n{SHARED_ACCESSION}\nQA00013\n"
TWO_STUDIES = "Accession\nQ-TWIN\n"


def moves(shell: Shell) -> int:
    return shell.archive.moves.total()


def refused(done: Done, *words: str) -> None:
    assert done.code == 2, done.text
    for word in words:
        assert word in done.text


def test_several_patients_are_allowed_afterwards(shell: Shell) -> None:
    shell.table(SEVERAL)
    assert shell.extract().code == 1
    assert shell.outcomes() == ["several_patients", "complete"]
    done = shell.extract("--allow-several-patients")
    assert done.code == 0, done.text
    assert "--allow-several-patients: 1 row or study is tried again" in done.text
    assert "Nothing to do" not in done.text


def test_more_studies_are_allowed_afterwards(shell: Shell) -> None:
    shell.table(TWO_STUDIES)
    assert shell.extract("--max-studies", "1").code == 1
    shell.table("Accession\nQ-TWIN\n")
    done = shell.extract("--max-studies", "2")
    assert done.code == 0, done.text
    assert "--max-studies: 1 row or study is tried again" in done.text
    again = shell.extract("--max-studies", "1")
    assert again.code == 0
    assert (
        "--max-studies is lower from now on; rows that were searched already stay as they are" in again.text
    )


def test_whole_patients_are_allowed_afterwards(shell: Shell) -> None:
    shell.table("EMPI,Accession\nQ-0013,\nQ-0014,QA00014\n")
    assert shell.extract("--skip-bad-rows").code == 1
    assert shell.outcomes() == ["invalid_row", "complete"]
    done = shell.extract("--skip-bad-rows", "--whole-patients")
    assert done.code == 0, done.text
    assert shell.outcomes() == ["complete", "complete"]
    without = shell.extract("--skip-bad-rows")
    assert without.code == 0
    assert "this job was run with --whole-patients, and is without it from now on" in without.text


def test_a_condition_is_added_afterwards(shell: Shell) -> None:
    shell.table("Accession\nQA00001\nQA00013\n")
    shell.extract()
    done = shell.extract("--where", "Modality=MR")
    refused(done, "this job was run without --where, not with --where 'Modality=MR'", "--update")
    assert "cohort file has changed" not in done.text
    assert shell.extract("--where", "Modality=MR", "--update").code == 0
    assert shell.outcomes() == ["filtered", "complete"]


def test_a_condition_is_forgotten(shell: Shell) -> None:
    """Without the condition much more would be fetched than was meant."""
    shell.table("Accession\nQA00001\nQA00013\n")
    shell.extract("--where", "Modality=MR")
    before = moves(shell)
    done = shell.extract()
    refused(
        done, "this job was run with --where 'Modality=MR', not without --where", "Give the options as before"
    )
    assert moves(shell) == before
    assert shell.extract("--where", "Modality=MR").code == 0


def test_two_options_and_a_changed_table_are_not_confused(shell: Shell) -> None:
    shell.table("Accession\nQA00013\n")
    shell.extract()
    done = shell.extract("--pad", "AccessionNumber=7", "--where", "Modality=MR")
    refused(done, "this job was run without --pad", "this job was run without --where")
    shell.table("Accession\nQA00013\nQA00014\n")
    refused(shell.extract("--pad", "AccessionNumber=7"), "the cohort file has changed", "--update")
    assert shell.extract("--pad", "AccessionNumber=7", "--update").code == 0


def test_another_choice_of_series_is_refused(shell: Shell) -> None:
    shell.table("Accession\nQA00001\n")
    shell.extract()
    done = shell.extract("--series", "Modality=SR")
    refused(done, "this job was run without --series", "another folder")
    assert shell.extract().code == 0
    elsewhere = shell.extract("--series", "Modality=SR", "--to", "other")
    assert elsewhere.code == 0, elsewhere.text


def test_a_choice_of_series_that_found_nothing_is_corrected(shell: Shell) -> None:
    shell.table("Accession\nQA00001\nQA00002\n")
    shell.extract("--series", "Modality=MR")
    assert shell.outcomes() == ["filtered", "filtered"]
    done = shell.extract("--series", "Modality=CT")
    assert done.code == 0, done.text
    assert "--series: 2 rows and studies are tried again" in done.text
    assert shell.outcomes() == ["complete", "complete"]


def test_the_same_archive_under_another_name(shell: Shell) -> None:
    shell.table("Accession\nQA00013\nQA99999\n")
    shell.extract()
    (shell.folder / "quarry.toml").write_text(f'[archive.main]\naddress = "{shell.remote}"\n')
    shell.remote, address = "main", shell.remote
    done = shell.extract()
    assert done.code == 1, done.text
    assert "the archive DEMO of this job is called main now" in done.text
    assert shell.quarry("retry", "out").code == 1
    shell.remote = address.replace("127.0.0.1", "localhost")
    assert "the archive main of this job is called DEMO now" in shell.extract().text


def test_another_archive_under_the_same_name(shell: Shell) -> None:
    shell.table("Accession\nQA00013\n")
    shell.extract()
    right, shell.remote = shell.remote, "DEMO@127.0.0.1:1"
    refused(shell.extract(), f"was {right}, and is DEMO@127.0.0.1:1 now", "--archive-moved")
    shell.remote = "OTHER@127.0.0.1:1"
    refused(shell.extract(), f"is filled from DEMO ({right})", "use that archive")
    shell.remote = right
    assert shell.extract().code == 0


def test_an_archive_that_has_moved(shell: Shell) -> None:
    shell.table("Accession\nQA00013\nQA00014\n")
    right, shell.remote = shell.remote, "DEMO@127.0.0.1:1"
    assert shell.extract().code == 3
    shell.remote = right
    refused(shell.extract(), "run again with --archive-moved")
    done = shell.extract("--archive-moved")
    assert done.code == 0, done.text
    assert f"the archive DEMO of this job is {right} now" in done.text
    assert shell.extract().code == 0


def test_one_more_archive(shell: Shell) -> None:
    shell.table("Accession\nQA00013\nOLD-1\n")
    assert shell.extract().code == 1
    study = make_study(make_patient(random.Random(7), "Q-OLD"), "OLD-1", date(1999, 1, 1), (CT, 1))
    with DemoArchive([study], title="OLD", destinations=shell.archive.destinations) as old:
        (shell.folder / "quarry.toml").write_text(
            f'[archive.main]\naddress = "{shell.remote}"\n'
            f'[archive.old]\naddress = "OLD@127.0.0.1:{old.port}"\n'
        )
        shell.remote = "main,old"
        done = shell.extract()
    assert done.code == 0, done.text
    assert "--from (also old): 1 row or study is tried again" in done.text
    assert shell.outcomes() == ["complete", "complete"]


def test_another_transfer_method_leaves_complete_studies_alone(shell: Shell) -> None:
    shell.table("Accession\nQA00013\n")
    shell.extract()
    before = moves(shell), shell.archive.gets.total()
    assert shell.extract("--retrieve", "get").code == 0
    assert (moves(shell), shell.archive.gets.total()) == before


def test_files_that_are_stored_keep_their_mode(shell: Shell) -> None:
    shell.table("Accession\nQA00013\n")
    shell.extract()
    done = shell.extract("--file-mode", "0640")
    assert done.code == 0
    assert "--file-mode holds for new files; files that are stored already keep theirs" in done.text


def test_a_list_is_left_out(shell: Shell) -> None:
    shell.table("Accession\nQA00013\nQA00014\n")
    shell.table("EMPI\nQ-0014\n", "optout.csv")
    assert shell.extract("--exclude", "optout.csv").code == 1
    refused(shell.extract(), "this job was started with --exclude", "give that list")
    assert shell.extract("--exclude", "optout.csv").code == 1


def test_without_a_search_for_similar_studies(shell: Shell) -> None:
    shell.table("Accession\nQA-00013\n")
    assert shell.extract("--no-diagnosis").code == 1
    done = shell.extract()
    assert "without --no-diagnosis from now on; rows that were searched already stay as they are" in done.text
    assert shell.quarry("retry", "out", "--outcome", "not_found").code == 1
    assert "the archive has the accession as QA00013" in shell.report()[0]["quarry_reason"]


def test_a_notebook_retries_with_the_option_of_the_advice(shell: Shell) -> None:
    shell.table(SEVERAL)
    shell.extract()
    with pytest.raises(ConfigError, match="retry\\(\\) has no option 'allow_several'"):
        dicom_quarry.retry(shell.out, allow_several=True)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="max-studies"):
        dicom_quarry.retry(shell.out, max_studies=0)
    assert dicom_quarry.retry(shell.out, allow_several_patients=True).exit_code == 0
    assert shell.outcomes() == ["complete", "complete"]
