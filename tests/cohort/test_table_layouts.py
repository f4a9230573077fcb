"""Files as programs export them: titles above the header, spaces around quotes, other kinds, wrong bytes."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.cohort.csv_quotes import trim_quoted_cells
from dicom_quarry.errors import InputError
from tests.cohort.test_tables import Rows, read, row_keys

_ONE = "the lines above it are not read"


@pytest.mark.parametrize(
    ("content", "expected", "header_line"),
    [
        ("Our study\nexported 2018-07-23\n\nEMPI,Accession\n1,2\n", [(1, 5, "P=1 A=2")], 4),
        ("Our study;;\nEMPI;Name;Accession\n1;x;2\n", [(1, 3, "P=1 A=2")], 2),
        ("List of MRN\nEMPI,Accession\n1,2\n", [(1, 3, "P=1 A=2")], 2),
        ("Patient,,Study\nEMPI,Name,Accession\n1,x,2\n", [(1, 3, "P=1 A=2")], 2),
        ("sep=;\nOur study\nEMPI;Accession\n1;2\n", [(1, 4, "P=1 A=2")], 3),
    ],
)
def test_a_header_below_titles_is_found_and_noted(
    tmp_path: Path, content: str, expected: Rows, header_line: int
) -> None:
    cohort = read(tmp_path, content)
    assert row_keys(cohort) == expected
    assert cohort.notes == (f"the header is in line {header_line}; {_ONE}",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Title\nMRN,x\n1,2\nEMPI,y\n", "lines 2 and 4 both look like a header, and line 1"),
        (
            "Title\nPatientID*,Name\n1,x\n",
            r"line 2: the column 'PatientID\*' \(1\) .* did you mean Patient ID\?",
        ),
        ("PatientID*,ID type\nabc,MRN\n", r"line 1: the column 'PatientID\*' \(1\)"),
        ("PatientID*\n123\n", r"line 1: the column 'PatientID\*' \(1\)"),
        ("4711,18001\nEMPI,Accession\n1,2\n", "line 1 is above the header in line 2, and looks like a row"),
        ("Direction\nTo\nFrom\n", "line 1: no column name is recognised; the table has 'Direction'"),
        ("\n".join(["x"] * 40) + "\nMRN,Accession\n1,2\n", "line 1: no column name is recognised"),
    ],
)
def test_a_header_in_doubt_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, content)


def test_a_second_line_of_headers_is_not_a_row(tmp_path: Path) -> None:
    cohort = read(tmp_path, "MRN,Accession\nMedical Record Number,Accession Number\n1,2\n")
    assert row_keys(cohort) == [(1, 2, "!"), (2, 3, "P=1 A=2")]
    assert row_keys(read(tmp_path, "MRN,Study,\n,Accession,Date\n")) == [(1, 2, "!")]


@pytest.mark.parametrize(
    "content",
    [
        'Accession, "MRN"\n2, "1"\n',
        '"Accession" , "MRN" \r\n"2" ,"1"\r\n',
        'Accession;\t"MRN"\n2;\t"1"\n',
        "Accession|MRN\n2|1\n",
    ],
)
def test_spaces_between_quotes_and_delimiters_do_not_matter(tmp_path: Path, content: str) -> None:
    assert row_keys(read(tmp_path, content)) == [(1, 2, "A=2 P=1")]


def test_a_quoted_cell_behind_a_space_may_have_delimiters_and_lines(tmp_path: Path) -> None:
    cohort = read(tmp_path, 'Accession,Note, "MRN"\n2, "a, b\nc" , "1"\n3,x,4\n')
    assert row_keys(cohort) == [(1, 2, "A=2 P=1"), (2, 4, "A=3 P=4")]
    assert cohort.requests[0].cells == ("2", "a, b\nc", "1")
    with pytest.raises(InputError, match="line 2: a quote begins on this line and is never closed"):
        read(tmp_path, 'Accession,Note\n2, "a\n3,x\n')


def test_quotes_inside_a_cell_stay(tmp_path: Path) -> None:
    cohort = read(tmp_path, 'Accession,Note\n2, "Big" one\n3,5" x 3"\n')
    assert [one.cells[1] for one in cohort.requests] == [' "Big" one', '5" x 3"']


_CELLS = st.text('ab" ,;|\t\n\r1', max_size=6)


@given(
    rows=st.lists(st.lists(_CELLS, min_size=2, max_size=4), min_size=1, max_size=4),
    delimiter=st.sampled_from(",;|\t"),
    before=st.sampled_from(["", " ", "  "]),
    after=st.sampled_from(["", " "]),
)
def test_quoted_cells_keep_every_character(
    rows: list[list[str]], delimiter: str, before: str, after: str
) -> None:
    doubled = [[cell.replace('"', '""') for cell in row] for row in rows]
    lines = [delimiter.join(f'{before}"{cell}"{after}' for cell in row) + "\r\n" for row in doubled]
    text = io.StringIO("".join(lines), newline="")
    assert list(csv.reader(trim_quoted_cells(text, delimiter), delimiter=delimiter, strict=True)) == rows


@given(
    rows=st.lists(st.lists(_CELLS, min_size=2, max_size=4), min_size=1, max_size=4),
    delimiter=st.sampled_from(",;|\t"),
)
def test_what_the_csv_module_writes_is_read_back(rows: list[list[str]], delimiter: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    text.seek(0)
    assert list(csv.reader(trim_quoted_cells(text, delimiter), delimiter=delimiter, strict=True)) == rows


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("Accession,MRN,Arzt\n1,2,M\xfcller\n3,4?,x\n", "line 3, column 'MRN'"),
        ("\ufeffAccession,MRN\n1,2?\n", "line 2, column 'MRN'"),
        ("Accession;Arzt\n1;M\xfcller\n\n2;?\n", "line 4, column 'Arzt'"),
        ("Accession,?MRN,Arzt\n1,2,M\xfcller\n", "line 1, the header"),
    ],
)
def test_one_byte_that_is_not_utf8_is_named(tmp_path: Path, content: str, place: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content.encode().replace(b"?", b"\xff"))
    assert str(caught.value).startswith(
        f"{tmp_path / 'cohort.csv'}, {place}: the byte 0xFF is not UTF-8, although the rest of the file is"
    )


def _zip(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as book:
        for name in names:
            book.writestr(name, "content")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html><table><tr><td>MRN", "a web page or an XML document.* save it as XLSX"),
        (b"\xef\xbb\xbf\r\n <!DOCTYPE html>", "a web page or an XML document"),
        ("<TABLE>".encode("utf-16"), "a web page or an XML document"),
        (b'<?xml version="1.0"?><?mso-application progid="Excel.Sheet"?>', "a web page or an XML document"),
        (b"MIME-Version: 1.0\n", "a web page in a file"),
        (b"{\\rtf1 MRN", "a text document"),
        (b"\x09\x04\x06\x00\x00\x00", "an old Excel workbook: .* save it as XLSX"),
        (b"$FL2@(#) SPSS", "a file of SPSS: export the table as CSV"),
        (_zip("mimetype", "content.xml"), "an OpenDocument spreadsheet .* save it as XLSX"),
        (_zip("Index/Document.iwa"), "a document of Apple Numbers: export it as XLSX"),
        (_zip("_rels/.rels", "xl/workbook.bin"), r"a binary Excel workbook \(.xlsb\): save it as XLSX"),
        (_zip("_rels/.rels", "word/document.xml"), "a text document"),
        (_zip("cohort.csv"), "a ZIP archive, not a workbook: unpack it"),
    ],
)
def test_another_kind_of_file_is_refused_with_its_remedy(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, content)
