"""Columns that the user meant, under names that Quarry does not take by itself; none is ignored silently."""

from __future__ import annotations

import logging

import pytest

import dicom_quarry
from dicom_quarry.errors import InputError
from tests.mistakes.commands import Shell

PATIENT, ACCESSION, DAY = "Q-0013", "QA00013", "20190214"


@pytest.mark.parametrize("header", ["Accession Num", "Acessoin", "Filler Order #", "Auftragsnummer"])
def test_an_accession_under_another_name(shell: Shell, header: str) -> None:
    shell.table(f"EMPI,{header},Study Date\n{PATIENT},{ACCESSION},{DAY}\n")
    refused = shell.extract()
    assert refused.code == 2
    remedies = f"add --map '{header}=AccessionNumber'; if not, add --ignore-column '{header}'"
    assert f"did you mean Accession Number? If so, {remedies}" in refused.text
    done = shell.plan("--map", f"{header}=AccessionNumber")
    assert done.code == 0, done.text
    assert f"EMPI as PatientID, {header} as AccessionNumber, Study Date as StudyDate" in done.text
    assert "Not used for searching" not in done.text


@pytest.mark.parametrize("header", ["MNR", "Patient", "MR Number", "Paciente"])
def test_a_patient_id_under_another_name_in_a_plan(shell: Shell, header: str) -> None:
    shell.table(f"{header},Accession\n{PATIENT},{ACCESSION}\n")
    refused = shell.plan()
    assert refused.code == 2
    assert f"did you mean Patient ID? If so, add --map '{header}=PatientID'" in refused.text
    done = shell.plan("--ignore-column", header)
    assert done.code == 0, done.text
    assert "Accession as AccessionNumber" in done.text and f"Not used for searching: {header}" in done.text


@pytest.mark.parametrize("header", ["Date", "Stduy Date", "date of CT"])
def test_a_study_date_under_another_name(shell: Shell, header: str) -> None:
    shell.table(f"MRN,{header}\n{PATIENT},{DAY}\n")
    refused = shell.extract("--whole-patients")
    assert refused.code == 2
    assert f"did you mean Study Date? If so, add --map '{header}=StudyDate'" in refused.text
    done = shell.plan("--map", f"{header}=StudyDate")
    assert done.code == 0, done.text


def test_a_range_of_dates_under_other_names(shell: Shell) -> None:
    shell.table("MRN,Start Date,End Date\nQ-0013,20190201,20190228\n")
    refused = shell.plan()
    assert refused.code == 2
    assert "did you mean Study Date From? If so, add --map 'Start Date=StudyDateFrom'" in refused.text
    assert "--map 'End Date=StudyDateUntil'" in refused.text
    done = shell.plan("--map", "Start Date=StudyDateFrom", "--map", "End Date=StudyDateUntil")
    assert done.code == 0, done.text


def test_one_end_of_a_range_alone(shell: Shell) -> None:
    shell.table(f"MRN,Accession,Date From\n{PATIENT},{ACCESSION},20190101\n")
    refused = shell.plan()
    assert refused.code == 2 and "--map 'Date From=StudyDateFrom'" in refused.text
    assert shell.plan("--map", "Date From=StudyDateFrom").code == 0


def test_several_doubtful_columns_are_refused_at_once_and_each_remedy_counts(shell: Shell) -> None:
    shell.table(f"Patient,Order Number,Date,Ward\n{PATIENT},{ACCESSION},20200101,7\n")
    refused = shell.extract()
    assert refused.code == 2 and refused.text.count("did you mean") == 3
    done = shell.extract(
        *("--map", "Patient=PatientID", "--map", "Order Number=AccessionNumber", "--ignore-column", "Date")
    )
    assert done.code == 0, done.text
    assert "Not used for searching: Date, Ward" in done.text
    again = shell.quarry("retry", "out")
    assert again.code == 0 and "Not used for searching: Date, Ward" in again.text


def test_columns_that_are_no_keys_are_spared_and_named(shell: Shell) -> None:
    spared = "Patient Name,Age,Group,Sex,Comment,Diagnosis,Birth Date,Series Description,Order Status"
    shell.table(f"MRN,Accession,{spared}\n{PATIENT},{ACCESSION},,,,,,,,,\n")
    done = shell.plan()
    assert done.code == 0, done.text
    assert f"Not used for searching: {spared.replace(',', ', ')}" in done.text


