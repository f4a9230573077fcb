"""Excel workbooks: each with the exact requests or the exact error."""

from __future__ import annotations

import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.cohort.cohort import Cohort, read_cohort
from dicom_quarry.cohort.read_options import ReadOptions
from dicom_quarry.errors import InputError
from tests.cohort.test_tables import Rows, row_keys
from tests.cohort.workbooks import (
    DATE,
    EIGHT_DIGITS,
    GERMAN_DATE,
    LITERAL,
    MOMENT,
    error,
    number,
    shared,
    sheet,
    text,
    workbook,
)

HEAD = [text("EMPI"), text("Accession"), text("Study Date")]


def read(folder: Path, content: bytes, options: ReadOptions = ReadOptions()) -> Cohort:  # noqa: B008
    path = folder / "cohort.xlsx"
    path.write_bytes(content)
    return read_cohort(path, options)


def table(*rows: list[str], first: int = 1) -> bytes:
    return workbook(("Cohort", sheet([HEAD, *rows], first)))


GOOD: list[tuple[str, bytes, Rows]] = [
    ("text stays text", table([text("001"), text("002")]), [(1, 2, "P=001 A=002")]),
    ("numbers have no decimals", table([number("12345"), number("678.0")]), [(1, 2, "P=12345 A=678")]),
    ("a number in powers of ten", table([number("1.2345E4"), text("2")]), [(1, 2, "P=12345 A=2")]),
    (
        "zeros that a format shows",
        table([number("1234", EIGHT_DIGITS)] * 2),
        [(1, 2, "P=00001234 A=00001234")],
    ),
    ("a format with words", table([number("1234", LITERAL), text("2")]), [(1, 2, "P=1234 days A=2")]),
    (
        "15 digits, and 16",
        table([number("123456789012345"), text("2")], [number("1234567890123456"), text("2")]),
        [(1, 2, "P=123456789012345 A=2"), (2, 3, "!")],
    ),
    ("more digits than a number keeps", table([number("1.2345678901234568E+18"), text("2")]), [(1, 2, "!")]),
    (
        "dates",
        table([text("1"), "", number("43304", DATE)], [text("1"), "", number("43304", GERMAN_DATE)]),
        [(1, 2, "P=1 D=20180723"), (2, 3, "P=1 D=20180723")],
    ),
    ("a date with midnight", table([text("1"), "", number("43304.0", MOMENT)]), [(1, 2, "P=1 D=20180723")]),
    ("a date with a time", table([text("1"), "", number("43304.5", MOMENT)]), [(1, 2, "!")]),
    ("a date as ISO 8601", table([text("1"), "", 't="d"><v>2018-07-23</v>']), [(1, 2, "P=1 D=20180723")]),
    ("a date as text", table([text("1"), "", text("20180723")]), [(1, 2, "P=1 D=20180723")]),
    ("a date as a number", table([text("1"), "", number("20180723")]), [(1, 2, "P=1 D=20180723")]),
    ("a day's number without a format", table([text("1"), "", number("43304")]), [(1, 2, "!")]),
    ("before March 1900", table([text("1"), "", number("59", DATE)]), [(1, 2, "!")]),
    ("no date at all", table([text("1"), "", number("9E99", DATE)]), [(1, 2, "!")]),
    ("an error is not nothing", table([text("1"), error("#N/A"), number("43304", DATE)]), [(1, 2, "!")]),
    (
        "a formula that was never computed",
        table([text("1"), "><f>A1</f>", number("43304", DATE)]),
        [(1, 2, "!")],
    ),
    ("a formula", table([text("1"), 't="str"><f>A1</f><v>007</v>']), [(1, 2, "P=1 A=007")]),
    (
        "a formula that gives nothing",
        table([text("1"), 't="str"><f>A1</f><v></v>', number("43304", DATE)]),
        [(1, 2, "P=1 D=20180723")],
    ),
    ("true is no number", table([text("1"), 't="b"><v>1</v>']), [(1, 2, "P=1 A=TRUE")]),
    ("blank rows and empty cells", table([], [text(" ")], [text("1"), text("2")], []), [(1, 4, "P=1 A=2")]),
    ("rows that begin further down", table([text("1"), text("2")], first=5), [(1, 6, "P=1 A=2")]),
    ("a column without a header", table([text("1"), text("2"), "", text("aside")]), [(1, 2, "P=1 A=2")]),
    ("a line break in a key", table([text("1"), text("2\n3")]), [(1, 2, "!")]),
    (
        "shared strings",
        workbook(
            ("S", sheet([HEAD, [shared(0), shared(1)]])),
            strings=["<t>1</t>", "<r><t>A</t></r><r><t>2</t></r><rPh><t>x</t></rPh>"],
        ),
        [(1, 2, "P=1 A=A2")],
    ),
    (
        "cells without their places",
        workbook(
            (
                "S",
                "<row>" + "".join(f"<c {one}</c>" for one in HEAD) + "</row>"
                f"<row><c {text('1')}</c><c/><c {number('43304', DATE)}</c></row>",
            )
        ),
        [(1, 2, "P=1 D=20180723")],
    ),
    (
        "the first sheet is empty",
        workbook(("Empty", ""), ("Cohort", sheet([HEAD, [text("1"), text("2")]]))),
        [(1, 2, "P=1 A=2")],
    ),
    (
        "a hidden sheet",
        workbook(
            ("Old", sheet([HEAD, [text("9"), text("9")]])),
            ("Cohort", sheet([HEAD, [text("1"), text("2")]])),
            hidden=["Old"],
        ),
        [(1, 2, "P=1 A=2")],
    ),
    (
        "days from 1904",
        workbook(("S", sheet([HEAD, [text("1"), "", number("41842", DATE)]])), properties='date1904="1"'),
        [(1, 2, "P=1 D=20180723")],
    ),
    (
        "a stray cell in the last row and column",
        workbook(
            (
                "S",
                sheet([HEAD, [text("1"), text("2")]])
                + f'<row r="1048576"><c r="XFD1048576" {text("x")}</c></row>',
            )
        ),
        [(1, 2, "P=1 A=2")],
    ),
    ("an escaped character", table([text("1"), text("A_x0031_")]), [(1, 2, "P=1 A=A1")]),
]


