"""Opt-out lists: what they stop, however it is written, and that a doubtful list is never an empty one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from dicom_quarry.cohort.exclusion_list import NO_EXCLUSIONS, ExclusionList, read_exclusions
from dicom_quarry.cohort.read_options import ReadOptions
from dicom_quarry.errors import InputError
from dicom_quarry.model import Request, Study
from tests.cohort.workbooks import sheet, text, workbook


class Write(Protocol):
    def __call__(self, text: str, name: str = "optout.csv") -> Path: ...


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str, name: str = "optout.csv") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return written


def of(path: Path, **options: object) -> ExclusionList:
    return read_exclusions([path], ReadOptions.parse(**options))  # type: ignore[arg-type]


def study(patient: str = "1", accession: str = "A", uid: str = "1.2.3") -> Study:
    return Study(uid, patient, accession)


@pytest.mark.parametrize("header", ["PatientID", "EMPI", "mrn", "Patient ID", "Medical Record Number"])
def test_patients_by_any_of_the_headers(write: Write, header: str) -> None:
    listed = of(write(f"{header},Reason\n4711,withdrew\n"))
    assert listed.match_study(study("4711")) == "patient ID"
    assert listed.match_study(study("4712")) == ""
    assert listed.description == "1 patient ID"


def test_every_column_that_names_somebody_counts_by_itself(write: Write) -> None:
    listed = of(write("MRN,EMPI,Accession,SUID\n1,E1,,\n,,A2,1.2.9\n"))
    for stopped, what in [
        (study("1"), "patient ID"),
        (study("E1"), "patient ID"),
        (study("9", "A2"), "accession"),
        (study("9", "B", "1.2.9"), "Study Instance UID"),
    ]:
        assert listed.match_study(stopped) == what
    assert listed.match_study(study("9")) == ""
    assert listed.match_study(Study("1.2.3")) == "", "what an archive leaves out is on no list"


@pytest.mark.parametrize(
    "held", ["abc12", " ABC12 ", "ABC12\0", "other\\Abc12", "\uff21\uff22\uff23\uff11\uff12"]
)
def test_case_padding_and_width_do_not_hide_anybody(write: Write, held: str) -> None:
    assert of(write("MRN\n aBC12\n")).match_study(study(held)) == "patient ID"


def test_leading_zeros_count_unless_padding_is_in_force(write: Write) -> None:
    short, long = write("MRN\n12345\n", "short.csv"), write("MRN\n0012345\n", "long.csv")
    assert of(short).match_study(study("0012345")) == ""
    for path in (short, long):
        padded = of(path, pad=["PatientID=7"])
        assert padded.match_study(study("0012345")) == padded.match_study(study("12345")) == "patient ID"


def test_the_rewrites_in_force_count(write: Write) -> None:
    listed = of(write("Accession\n1234520181234512\n"), rewrite=["long-accession"])
    assert listed.match_study(study(accession="1234520181234512")) == "accession"
    dashes = of(write("Accession\nAC-77\n"), rewrite=["s/-//"])
    assert (
        dashes.match_study(study(accession="AC77"))
        == dashes.match_study(study(accession="AC-77"))
        == "accession"
    )


def test_a_row_is_stopped_by_any_of_its_ways(write: Write) -> None:
    listed = of(write("Accession\nA2\n"))
    request = Request(1, 2, (("AccessionNumber", "A1"),), ())
    assert listed.match_request(request) == ""
    other = Request(1, 2, request.keys, (), alternatives=((("AccessionNumber", "A2"),),))
    assert listed.match_request(other) == "accession"


def test_several_lists_are_one(write: Write) -> None:
    both = read_exclusions([write("MRN\n1\n", "a.csv"), write("MRN\tAcc#\n2\tA9\n", "b.tsv")])
    assert [both.match_study(study(patient)) for patient in "123"] == ["patient ID", "patient ID", ""]
    assert both.description == "2 patient IDs, 1 accession"


def test_a_workbook_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "optout.xlsx"
    path.write_bytes(workbook(("Sheet", sheet([[text("MRN")], [text("4711")]]))))
    assert of(path).match_study(study("4711")) == "patient ID"


def test_the_cohort_s_map_holds_for_the_list_where_it_has_that_column(write: Write) -> None:
    listed = of(write("Pat No\n7\n"), map=["Pat No=PatientID", "Acc No=AccessionNumber"])
    assert listed.match_study(study("7")) == "patient ID"


def test_the_digest_is_of_what_is_named(write: Write) -> None:
    one = of(write("MRN\n1\n2\n", "a.csv")).digest
    assert of(write("Note,EMPI\nx,2\ny,1\nz,1\n", "b.csv")).digest == one
    assert of(write("MRN\n1\n2\n3\n", "c.csv")).digest != one
    assert (NO_EXCLUSIONS.digest, bool(NO_EXCLUSIONS), read_exclusions([]).digest) == ("", False, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("MRN\n", "nothing would be excluded"),
        ("MRN\n\n  \n", "nothing would be excluded"),
        ("4711\n4712\n", "no column with the patients"),
        ("Study Date\n2018-07-23\n", "no column with the patients"),
        ("Patient\n4711\n", "Accepted names are PatientID (or EMPI, MRN"),
        ("MRN,Note\n,x\n", "row 1, line 2: no patient, accession or study"),
        ("MRN\nn/a\n4711\n", "row 1, line 2: no patient, accession or study"),
        ("MRN\n47*\n", "contains the wildcard '*'"),
        ("MRN\n1.23E+10\n", "rounded by a spreadsheet"),
        ("MRN,Note\n4711,a,b\n", "3 cells under 2 headers"),
        ("SUID\nabc\n", "is not a UID"),
    ],
)
def test_a_doubtful_list_is_an_error(write: Write, text: str, message: str) -> None:
    with pytest.raises(InputError, match="exclusion list cannot be used") as refused:
        of(write(text))
    assert message in str(refused.value)


def test_every_row_that_cannot_be_used_is_told(write: Write) -> None:
    with pytest.raises(InputError) as refused:
        of(write("MRN\n4*\n4711\nn/a\n"))
    message = str(refused.value)
    assert "2 of 3 rows cannot be used" in message
    assert "row 1, line 2" in message
    assert "row 3, line 4" in message


def test_a_list_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        of(tmp_path / "none.csv")
    with pytest.raises(InputError, match="exclusion list cannot be used"):
        of(tmp_path)
