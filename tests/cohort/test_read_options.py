"""What flags say about a table: columns, conditions for every row, forms of dates, wildcards."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dicom_quarry.cohort.cohort import CohortFile, describe_row_errors, read_cohort, row_error_lines
from dicom_quarry.cohort.read_options import ReadOptions
from dicom_quarry.errors import ConfigError, InputError
from tests.cohort.test_tables import read, row_keys


@pytest.mark.parametrize(
    ("content", "options", "keys"),
    [
        ("Fall,EMPI\n2,1\n", {"map": ["Fall=AccessionNumber"]}, ["A=2 P=1"]),
        ("a=b,EMPI\n2,1\n", {"map": ["a=b=Accession"]}, ["A=2 P=1"]),
        ("acc  NR,EMPI\n2,1\n", {"map": ["Acc-Nr=acc#"]}, ["A=2 P=1"]),
        ("MRN,EMPI,Accession\n1,9,2\n", {"map": ["EMPI=PatientID"]}, ["P=9 A=2"]),
        ("x;MRN\n201807;1\n", {"map": ["x=StudyMonth"]}, ["P=1 D=20180701-20180731"]),
        ("x;MRN\n20180701;1\n", {"map": ["x=StudyDateFrom"]}, ["P=1 D=20180701-"]),
        ("Accession,d\n2,Chest\n", {"map": ["d=StudyDescription"]}, ["A=2 StudyDescription=Chest"]),
        ("Accession,m\n2,ct\n", {"map": ["m=ModalitiesInStudy"]}, ["A=2 ModalitiesInStudy=CT"]),
        ("n,StudyDate\nDOE^JANE,20180723\n", {"map": ["n=PatientName"]}, ["PatientName=DOE^JANE D=20180723"]),
        ("MRN,StudyDate\n1,23/07/2018\n", {"date_format": "%d/%m/%Y"}, ["P=1 D=20180723"]),
        ("MRN,StudyDate\n1,23-Jul-18\n", {"date_format": "%d-%b-%y"}, ["P=1 D=20180723"]),
        ("MRN,StudyDate\n1,2018-07-23 10:30\n", {"date_format": "%Y-%m-%d %H:%M"}, ["P=1 D=20180723"]),
        ("MRN,StudyDate\n1,01022018-03022018\n", {"date_format": "%d%m%Y"}, ["P=1 D=20180201-20180203"]),
        ("MRN,StudyDate\n1,2018-07-23\n", {"date_format": "%d/%m/%Y"}, ["P=1 D=20180723"]),
        ("MRN,From,To\n1,1.7.2018,2.7.2018\n", {"date_format": "%d.%m.%Y"}, ["P=1 D=20180701-20180702"]),
        ("MRN,StudyDate\n1,43304\n1,43304.0\n1,43304.5\n", {"date_format": "excel"}, ["P=1 D=20180723"] * 3),
        ("MRN,StudyDate\n1,20180723\n1,59\n", {"date_format": "excel"}, ["P=1 D=20180723", "!"]),
        ("MRN,StudyDate\n1,07/23/2018\n", {"date_format": "%d/%m/%Y"}, ["!"]),
        ("MRN,StudyDate\n1,20181207\n", {"date_format": "%Y%d%m"}, ["P=1 D=20180712"]),
        ("MRN,Series UID\n1,1.2.3\n", {"whole_patients": True}, ["!"]),
        ("MRN\n1\n", {"where": ["StudyDate=20180101-20180131"]}, ["P=1 D=20180101-20180131"]),
        ("MRN\n1\n", {"where": ["StudyMonth=201801"]}, ["P=1 D=20180101-20180131"]),
        (
            "Accession\n2\n",
            {"where": ["modality=ct", "StudyDescription=*Chest?x*"]},
            ["A=2 ModalitiesInStudy=CT StudyDescription=*Chest?x*"],
        ),
        ("MRN,Accession\n1,\n", {"where": ["Modality=CT"]}, ["!"]),
        ("MRN\n1\n", {"where": ["Modality=CT"], "whole_patients": True}, ["P=1 ModalitiesInStudy=CT"]),
        ("Accession\n2*\n", {"where": ["Modality=CT"]}, ["!"]),
    ],
)
def test_options_make_these_keys(
    tmp_path: Path, content: str, options: dict[str, Any], keys: list[str]
) -> None:
    assert [text for _, _, text in row_keys(read(tmp_path, content, **options))] == keys


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map": ["Acc No"]}, "--map 'Acc No': write HEADER=KEYWORD, as in 'Acc No=AccessionNumber'"),
        ({"map": ["=PatientID"]}, "--map '=PatientID': write HEADER=KEYWORD, as in 'Acc No=AccessionNumber'"),
        ({"map": ["a=PatientID", "A=StudyID"]}, "--map 'A=StudyID': the column 'A' is mapped twice"),
        ({"map": ["a=Modality"]}, "'Modality' is not a search key; use one of PatientID, "),
        ({"where": ["Modality"]}, "--where 'Modality': write KEYWORD=VALUE, as in Modality=CT"),
        ({"where": ["Modality="]}, "--where 'Modality=': the value is missing; write one"),
        ({"where": ["PatientWeight=3"]}, "'PatientWeight' is not a search key; use one of PatientID, "),
        (
            {"where": ["StudyDescription=**"]},
            "--where 'StudyDescription=**': \"**\" would match everything in",
        ),
        ({"where": ["StudyDate=2018*"]}, "--where 'StudyDate=2018*': \"2018*\" is not a clear date"),
        (
            {"where": ["Modality=CT,MR"]},
            "only one modality is possible; for several, use --series Modality=CT,MR",
        ),
        ({"where": ["Modality=CT MR!"]}, '"CT MR!" is not a code; write one code, such as CT or MR'),
        ({"where": ["Series UID=1.2"]}, "a study has many series; choose them with --series Modality=CT"),
        (
            {"where": ["Modality=CT", "ModalitiesInStudy=MR"]},
            "ModalitiesInStudy is given twice; give it once",
        ),
        ({"where": ["From=20180101"]}, "write both ends as one range, StudyDate=20180101-20180131"),
        (
            {"date_format": "%d/%m"},
            "--date-format '%d/%m' does not contain year, month and day; write them",
        ),
        ({"date_format": "%Q"}, "--date-format '%Q' does not contain year, month and day; write them"),
        ({"date_format": "%Y%m"}, "--date-format '%Y%m' does not contain year, month and day"),
    ],
)
def test_options_are_refused_with_what_to_write(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ReadOptions.parse(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            "EMPI\n1\n",
            {"map": ["Acc=Accession"]},
            ", line 1: --map 'Acc=AccessionNumber': there is no column 'Acc'; the table has 'EMPI'",
        ),
        (
            "x,y\n1,2\n",
            {"map": ["x=Accession", "y=Accession"]},
            ", line 1: the columns 'x' (1) and 'y' (2) both mean AccessionNumber; choose one of them, as in "
            "--map 'x=AccessionNumber'",
        ),
        (
            "MRN,From,Until\n1,2,3\n",
            {"where": ["StudyDate=20180723"]},
            ", line 1: StudyDate is both in the column 'From' and in --where; remove one of them",
        ),
    ],
)
def test_options_that_do_not_fit_the_table(
    tmp_path: Path, content: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content, **options)
    assert str(caught.value) == f"{tmp_path / 'cohort.csv'}{message}"


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        (
            "MRN,StudyDate\n1,07/23/2018\n",
            {"date_format": "%d/%m/%Y"},
            "column 'StudyDate': \"07/23/2018\" is not a date in the format %d/%m/%Y; write YYYYMMDD "
            "or YYYY-MM-DD, or use --date-format %m/%d/%Y to read it as 2018-07-23",
        ),
        (
            "MRN,From,Until\n1,20180202,20180201\n",
            {},
            "column 'From' and column 'Until': this range ends (20180201) before it begins "
            "(20180202); exchange the two dates",
        ),
        (
            "MRN,StudyDate,StudyMonth\n1,20180202,201801\n",
            {},
            "more than one of column 'StudyDate' and column 'StudyMonth' is filled; keep one "
            "study date in the row",
        ),
        (
            "MRN,StudyMonth\n,201801\n",
            {},
            "a date alone would fetch all studies of the archive on that day; fill column 'MRN'",
        ),
        (
            "Series UID\n1.2.3\n",
            {},
            "a series can be found only within its study; add a column such as StudyInstanceUID",
        ),
        (
            "d,StudyDate\nChest,20180723\n",
            {"map": ["d=StudyDescription"]},
            "StudyDate and StudyDescription alone may match studies of many patients; add a column "
            "such as Accession",
        ),
        (
            "StudyMonth,s\n,7\n",
            {"map": ["s=StudyID"]},
            "StudyID alone may match studies of many patients; fill column 'StudyMonth'",
        ),
        (
            'Accession,n\n2,"Doe, J"\n',
            {"map": ["n=PatientName"]},
            "column 'n': \"Doe, J\" contains a comma; write the name as FAMILY^GIVEN",
        ),
    ],
)
def test_rows_say_what_is_wrong_with_them(
    tmp_path: Path, content: str, options: dict[str, Any], problem: str
) -> None:
    assert read(tmp_path, content, **options).requests[0].problem == problem


def test_the_columns_that_are_not_searched_by_are_named(tmp_path: Path) -> None:
    table = "Accession,Study Description,Note,,,MRN,quarry_row\n2,x,y,z,,,1\n"
    assert read(tmp_path, table).unused == (
        "Study Description",
        "Note",
        "column 4 (without a header)",
        "MRN (empty in every row)",
    )
    used = read(tmp_path, table, map=["Study Description=StudyDescription"], ignore_column=["MRN"])
    assert used.unused == ("Note", "column 4 (without a header)", "MRN")
    many = read(tmp_path, f"Accession,{','.join(f'Score {chr(65 + n)}' for n in range(25))}\n2{',' * 25}\n")
    assert many.unused[-2:] == ("Score T", "and 5 more")


def test_options_that_change_the_keys_change_the_digest(tmp_path: Path) -> None:
    options_list: list[dict[str, Any]] = [
        {},
        {"where": ["Modality=CT"]},
        {"map": ["Note=StudyDescription"]},
        {"date_format": "%d/%m/%Y"},
        {"rewrite": ["yyyy-to-yy"]},
        {"pad": ["PatientID=8"]},
    ]
    digests = [read(tmp_path, "Accession,Note\n1,x\n", **options).digest for options in options_list]
    assert len(set(digests)) == len(options_list)
    assert digests[1] == read(tmp_path, "Accession,Note\n1,x\n", where=["Modality=CT"]).digest


def test_the_unusable_rows_as_csv_all_of_them(tmp_path: Path) -> None:
    cohort = read(tmp_path, "Accession,Site\n\n1,a\n" + "a*,b\n" * 25)
    lines = list(row_error_lines(cohort.requests))
    assert lines[0] == ("row", "line", "problem")
    assert lines[1] == ("2", "4", cohort.requests[1].problem)
    assert len(lines) == 26
    assert list(row_error_lines(cohort.requests, cohort.columns))[1] == (*lines[1], "a*", "b")


def test_standard_input_is_read_as_often_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"EMPI;Accession\r\n1;2\r\n3;4\r\n")))
    table = CohortFile(Path("-"))
    first = table.read_requests()
    assert next(first).keys == (("PatientID", "1"), ("AccessionNumber", "2"))
    assert [one.keys[0][1] for one in table.read_requests()] == ["1", "3"]
    assert [one.keys[0][1] for one in first] == ["3"]
    assert table.name == "standard input"


def test_a_workbook_can_be_piped_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.cohort.workbooks import sheet, text, workbook

    content = workbook(("S", sheet([[text("Accession")], [text("007")]])))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert read_cohort(Path("-")).requests[0].keys == (("AccessionNumber", "007"),)


def test_standard_input_without_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Name\nx\n")))
    with pytest.raises(
        InputError, match=r"^standard input, line 1: no column name is recognised; the table has 'Name'"
    ):
        CohortFile(Path("-"))


def test_what_was_piped_in_has_no_name_on_disk(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from dicom_quarry.cohort.cohort import CohortFile; "
        "table = CohortFile(Path('-')); print(len(list(table.read_requests())), os.listdir(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        input=b"Accession\n1\n2\n",
        capture_output=True,
        check=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.stdout.split() == [b"2", b"[]"]


def test_wildcards_of_rows_are_allowed_apart_from_those_of_where(tmp_path: Path) -> None:
    text = describe_row_errors(read(tmp_path, "Accession\nA*\n", where=["StudyDescription=*x*"]).requests)
    assert "--allow-wildcards" in text
    cohort = read(tmp_path, "Accession\nA*\n", allow_wildcards=True)
    assert row_keys(cohort) == [(1, 2, "A=A*")]