@pytest.mark.parametrize(("content", "expected"), [pytest.param(c, e, id=name) for name, c, e in GOOD])
def test_a_workbook_gives_these_requests(tmp_path: Path, content: bytes, expected: Rows) -> None:
    cohort = read(tmp_path, content)
    assert row_keys(cohort) == expected
    assert all(len(one.cells) == len(cohort.columns) for one in cohort.requests)


def _without(name: str) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(BytesIO(table([text("1"), text("2")]))) as old, zipfile.ZipFile(stream, "w") as new:
        for item in old.namelist():
            if item != name:
                new.writestr(item, old.read(item))
    return stream.getvalue()


_NO_BOOK = "; open it in Excel and save it as XLSX, or as 'CSV UTF-8'"
BAD: list[tuple[str, bytes, str]] = [
    (
        "no zip",
        b"PK\x03\x04rest",
        f": the workbook cannot be read (File is not a zip file){_NO_BOOK}",
    ),
    (
        "a zip of something else",
        _without("_rels/.rels"),
        f": the workbook cannot be read (There is no item named '_rels/.rels' in the archive){_NO_BOOK}",
    ),
    (
        "a part is missing",
        _without("xl/worksheets/sheet1.xml"),
        ": the workbook cannot be read "
        f"(There is no item named 'xl/worksheets/sheet1.xml' in the archive){_NO_BOOK}",
    ),
    (
        "empty sheets",
        workbook(("A", ""), ("B", sheet([[text(" ")]]))),
        ": every sheet is empty; add a header row such as EMPI and Accession, and rows",
    ),
    (
        "a header only",
        workbook(("Main", sheet([HEAD], 3))),
        ", sheet 'Main', line 3: there is a header, but no row below it; add a row for each study",
    ),
    (
        "MRN and EMPI",
        workbook(("Main", sheet([[text("EMPI"), text("MRN")], [text("1"), text("1")]]))),
        ", sheet 'Main', line 1: the columns 'EMPI' (1) and 'MRN' (2) both mean PatientID; choose one of "
        "them, as in --map 'EMPI=PatientID'",
    ),
    (
        "cells out of order",
        workbook(("S", '<row r="1"><c r="B1"><v>1</v></c><c r="A1"><v>2</v></c></row>')),
        f": the workbook cannot be read (the cells of row 1 are out of order){_NO_BOOK}",
    ),
    (
        "a cell without end",
        table([text("1"), text("2" * 700_000)]),
        f": the workbook cannot be read (a cell in row 2 is too long){_NO_BOOK}",
    ),
    (
        "a column beyond the last",
        workbook(("S", '<row r="1"><c r="ZZZZ1" t="str"><v>a</v></c></row>')),
        f": the workbook cannot be read (there is no column 'ZZZZ' in Excel){_NO_BOOK}",
    ),
    (
        "a string that is not there",
        table([shared(7), text("2")]),
        f": the workbook cannot be read (list index out of range){_NO_BOOK}",
    ),
]


