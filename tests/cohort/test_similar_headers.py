"""Headers near an identifier: each refused or left alone."""

from __future__ import annotations

import pytest

from dicom_quarry.cohort.headers import HEADER_ALIASES
from dicom_quarry.cohort.similar_headers import (
    find_possible_keyword,
    find_possible_range_end,
    find_similar_keyword,
    guess_keyword,
)


@pytest.mark.parametrize(
    "header",
    [
        "MRN*",
        "MRNs",
        "MRN2",
        "MRN:",
        ' "MRN"',
        "\N{LEFT SINGLE QUOTATION MARK}MRN\N{RIGHT SINGLE QUOTATION MARK}",
        "MRN (hospital)",
        "MRN\nhospital",
        "MRN/Name",
        "Hospital number (MRN)",
        "Old MRN",
        "epic_mrn",
        "\N{CYRILLIC CAPITAL LETTER EM}RN",
        "Patient ID #",
        "Patient #",
        "Pat-ID",
        "Pat.-Nr.",
        "PtID",
        "Patienten-Nummer",
        "Pateint ID",
        "PATIENT_ID_2",
        "(0010,0020) PatientID",
        "ID of patient",
        "Medical Record #",
        "PID",
    ],
)
def test_similar_to_a_patient_id(header: str) -> None:
    assert find_similar_keyword(header) == "PatientID"


@pytest.mark.parametrize(
    ("header", "keyword"),
    [
        ("Acc", "AccessionNumber"),
        ("Acession No", "AccessionNumber"),
        ("Accesion", "AccessionNumber"),
        ("Accessi\N{LATIN SMALL LETTER O WITH ACUTE}n", "AccessionNumber"),
        ("Accession Nr", "AccessionNumber"),
        ("ACCESSION_NUM*", "AccessionNumber"),
        ("Study UIDs", "StudyInstanceUID"),
        ("StudyUID (0020,000D)", "StudyInstanceUID"),
        ("Series UID*", "SeriesInstanceUID"),
        ("StudyDate (YYYYMMDD)", "StudyDate"),
        ("Study Dt", "StudyDate"),
        ("Stduy Date", "StudyDate"),
        ("Eaxm Date", "StudyDate"),
        ("MNR", "PatientID"),
        ("EMIP", "PatientID"),
        ("MR Number", "PatientID"),
        ("Accession_Nbr", "AccessionNumber"),
        ("ccession", "AccessionNumber"),
        ("Accessn #", "AccessionNumber"),
        ("Assession", "AccessionNumber"),
    ],
)
def test_similar_to_another_key(header: str, keyword: str) -> None:
    assert find_similar_keyword(header) == keyword


@pytest.mark.parametrize(
    "header",
    [
        *(alias for aliases in HEADER_ALIASES.values() for alias in aliases),
        *("", "Name", "Reason", "Date", "Comment", "Patient Name", "Patient age", "Patient", "DOB", "Sex"),
        *("Site", "Ward", "Modality", "MRI", "Study ID", "Study Description", "Accession date", "Phone"),
        *("No", "#", "ID", "From", "To", "Exam", "Study", "Series", "Occasion", "Outpatient", "Empire"),
    ],
)
def test_names_themselves_and_other_columns_are_not_similar(header: str) -> None:
    assert find_similar_keyword(header) == ""


@pytest.mark.parametrize(
    ("keyword", "headers"),
    [
        ("PatientID", ("Patient", "Patients", "Pateint", "Pt.", "Paciente", "Person ID", "Medical No")),
        (
            "AccessionNumber",
            ("Exam ID", "Order Number", "Order #", "Placer_Order_No", "RIS ID", "Requisition Nr", "Scan ID"),
        ),
        (
            "StudyDate",
            ("Date", "Scan Date", "DATE_OF_EXAM", "Date of the CT", "Imaging Dt", "Study Date Time"),
        ),
        (
            "StudyDate",
            ("DOS", "Untersuchungsdatum", "Fecha de estudio", "Date Performed", "Procedure Date"),
        ),
        ("StudyMonth", ("Month", "Scan Month")),
        ("StudyInstanceUID", ("UID",)),
    ],
)
def test_headers_that_may_mean_a_key(keyword: str, headers: tuple[str, ...]) -> None:
    assert {header: find_possible_keyword(header) for header in headers} == dict.fromkeys(headers, keyword)


@pytest.mark.parametrize(
    "header",
    [
        *(
            "Patient Name",
            "Name",
            "Age",
            "Group",
            "Sex",
            "Comment",
            "Diagnosis",
            "Birth Date",
            "Date of Birth",
        ),
        *(
            "Series Description",
            "Study Description",
            "Modality",
            "Surgery Date",
            "Admission Date",
            "Exam Code",
        ),
        *("Order Status", "Study ID", "Report", "Study Time", "SOP Instance UID", "Score", "Row", "", "MRN"),
        *("From", "Exam Code", "Date of Birth"),
    ],
)
def test_headers_that_certainly_mean_no_other_key(header: str) -> None:
    assert find_possible_keyword(header) == "" and find_possible_range_end(header) == ""


@pytest.mark.parametrize(
    ("header", "keyword"),
    [
        ("Subject ID", "PatientID"),
        ("Visit", "StudyDate"),
        ("Surgery Date", "StudyDate"),
        ("Session ID", "AccessionNumber"),
        ("Patient Age", ""),
        ("Group", ""),
        ("Birth Date", ""),
    ],
)
def test_the_best_guess_for_a_suggestion(header: str, keyword: str) -> None:
    assert guess_keyword(header) == keyword
