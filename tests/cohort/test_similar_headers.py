"""Headers near an identifier: each refused or left alone."""

from __future__ import annotations

import pytest

from dicom_quarry.cohort.columns import HEADER_ALIASES, find_similar_keyword


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
