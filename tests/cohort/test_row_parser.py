"""Problems of single rows and values, and properties that hold for every table."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.cohort.cell_values import parse_value
from dicom_quarry.cohort.cohort import CohortFile, describe_row_errors, read_cohort
from dicom_quarry.cohort.headers import find_keyword
from dicom_quarry.errors import InputError
from dicom_quarry.ledger.views import RowView
from dicom_quarry.outcomes import make_outcome
from dicom_quarry.reporting.csv_reports import write_report
from tests.cohort.test_tables import read, row_keys


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            ",,,x",
            "no value in column 'MRN' or column 'Acc#' or column 'Study Date'; fill in a value, or "
            "remove the row",
        ),
        (
            "1,,,",
            "a patient alone would fetch all studies of the patient; fill column 'Acc#' or "
            "column 'Study Date', or allow it with --whole-patients",
        ),
        (
            ",,20180723,",
            "a date alone would fetch all studies of the archive on that day; fill column 'MRN' or "
            "column 'Acc#'",
        ),
        (
            "1,1.23E+10,,",
            "column 'Acc#': \"1.23E+10\" was rounded by a spreadsheet, so digits are lost; "
            "format the column as text and export it again",
        ),
        (
            "1,A*,,",
            "column 'Acc#': \"A*\" contains the wildcard '*'; write the whole value, or allow it with "
            "--allow-wildcards",
        ),
        (
            "1,2,01/02/2018,",
            "column 'Study Date': \"01/02/2018\" is not a clear date; write YYYYMMDD or "
            "YYYY-MM-DD, or use --date-format %d/%m/%Y to read it as 2018-02-01, or --date-format "
            "%m/%d/%Y to read it as 2018-01-02",
        ),
        (
            "1,2,43304,",
            "column 'Study Date': \"43304\" is not a clear date; write YYYYMMDD or YYYY-MM-DD, or "
            "use --date-format excel to read it as 2018-07-23",
        ),
        (
            "1,2,2018-07-23T10:30:00,",
            "column 'Study Date': \"2018-07-23T10:30:00\" is not a clear date; write YYYYMMDD or "
            "YYYY-MM-DD, or use --date-format %Y-%m-%dT%H:%M:%S to read it as 2018-07-23",
        ),
        (
            "1,2,20180202-20180201,",
            "column 'Study Date': \"20180202-20180201\" ends (20180201) before it begins "
            "(20180202); exchange the two dates",
        ),
        ("1,2,20180230,", "column 'Study Date': \"20180230\" is not a day of the calendar; correct the date"),
        (
            "1,12345678901234567,,",
            "column 'Acc#': \"12345678901234567\" has 17 characters, but AccessionNumber has at most 16 in "
            "DICOM; correct the value, or use --long-identifiers if the archive has such values",
        ),
        (
            "1,a\x1b[2Jb,,",
            "column 'Acc#': \"a\\x1b[2Jb\" contains control characters or line breaks; remove them",
        ),
        (
            "1,#N/A,1,",
            "column 'Acc#': \"#N/A\" is a spreadsheet error, not a value; correct the formula, or "
            "make the column wider; "
            "column 'Study Date': \"1\" is not a clear date; write YYYYMMDD or YYYY-MM-DD",
        ),
        (
            "1,2,,,5",
            "5 cells under 4 headers; put a cell that contains a delimiter in quotes, without "
            "spaces around them",
        ),
    ],
)
def test_a_row_that_cannot_be_used_says_why(tmp_path: Path, row: str, problem: str) -> None:
    cohort = read(tmp_path, f"MRN,Acc#,Study Date,Note\n{row}\n")
    assert cohort.requests[0].problem == problem


def test_whole_patients_only_where_they_are_meant(tmp_path: Path) -> None:
    assert row_keys(read(tmp_path, "MRN\n1\n", whole_patients=True)) == [(1, 2, "P=1")]
    assert (
        "add a column such as Accession, or allow it with --whole-patients"
        in read(tmp_path, "MRN\n1\n").requests[0].problem
    )


def test_wildcards_only_where_they_are_meant_and_never_for_everything(tmp_path: Path) -> None:
    cohort = read(tmp_path, "Accession\nA*\nA?1\n*\n?*\n", allow_wildcards=True)
    assert row_keys(cohort) == [(1, 2, "A=A*"), (2, 3, "A=A?1"), (3, 4, "!"), (4, 5, "!")]


def test_repairs_are_told_the_first_twenty_and_a_count(tmp_path: Path) -> None:
    cohort = read(tmp_path, "Accession\n" + "12345.0\n" * 30)
    assert cohort.notes[0] == "row 1, column 'Accession': \"12345.0\" read as 12345"
    assert len(cohort.notes) == 21
    assert cohort.notes[-1] == "and 10 more values repaired"


def test_forms_of_a_date_and_spaces_are_no_repairs(tmp_path: Path) -> None:
    assert read(tmp_path, "MRN,Study Date\n 1 , 2018-07-23\n").notes == ()


def test_cp1252_is_told(tmp_path: Path) -> None:
    cohort = read(tmp_path, "Accession,Ärztin\n1,ß\n".encode("cp1252"))
    assert cohort.notes == ("read as Windows-1252, because it is not UTF-8",)
    assert cohort.columns == ("Accession", "Ärztin")


def test_explain_names_the_first_twenty_and_counts_the_rest(tmp_path: Path) -> None:
    assert describe_row_errors(read(tmp_path, "Accession\n1\n").requests) == ""
    text = describe_row_errors(read(tmp_path, "Accession\n\n1\n" + "a*\n" * 25).requests).splitlines()
    assert text[0] == "25 of 26 rows cannot be used:"
    assert text[1].startswith("  row 2, line 4: column 'Accession': \"a*\" contains the wildcard '*'")
    assert len(text) == 22
    assert text[-1] == "  … and 5 more"


@pytest.mark.parametrize(
    ("header", "keyword"),
    [
        ("EMPI", "PatientID"),
        ("mrn", "PatientID"),
        ("Patient ID", "PatientID"),
        ("Patient-ID", "PatientID"),
        ("patient_id", "PatientID"),
        (" PATIENTID ", "PatientID"),
        ("Accession", "AccessionNumber"),
        ("Accessions", "AccessionNumber"),
        ("accession number", "AccessionNumber"),
        ("Accession No.", "AccessionNumber"),
        ("ACC#", "AccessionNumber"),
        ("Acc #", "AccessionNumber"),
        ("Study Date", "StudyDate"),
        ("study\xa0date", "StudyDate"),
        ("SUID", "StudyInstanceUID"),
        ("Study UID", "StudyInstanceUID"),
        ("study_instance_uid", "StudyInstanceUID"),
        ("StudyDescription", ""),
        ("SeriesInstanceUID", "SeriesInstanceUID"),
        ("series uid", "SeriesInstanceUID"),
        ("Study Month", "StudyMonth"),
        ("Until", "StudyDateUntil"),
        ("Patient Name", ""),
        ("ID", ""),
        ("", ""),
    ],
)
def test_headers_are_matched_as_people_write_them(header: str, keyword: str) -> None:
    assert find_keyword(header) == keyword


def test_the_rows_can_be_read_again_and_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text("Accession\n12.0\n2\n")
    table = CohortFile(path)
    assert list(table.read_requests()) == list(table.read_requests())
    assert len(table.notes) == 1


#: Values that need no repair and no refusal: what an archive may really hold.
_IDS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9 ._/-]{0,13}[A-Za-z])?", fullmatch=True).filter(
    lambda text: parse_value("AccessionNumber", text).text == text
)
_DATES = st.dates().map(lambda day: day.strftime("%Y%m%d").zfill(8))


@given(
    header=st.sampled_from([("EMPI", "Accession"), ("EMPI", "Study Date"), ("Accession",)]),
    own=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=8),
    dialect=st.sampled_from([",", ";", "\t"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    data=st.data(),
)
def test_what_is_written_reads_back_the_same(
    header: tuple[str, ...], own: list[str], dialect: str, encoding: str, data: st.DataObject
) -> None:
    values = {"EMPI": _IDS, "Accession": _IDS, "Study Date": _DATES}
    rows = [(*(data.draw(values[name]) for name in header), note) for note in own]
    text = io.StringIO()
    csv.writer(text, delimiter=dialect).writerows([(*header, "Note"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cohort.csv"
        path.write_bytes(text.getvalue().encode(encoding))
        cohort = read_cohort(path)
    assert [one.cells for one in cohort.requests] == rows
    assert [tuple(value for _, value in one.keys) for one in cohort.requests] == [row[:-1] for row in rows]
    assert [keyword for _, keyword in cohort.mapping] == [find_keyword(name) for name in header]


#: Whatever people, spreadsheets and databases leave in a cell.
_CELLS = st.one_of(
    _IDS,
    _DATES,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        ["", " ", "=1+1", "'01", "12.0", "1.2E+10", "*", '="7"', "a,b;c\td", "x\r\ny", "sep=;", "\x00"]
    ),
    st.sampled_from(
        ["20180101-20180131", "-20180131", "201807", "2018-07-23", "1.2.3", "NULL", "\ufeff", "\xa0"]
    ),
)
_HEADERS = st.lists(
    st.sampled_from(
        ["MRN", "Acc#", "Study Date", "StudyMonth", "From", "Until", "SUID", "Series UID", "a", "b;c", '"']
    ),
    min_size=1,
    max_size=6,
    unique=True,
)


@given(header=_HEADERS, data=st.data())
def test_a_report_reads_back_the_same(header: list[str], data: st.DataObject) -> None:
    cells = st.lists(_CELLS, min_size=len(header), max_size=len(header))
    text = io.StringIO()
    csv.writer(text).writerows([header, *data.draw(st.lists(cells, min_size=1, max_size=5))])
    with tempfile.TemporaryDirectory() as folder:
        try:
            before = read(Path(folder), text.getvalue())
        except InputError:
            return
        path = Path(folder) / "report.csv"
        done = make_outcome("row_unusable", problem="=x")
        views = [
            RowView(one.row, one.line, one.cells, done, None, 0, 0, 0, 0, 0, None, ())
            for one in before.requests
        ]
        write_report(path, before.columns, views)
        after = read_cohort(path)
    width = len(before.columns)
    assert after.columns[:width] == before.columns
    assert after.mapping == before.mapping
    assert [one.cells[:width] for one in after.requests] == [one.cells for one in before.requests]
    for old, new in zip(before.requests, after.requests, strict=True):
        # A row with too many cells was closed up when it was first read: only then does its problem go.
        assert new.problem == old.problem or "cells under" in old.problem
        assert new.keys == old.keys or "cells under" in old.problem


_PIECES = st.sampled_from(
    [
        b"EMPI,Accession\n",
        b"EMPI;Accession",
        b"Accession",
        b"sep=;\n",
        b'"',
        b",",
        b"\n",
        b"\r",
        b"\x00",
        b"\xef\xbb\xbf",
    ]
)


@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.lists(st.one_of(_PIECES, st.binary(max_size=4)), max_size=12).map(b"".join),
    ),
    prefix=st.sampled_from([b"", b"EMPI,Accession\n", b"\xff\xfe", b"\xfe\xff", b"sep="]),
    allowed=st.booleans(),
)
def test_reading_any_bytes_raises_nothing_but_an_input_error(
    content: bytes, prefix: bytes, allowed: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            cohort = read(Path(folder), prefix + content, allow_wildcards=allowed, whole_patients=allowed)
        except InputError:
            return
    assert cohort.requests
    assert all(bool(one.keys) != bool(one.problem) for one in cohort.requests)


@given(
    keyword=st.sampled_from(["PatientID", "AccessionNumber", "StudyDate", "StudyInstanceUID"]), cell=st.text()
)
def test_a_value_is_clean_or_there_is_none(keyword: str, cell: str) -> None:
    value = parse_value(keyword, cell)
    assert not (value.problem and value.text)
    assert value.text == value.text.strip()
    assert not set(value.text) & set("*?\\\x00\n\r\x1b\ufeff\xa0")
    assert len(value.text) <= 64
    assert (value.note + value.problem).isprintable()
