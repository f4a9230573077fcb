"""Values that are not one identifier: understood with a note, or refused; never queried as they are."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from dicom_quarry.cohort.cohort import Cohort
from dicom_quarry.errors import InputError
from tests.cohort.test_tables import read, row_keys

_NBSP, _NARROW = "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}"


def read_value(folder: Path, value: str, **options: object) -> Cohort:
    """Read a table of one row, with an accession and this value as patient ID."""
    text = io.StringIO()
    csv.writer(text).writerows([["Accession", "MRN"], ["2", value]])
    return read(folder, text.getvalue(), **options)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        *((value, "thousands separators") for value in ("4,711", "4.711", "4 711", f"4{_NBSP}711")),
        *((value, "thousands separators") for value in (f"4{_NARROW}711", "4'711", "1,234,567.0", "123.000")),
        ("4711,5", "is a number with decimals"),
        *((value, "percentage or an amount") for value in ("4711%", "$4,711.00", "47 \N{EURO SIGN}")),
        *((value, "several values") for value in ("A1; A2", "A1, A2", "A1|A2", "A1 & A2", "A1 and A2")),
        *((value, "several values") for value in ("A1 / A2", "A1 A2", "123456 B123457", "A1;")),
        *((value, "control characters or line breaks") for value in ("A1\nA2", "A1\r\nA2", "A1\tA2")),
        *((value, "is a date or a time") for value in ("2018-07-23", "2018-07-23 10:30:00", "23.07.2018")),
        *((value, "is a date or a time") for value in ("12-Mar", "Mar-12", "1-Feb-18", "10:30", "7/23/18")),
        *((value, "remark in brackets") for value in ("(4711)", "4711 (old)", "[4711]")),
        *((value, "quotation mark") for value in ('47"11', '"4711', "\N{LEFT DOUBLE QUOTATION MARK}4711")),
        *((value, "no letter and no digit") for value in (".", "-", "--", "\N{EM DASH}", "/")),
        *((value, "is a formula") for value in ("=A1", '=TEXT(1,"000")', "=SUM(1;2)")),
        *((value, "spreadsheet error") for value in ("#N/A", "#NV", "#BEZUG!", "#\xa1REF!", "Err:502")),
        ("M\N{REPLACEMENT CHARACTER}17", "was lost in a conversion"),
        ("M\xc3\xbc17", "read in a wrong encoding"),
        ("\N{FULLWIDTH DIGIT FOUR}711", "of another script"),
        ("AB\N{EN DASH}12", "which is not a '-'"),
        ("A\ue0001", "a character that is not shown"),
        ("Medical Record Number", "is the name of a column"),
        ("ACCESSION", "is the name of a column"),
    ],
)
def test_a_value_in_doubt_is_refused(tmp_path: Path, value: str, problem: str) -> None:
    request = read_value(tmp_path, value).requests[0]
    assert not request.keys
    assert request.problem.startswith("column 'MRN': ")
    assert problem in request.problem


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        *((value, "4711") for value in ("4711,0", "4711,00", "4711.0")),
        ("\N{LEFT DOUBLE QUOTATION MARK}0047\N{RIGHT DOUBLE QUOTATION MARK}", "0047"),
        ("\N{DOUBLE LOW-9 QUOTATION MARK}0047\N{LEFT DOUBLE QUOTATION MARK}", "0047"),
        ("\N{LEFT SINGLE QUOTATION MARK}0047\N{RIGHT SINGLE QUOTATION MARK}", "0047"),
        ("\N{RIGHT SINGLE QUOTATION MARK}0047", "0047"),
        ("\xab0047\xbb", "0047"),
        ("00\N{ZERO WIDTH SPACE}47", "0047"),
        ("\N{LEFT-TO-RIGHT ISOLATE}0047\N{POP DIRECTIONAL ISOLATE}", "0047"),
        (f"AB{_NBSP}471", "AB 471"),
        ('="4.711"', "4.711"),
        ("'4,711", "4,711"),
    ],
)
def test_a_value_that_is_understood_is_noted(tmp_path: Path, value: str, read_as: str) -> None:
    cohort = read_value(tmp_path, value)
    assert dict(cohort.requests[0].keys)["PatientID"] == read_as
    assert len(cohort.notes) == 1
    assert cohort.notes[0].startswith("row 1, column 'MRN': ")
    assert cohort.notes[0].endswith(f"read as {read_as}")


@pytest.mark.parametrize(
    "value",
    [
        *("18-1234", "12345/18", "AB 123456", "943 476 5919", "A123456(3)", "4711.5", "1.2.3", "MAR-12"),
        *("#1", "1E10", "M\xdc-17", "O'BRIEN1", "A_1", "DOE^J"),
    ],
)
def test_an_odd_identifier_stays_as_it_is(tmp_path: Path, value: str) -> None:
    cohort = read_value(tmp_path, value)
    assert dict(cohort.requests[0].keys)["PatientID"] == value
    assert cohort.notes == ()


def test_the_user_decides_on_a_doubt_for_a_whole_column(tmp_path: Path) -> None:
    refused = read_value(tmp_path, "18.001").requests[0]
    assert refused.problem.endswith("if it is right, use --verbatim 'MRN'")
    taken = read_value(tmp_path, "18.001", verbatim=["mrn"])
    assert dict(taken.requests[0].keys)["PatientID"] == "18.001"
    assert taken.digest != read_value(tmp_path, "18.001").digest
    with pytest.raises(InputError, match="--verbatim 'Ward': there is no column 'Ward'"):
        read_value(tmp_path, "1", verbatim=["Ward"])


def test_damage_is_refused_even_verbatim(tmp_path: Path) -> None:
    for value in ("1.23E+10", "#N/A", "=A1", "A*", "M\N{REPLACEMENT CHARACTER}17"):
        assert read_value(tmp_path, value, verbatim=["MRN"]).requests[0].problem


@pytest.mark.parametrize("day", ["2018-07-23 10:30:00", "2018-07-23T10:30:00Z", "20180723103000", "Jul-18"])
def test_a_date_with_a_time_is_refused_as_a_study_date(tmp_path: Path, day: str) -> None:
    request = read(tmp_path, f"MRN,Study Date\n1,{day}\n").requests[0]
    assert "is not a clear date" in request.problem


def test_letters_of_a_guessed_encoding_are_not_queried(tmp_path: Path) -> None:
    cohort = read(tmp_path, "Accession,MRN,Ward\n1,M\xdc-17,S\xfcd\n2,3,S\xfcd\n".encode("cp1252"))
    assert row_keys(cohort) == [(1, 2, "!"), (2, 3, "A=2 P=3")]
    assert "'\xdc', but the file is not UTF-8" in cohort.requests[0].problem
    assert cohort.notes == ("read as Windows-1252, because it is not UTF-8",)
