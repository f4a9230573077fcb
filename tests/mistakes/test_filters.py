"""A condition that leaves a study out is named, costs no query, and needs no attention."""

from __future__ import annotations

from tests.mistakes.commands import Shell

#: A CT study with a report, a CT study, and an MR study.
MIXED = "Accession\nQA00001\nQ-TWIN\nQA00013\n"


def test_a_condition_on_the_description(shell: Shell) -> None:
    shell.table("Accession\nQA00001\nQA00013\nQA00014\n")
    before = shell.archive.finds["STUDY"]
    done = shell.extract("--where", "StudyDescription=*MR*")
    assert done.code == 0, done.text
    assert shell.outcomes() == ["filtered", "complete", "filtered"]
    assert shell.archive.finds["STUDY"] - before == 3
    assert "the study exists, but is CT examination" in shell.report()[0]["quarry_reason"]
    assert "every row is complete, or filtered by your own options (2 of 3)" in done.text


def test_the_next_step_of_a_filtered_row_is_another_condition(shell: Shell) -> None:
    shell.table("Accession\nQA00001\nQA00013\n")
    shell.extract("--where", "Modality=CR")
    assert shell.outcomes() == ["filtered", "filtered"]
    assert "with --update" in shell.report()[0]["quarry_what_to_do"]
    done = shell.extract("--where", "Modality=CT", "--update")
    assert done.code == 0, done.text
    assert shell.outcomes() == ["complete", "filtered"]


def test_a_condition_on_the_date_beside_an_accession(shell: Shell) -> None:
    shell.table("Accession\nQA00001\nQA00002\n")
    done = shell.extract("--where", "StudyDate=20190301-20190331")
    assert done.code == 0, done.text
    assert shell.outcomes() == ["filtered", "complete"]
    assert shell.report()[0]["quarry_reason"] == "the study exists, but is of 2019-02-02"


def test_a_patient_without_a_study_in_the_range(shell: Shell) -> None:
    """The range is part of the query of a patient alone; that the patient is unknown stays another answer."""
    shell.table("PatientID\nQ-0013\nQ-0099\n")
    done = shell.extract("--whole-patients", "--where", "StudyDate=20200101-20201231")
    assert done.code == 1
    assert shell.outcomes() == ["filtered", "not_found"]
    assert "is of 2019-02-14" in shell.report()[0]["quarry_reason"]


def test_some_studies_of_a_row_are_left_out(shell: Shell) -> None:
    shell.table("EMPI,Study Date\n98890234,20030505\n")
    done = shell.extract("--where", "Modality=MR")
    assert done.code == 0, done.text
    (row,) = shell.report()
    assert row["quarry_studies_found"] == "1"
    assert "2 studies left out: by your conditions (--where)" in row["quarry_reason"]


def test_a_row_that_is_wrong_is_still_not_found(shell: Shell) -> None:
    shell.table("Accession\nQA00013\nQA99999\n")
    done = shell.extract("--where", "Modality=CT")
    assert done.code == 1
    assert shell.outcomes() == ["filtered", "not_found"]
    assert "not found, 1 row" in done.text and "1 needs your attention" in done.text


def test_an_emptied_choice_of_series(shell: Shell) -> None:
    shell.table(MIXED)
    done = shell.extract("--series", "Modality=SR")
    assert done.code == 0, done.text
    assert shell.outcomes() == ["complete", "filtered", "filtered"]
    assert shell.quarry("status", "out").code == 0
    assert shell.quarry("report", "out").code == 0


def test_a_retry_leaves_filtered_rows_alone(shell: Shell) -> None:
    shell.table("Accession\nQA00013\n")
    shell.extract("--where", "Modality=CT")
    before = shell.archive.finds["STUDY"]
    assert shell.quarry("retry", "out").code == 0
    assert shell.archive.finds["STUDY"] == before


def test_a_plan_shows_what_the_cohort_has_and_filters_alike(shell: Shell) -> None:
    shell.table(MIXED)
    seen = shell.plan()
    assert seen.code == 0, seen.text
    assert "modalities: CT 3, MR 1, SR 1" in seen.out
    assert "descriptions: CT examination 3, MR examination 1" in seen.out
    done = shell.plan("--where", "StudyDescription=MR examination")
    assert done.code == 0, done.text
    assert "every row has studies to fetch, or is filtered by your own options (2 of 3)" in done.text
    assert "no row" not in done.text and "not found" not in done.text