def test_a_column_under_its_own_name_leaves_no_doubt_about_a_second(shell: Shell) -> None:
    shell.table(f"MRN,Patient,Accession,Order Number,Study Date,Date\n{PATIENT},x,{ACCESSION},9,{DAY},x\n")
    done = shell.plan()
    assert done.code == 0, done.text
    assert "Not used for searching: Patient, Order Number, Date" in done.text


def test_a_key_that_is_empty_in_every_row(shell: Shell) -> None:
    shell.table(f"MRN,Accession,Study Date\n{PATIENT},,{DAY}\nQ-0014,,{DAY}\n")
    done = shell.plan()
    assert done.code == 0, done.text
    assert "Not used for searching: Accession (empty in every row)" in done.text


def test_values_without_a_header(shell: Shell) -> None:
    shell.table(f"MRN,Accession,\n{PATIENT},{ACCESSION},{DAY}\n")
    done = shell.plan()
    assert done.code == 0 and "Not used for searching: column 3 (without a header)" in done.text


def test_whole_patients_are_offered_only_when_every_column_is_decided(shell: Shell) -> None:
    shell.table(f"MRN,Visit,Group\n{PATIENT},{DAY},a\nQ-0014,{DAY},b\n")
    refused = shell.extract()
    assert refused.code == 2 and "--whole-patients" not in refused.text
    assert "Not used for searching: 'Visit', 'Group'" in refused.text
    assert "add --map 'Visit=StudyDate'" in refused.text
    assert "row 2, line 3: the same as row 1" in refused.text
    assert shell.plan("--map", "Visit=StudyDate").code == 0
    ignored = ("--ignore-column", "Visit", "--ignore-column", "Group")
    assert "--ignore-column 'Visit' --ignore-column 'Group'" in refused.text
    offered = shell.extract(*ignored)
    assert offered.code == 2 and "or allow it with --whole-patients" in offered.text
    assert shell.plan(*ignored, "--whole-patients").code == 0


def test_no_known_column_is_answered_with_a_remedy_in_full(shell: Shell) -> None:
    shell.table(f"Ward1,Subject ID\n7,{PATIENT}\n")
    refused = shell.extract()
    assert refused.code == 2 and "as in --map 'Subject ID=PatientID'" in refused.text
    assert shell.plan("--map", "Subject ID=PatientID", "--whole-patients").code == 0


def test_a_changed_table_whose_column_was_renamed(shell: Shell) -> None:
    shell.table(f"MRN,Accession\n{PATIENT},{ACCESSION}\n")
    assert shell.extract().code == 0
    shell.table(f"MRN,Accession ID\n{PATIENT},{ACCESSION}\nQ-0014,QA00014\n")
    refused = shell.extract("--update")
    assert refused.code == 2 and "--map 'Accession ID=AccessionNumber'" in refused.text
    assert shell.extract("--update", "--map", "Accession ID=AccessionNumber").code == 0
    assert shell.outcomes() == ["complete", "complete"]


def test_a_list_of_exclusions_with_an_unclear_column(shell: Shell) -> None:
    shell.table(f"MRN,Accession\n{PATIENT},{ACCESSION}\n")
    shell.table("MRN,Order Number\nQ-9,QA00013\n", "optout.csv")
    refused = shell.extract("--exclude", "optout.csv")
    assert (
        refused.code == 2
        and "the header 'Order Number' of column 2 resembles AccessionNumber" in refused.text
    )
    shell.table("MRN,AccessionNumber\nQ-9,QA00013\n", "optout.csv")
    assert shell.extract("--exclude", "optout.csv").code == 1
    assert shell.outcomes() == ["excluded"]


def test_python_refuses_and_warns_alike(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    table = shell.table(f"EMPI,Accession Num,Study Date,Group\n{PATIENT},{ACCESSION},{DAY},a\n")
    with pytest.raises(InputError, match="did you mean Accession Number"):
        dicom_quarry.plan(table, archive=shell.remote)
    with caplog.at_level(logging.WARNING, "dicom_quarry"):
        plan = dicom_quarry.plan(table, archive=shell.remote, map=["Accession Num=AccessionNumber"])
    assert plan.exit_code == 0
    assert "Not used for searching: Group" in caplog.text