@pytest.mark.parametrize(("content", "message"), [pytest.param(c, m, id=name) for name, c, m in BAD])
def test_a_workbook_is_refused_with_this_message(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    assert str(caught.value) == f"{tmp_path / 'cohort.xlsx'}{message}"


def test_prefixes_of_elements_do_not_matter(tmp_path: Path) -> None:
    rows = sheet([HEAD, [text("1"), text("2")]])
    stream = BytesIO()
    with zipfile.ZipFile(BytesIO(workbook(("S", rows)))) as old, zipfile.ZipFile(stream, "w") as new:
        for item in old.namelist():
            content = old.read(item).decode()
            if "sheet1.xml" in item:
                content = content.replace("</", "<//").replace("<", "<x:").replace("<x://", "</x:")
                content = content.replace("xmlns=", "xmlns:x=")
            new.writestr(item, content)
    assert row_keys(read(tmp_path, stream.getvalue())) == [(1, 2, "P=1 A=2")]


def test_a_document_type_is_refused(tmp_path: Path) -> None:
    stream = BytesIO()
    laughs = '<!DOCTYPE x [<!ENTITY a "ha">]><worksheet>&a;</worksheet>'
    with zipfile.ZipFile(BytesIO(table([text("1")]))) as old, zipfile.ZipFile(stream, "w") as new:
        for item in old.namelist():
            new.writestr(item, laughs if "sheet1" in item else old.read(item))
    with pytest.raises(InputError, match="it contains a document type declaration"):
        read(tmp_path, stream.getvalue())


def test_which_sheet_was_read_is_told_where_there_is_a_choice(tmp_path: Path) -> None:
    rows = sheet([HEAD, [text("1"), text("2")]])
    assert read(tmp_path, workbook(("Only", rows))).notes == ()
    assert read(tmp_path, workbook(("A", ""), ("B", rows), ("C", rows))).notes == (
        "read from the sheet 'B', the first of 3 that is not empty",
    )


def test_a_workbooks_dates_are_in_no_doubt_whatever_form_is_declared(tmp_path: Path) -> None:
    content = table([text("1"), "", number("43076", DATE)], [text("1"), "", text("2017-07-12")])
    declared = ReadOptions.parse(date_format="%Y-%d-%m")
    assert row_keys(read(tmp_path, content, declared)) == [(1, 2, "P=1 D=20171207"), (2, 3, "P=1 D=20171207")]


def test_a_month_that_a_spreadsheet_took_for_a_date(tmp_path: Path) -> None:
    rows = [
        [text("MRN"), text("StudyMonth")],
        [text("1"), number("43282", DATE)],
        [text("1"), number("201807")],
    ]
    cohort = read(tmp_path, workbook(("S", sheet(rows))))
    assert row_keys(cohort) == [(n, n + 1, "P=1 D=20180701-20180731") for n in (1, 2)]


@given(
    whole=st.just(table([text("1"), number("2"), number("43304", DATE)])),
    at=st.integers(0, 10_000),
    change=st.binary(min_size=1, max_size=40),
)
def test_damage_anywhere_raises_nothing_but_an_input_error(whole: bytes, at: int, change: bytes) -> None:
    at %= len(whole)
    with tempfile.TemporaryDirectory() as folder:
        try:
            cohort = read(Path(folder), whole[:at] + change + whole[at + len(change) :])
        except InputError:
            return
    assert cohort.requests


@given(rows=st.text("<>/crvtisf \"='0123456789ABEsnd", max_size=120))
def test_nonsense_in_a_sheet_raises_nothing_but_an_input_error(rows: str) -> None:
    content = workbook(("S", sheet([HEAD]) + f'<row r="2"><c r="A2" {rows}</c></row>'))
    with tempfile.TemporaryDirectory() as folder:
        try:
            cohort = read(Path(folder), content)
        except InputError:
            return
    assert cohort.requests
