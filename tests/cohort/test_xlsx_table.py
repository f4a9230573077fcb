"""Excel workbooks: each with the exact requests or the exact error."""

from __future__ import annotations

import os
import resource
import tempfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
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
    change_part,
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


@settings(max_examples=15, deadline=None)
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


@settings(max_examples=15, deadline=None)
@given(rows=st.text("<>/crvtisf \"='0123456789ABEsnd", max_size=120))
def test_nonsense_in_a_sheet_raises_nothing_but_an_input_error(rows: str) -> None:
    content = workbook(("S", sheet([HEAD]) + f'<row r="2"><c r="A2" {rows}</c></row>'))
    with tempfile.TemporaryDirectory() as folder:
        try:
            cohort = read(Path(folder), content)
        except InputError:
            return
    assert cohort.requests


_SHEET = "xl/worksheets/sheet1.xml"
THREE = table([text("1"), text("2")], [text("3"), text("4")], [text("5"), text("6")])
MERGED_ROWS = table([text("1"), text("2")], ["", text("4")], ["", text("6")])


def _hide_row(line: int, attribute: str = 'hidden="1"') -> bytes:
    return change_part(THREE, _SHEET, f'<row r="{line}"', f'<row r="{line}" {attribute}')


def _merge(content: bytes, cells: str) -> bytes:
    merged = f'</sheetData><mergeCells count="1"><mergeCell ref="{cells}"/></mergeCells>'
    return change_part(content, _SHEET, "</sheetData>", merged)


@pytest.mark.parametrize("attribute", ['hidden="1"', 'hidden="true"', 'ht="0" customHeight="1"'])
def test_hidden_rows_are_refused_until_an_option_decides(tmp_path: Path, attribute: str) -> None:
    content = _hide_row(3, attribute)
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    assert str(caught.value).endswith(
        ", sheet 'Cohort': 1 row is hidden (row 3), by a filter or by hand; show them, or use --hidden-rows "
        "take to read them, or --hidden-rows skip to leave them out"
    )
    taken = read(tmp_path, content, ReadOptions.parse(hidden_rows="take"))
    assert row_keys(taken) == [(1, 2, "P=1 A=2"), (2, 3, "P=3 A=4"), (3, 4, "P=5 A=6")]
    assert taken.notes == ("1 row is hidden (row 3): read (--hidden-rows take)",)
    left = read(tmp_path, content, ReadOptions.parse(hidden_rows="skip"))
    assert row_keys(left) == [(1, 2, "P=1 A=2"), (2, 4, "P=5 A=6")]
    assert left.notes == ("1 row is hidden (row 3): not read (--hidden-rows skip)",)


def test_hidden_rows_without_values_do_not_matter(tmp_path: Path) -> None:
    content = change_part(
        THREE, _SHEET, "</sheetData>", '<row r="9" hidden="1"><c r="A9" s="1"/></row></sheetData>'
    )
    assert len(read(tmp_path, content).requests) == 3
    assert len(read(tmp_path, _hide_row(3, 'ht="0.75" hidden="0"')).requests) == 3


def test_a_hidden_header_is_not_skipped_silently(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 row is hidden \(row 1\)"):
        read(tmp_path, _hide_row(1))
    with pytest.raises(InputError, match="line 2: this line looks like data"):
        read(tmp_path, _hide_row(1), ReadOptions.parse(hidden_rows="skip"))


def test_a_hidden_key_column_is_refused_until_an_option_decides(tmp_path: Path) -> None:
    def hide(columns: str) -> bytes:
        return change_part(THREE, _SHEET, "<sheetData>", f"<cols><col {columns}/></cols><sheetData>")

    content = hide('min="1" max="1" hidden="1"')
    with pytest.raises(
        InputError, match="line 1: the column 'EMPI' is hidden; show it, or use --hidden-rows"
    ):
        read(tmp_path, content)
    assert row_keys(read(tmp_path, content, ReadOptions.parse(hidden_rows="take")))[0] == (1, 2, "P=1 A=2")
    assert row_keys(read(tmp_path, content, ReadOptions.parse(hidden_rows="skip")))[0] == (1, 2, "A=2")
    assert row_keys(read(tmp_path, hide('min="4" max="16384" hidden="1"')))[0] == (1, 2, "P=1 A=2")


def test_a_merged_cell_of_a_key_is_refused_by_its_name(tmp_path: Path) -> None:
    cohort = read(tmp_path, _merge(MERGED_ROWS, "A2:A4"))
    assert row_keys(cohort) == [(1, 2, "P=1 A=2"), (2, 3, "!"), (3, 4, "!")]
    assert cohort.requests[2].problem == (
        "cell A4, column 'EMPI': is merged with A2, so it has no value of its own; unmerge the cells, and "
        "write the value into each of them"
    )
    assert row_keys(read(tmp_path, _merge(MERGED_ROWS, "E2:E4")))[1] == (2, 3, "A=4")


def test_a_merged_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the header cell A1 is merged with B1"):
        read(tmp_path, _merge(THREE, "A1:B1"))
    two_lines = sheet([[text("Subject"), text("Study")], ["", text("Accession")], [text("7"), text("1")]])
    with pytest.raises(InputError, match="the cell A2 of the header is merged with A1"):
        read(tmp_path, _merge(workbook(("S", two_lines)), "A1:A2"))


@pytest.mark.parametrize("value", ["<v></v>", "<v/>", ""])
def test_a_formula_without_a_result_is_refused_by_its_cell(tmp_path: Path, value: str) -> None:
    cohort = read(tmp_path, table([text("1"), f"><f>A1</f>{value}"]))
    assert cohort.requests[0].problem.startswith(
        "cell B2, column 'Accession': \"#VALUE!\" is a formula that has"
    )


def test_results_that_a_program_left_to_excel_are_not_used(tmp_path: Path) -> None:
    content = table([text("1"), "><f>A1</f><v>0</v>"], [text("1"), number("3")])
    assert row_keys(read(tmp_path, content))[0] == (1, 2, "P=1 A=0")
    left = change_part(content, "xl/workbook.xml", "</workbook>", '<calcPr fullCalcOnLoad="1"/></workbook>')
    assert row_keys(read(tmp_path, left)) == [(1, 2, "!"), (2, 3, "P=1 A=3")]


def test_an_error_is_named_by_its_cell(tmp_path: Path) -> None:
    (request,) = read(tmp_path, table([text("1"), error("#REF!")])).requests
    assert request.problem.startswith("cell B2, column 'Accession': \"#REF!\" is a spreadsheet error")


@pytest.mark.parametrize(
    "rename",
    [lambda name: name.replace("/", "\\"), str.upper, lambda name: f"/{name}"],
    ids=["back-slashes", "upper case", "a slash first"],
)
def test_names_of_parts_may_be_written_otherwise(tmp_path: Path, rename: Callable[[str], str]) -> None:
    content = change_part(THREE, "xl/_rels/workbook.xml.rels", "worksheets/", "worksheets\\", rename)
    assert len(read(tmp_path, content).requests) == 3


def test_two_parts_of_one_name_are_refused(tmp_path: Path) -> None:
    stream = BytesIO(THREE)
    with zipfile.ZipFile(stream, "a") as book:
        book.writestr("xl/worksheets/SHEET1.xml", "<worksheet/>")
    with pytest.raises(InputError, match=r"it has two parts with the name xl/worksheets/sheet1\.xml"):
        read(tmp_path, stream.getvalue())


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "1e3", "x"], ids=lambda text: text[:3])
def test_a_number_of_a_row_that_is_none_is_refused(tmp_path: Path, number: str) -> None:
    content = change_part(THREE, _SHEET, '<row r="4"', f'<row r="{number}"')
    with pytest.raises(InputError, match="is not a number of a row"):
        read(tmp_path, content)


def test_rows_out_of_order_are_refused(tmp_path: Path) -> None:
    content = change_part(THREE, _SHEET, '<row r="4"', '<row r="2"')
    with pytest.raises(InputError, match="row 2 comes after row 3"):
        read(tmp_path, content)


def test_titles_above_the_header_of_a_sheet(tmp_path: Path) -> None:
    rows = [[text("Our study")], [], [text("by me"), text("2018")], HEAD, [text("1"), text("2")]]
    cohort = read(tmp_path, workbook(("S", sheet(rows))))
    assert row_keys(cohort) == [(1, 5, "P=1 A=2")]
    assert cohort.notes == ("the header is in line 4; the lines above it are not read",)


def _filled(part: str, head: str, unit: str, size: int) -> bytes:
    """A workbook in which a part is this large."""
    stream = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(THREE)) as old,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            if name != part:
                new.writestr(name, old.read(name))
        with new.open(part, "w") as stream_of_part:
            stream_of_part.write(head.encode())
            block = (unit * ((1 << 20) // len(unit))).encode()
            for _ in range(size >> 20):
                stream_of_part.write(block)
    return stream.getvalue()


_ROW = f'<worksheet><sheetData><row r="1"><c r="A1" {text("EMPI")}</c>'
_TOO_MUCH = "it takes (too much|more)"
#: Part, beginning, what is repeated, the size in MB, and the reason of the refusal.
BOMBS = {
    "out of proportion": (_SHEET, _ROW, "<c/>", 50, "its parts are 50 MB, more than 100 times the file"),
    "shared strings": ("xl/sharedStrings.xml", "<sst>", "<si><t>a</t></si>", 12, _TOO_MUCH),
    "a large cell": (_SHEET, f'{_ROW}<c r="B1" t="str"><v>', "a" * 64, 2, "a cell in row 1 is too long"),
    "wide rows": (_SHEET, f"{_ROW}</row>", '<row><c r="XFD1"><v>1</v></c></row>', 12, "it takes|do not fit"),
    "too many cells": (_SHEET, _ROW, '<c t="str"><v>1</v></c>', 12, "row 1 has more than 16,384 cells"),
    "a row beyond the last": (_SHEET, _ROW, '</row><row r="1048577">', 1, "there is no row 1048577"),
    "merged cells": (_SHEET, f"{_ROW}</row>", '<mergeCell ref="A1:B9"/>', 2, "more than 20,000 ranges"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_needs_much_is_refused_in_little_memory_and_time(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, head, unit, size, message = BOMBS[name]
    monkeypatch.setattr("dicom_quarry.cohort.workbook._SECONDS", 1)
    monkeypatch.setattr("dicom_quarry.cohort.workbook._MEMORY", 256 << 20)
    monkeypatch.setattr("dicom_quarry.cohort.workbook._OUTPUT", 16 << 20)
    content = _filled(part, head, unit, size << 20)
    assert len(content) < 2 << 20
    before = os.times()
    with pytest.raises(InputError, match=message):
        read(tmp_path, content)
    after = os.times()
    assert after.user - before.user < 10, "this process reads none of it"
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1 << 20  # in kB


def test_a_reader_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_quarry.cohort.workbook._READER", "dicom_quarry.no_such_module")
    with pytest.raises(InputError, match="the process for it ended with code 1"):
        read(tmp_path, THREE)
    monkeypatch.setattr("sys.executable", "/no/such/program")
    with pytest.raises(InputError, match="could not be started: No such file"):
        read(tmp_path, THREE)
