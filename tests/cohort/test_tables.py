"""Tables as people have them: each with the exact requests, or the exact error."""

from __future__ import annotations

import codecs
import csv
import hashlib
from pathlib import Path
from typing import Any

import pytest

from dicom_quarry.cohort.cohort import Cohort, read_cohort
from dicom_quarry.cohort.read_options import ReadOptions
from dicom_quarry.errors import InputError

Rows = list[tuple[int, int, str]]


def read(folder: Path, content: str | bytes, **options: Any) -> Cohort:
    path = folder / "cohort.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_cohort(path, ReadOptions.parse(**options))


def row_keys(cohort: Cohort) -> Rows:
    """Row, line and keys of every request, the keys as ``P=1 A=2``; ``!`` for a row that cannot be used."""
    short = {
        "PatientID": "P",
        "AccessionNumber": "A",
        "StudyDate": "D",
        "StudyInstanceUID": "U",
        "SeriesInstanceUID": "S",
    }
    return [
        (
            one.row,
            one.line,
            "!" if one.problem else " ".join(f"{short.get(key, key)}={value}" for key, value in one.keys),
        )
        for one in cohort.requests
    ]


SEED_1 = "EMPI,Accession\n\nAAAAA,BBBBBYYBBBBB\n\nAAAAA,BBBBBYYBBBBB\n\nAAAAA,BBBBBYYBBBBB\n"
SEED_2 = "EMPI, Study Date\n\nAAAAA, 20180723\n\nAAAAA, 20180724\n\nAAAAA, 20180725\n"
SEED_3 = "Accession\n\nBBBBBYYBBBBB\n\nBBBBBYYBBBBB\n\nBBBBBYYBBBBB\n"
ONE: Rows = [(1, 2, "P=1 A=2")]

GOOD: list[tuple[str, str | bytes, Rows]] = [
    ("seed 1", SEED_1, [(n, 2 * n + 1, "P=AAAAA A=BBBBBYYBBBBB") for n in (1, 2, 3)]),
    ("seed 2", SEED_2, [(n, 2 * n + 1, f"P=AAAAA D=2018072{n + 2}") for n in (1, 2, 3)]),
    ("seed 3", SEED_3, [(n, 2 * n + 1, "A=BBBBBYYBBBBB") for n in (1, 2, 3)]),
    ("no line end at the end", "EMPI,Accession\n1,2", ONE),
    ("CRLF", "EMPI,Accession\r\n1,2\r\n", ONE),
    ("CR", "EMPI,Accession\r1,2\r", ONE),
    ("CR, blank lines", "EMPI,Accession\r\r1,2\r\r3,4", [(1, 3, "P=1 A=2"), (2, 5, "P=3 A=4")]),
    ("UTF-8 with mark", codecs.BOM_UTF8 + b"EMPI,Accession\n1,2\n", ONE),
    ("UTF-16 with mark", "EMPI,Accession\n1,2\n".encode("utf-16"), ONE),
    ("UTF-16 BE with mark", codecs.BOM_UTF16_BE + "EMPI,Accession\n1,2\n".encode("utf-16-be"), ONE),
    ("UTF-16 LE, no mark", "EMPI,Accession\n1,2\n".encode("utf-16-le"), ONE),
    ("UTF-16 BE, no mark", "EMPI,Accession\n1,2\n".encode("utf-16-be"), ONE),
    ("UTF-16, tabs, as Excel's 'Unicode text'", "EMPI\tAccession\r\n1\t2\r\n".encode("utf-16"), ONE),
    ("cp1252", "EMPI,Accession,Überweiser\n1,2,Dr. Müller\n".encode("cp1252"), ONE),
    ("semicolon", "EMPI;Accession\n1;2\n", ONE),
    ("tab", "EMPI\tAccession\n1\t2\n", ONE),
    ("sep=;", "sep=;\r\nEMPI;Accession\r\n1;2\r\n", [(1, 3, "P=1 A=2")]),
    ("sep=, quoted", '"sep=,"\nEMPI,Accession\n1,2\n', [(1, 3, "P=1 A=2")]),
    ("sep=tab", "sep=\t\nEMPI\tAccession\n1\t2\n", [(1, 3, "P=1 A=2")]),
    ("sep=|", "sep=|\nEMPI|Accession\n1|2\n", [(1, 3, "P=1 A=2")]),
    ("commas inside semicolons", "EMPI;Accession;Note\n1;2;a,b,c,d\n", ONE),
    ("quoted header, semicolons", '"EMPI";"Accession"\n"1";"2"\n', ONE),
    ("quoted comma", 'EMPI,Name,Accession\n1,"Doe, Jane",2\n', ONE),
    (
        "quoted line breaks",
        'EMPI,Note,Accession\n1,"a\nb\r\nc",2\n3,x,4\n',
        [(1, 2, "P=1 A=2"), (2, 5, "P=3 A=4")],
    ),
    ("line break in a header", '"EMPI\n",Accession\n1,2\n', [(1, 3, "P=1 A=2")]),
    ("blank lines above the header", "\n\n  \nEMPI,Accession\n1,2\n", [(1, 5, "P=1 A=2")]),
    ("delimiters alone above the header", ",,\nEMPI,Accession\n1,2\n", [(1, 3, "P=1 A=2")]),
    ("delimiters alone are blank", "EMPI,Accession\n,\n1,2\n , \xa0\n", [(1, 3, "P=1 A=2")]),
    ("columns without a name", "EMPI,Accession,,\n1,2,,\n", ONE),
    ("delimiters too many at the end", "EMPI,Accession\n1,2,,,\n", ONE),
    ("a short row", "Accession,Note,Site\n2\n", [(1, 2, "A=2")]),
    ("a long row", "EMPI,Accession\n1,2,3\n1,2\n", [(1, 2, "!"), (2, 3, "P=1 A=2")]),
    ("an unquoted comma before the keys", "Name,Accession\nDoe, Jane,2\n", [(1, 2, "!")]),
    ("NUL in a key", b"EMPI,Accession\n1,2\x003\n", [(1, 2, "!")]),
    ("NUL in another column", b"EMPI,Accession,x\n1,2,a\x00b\n", ONE),
    ("line break in a key", 'EMPI,Accession\n1,"2\n3"\n', [(1, 2, "!")]),
    ("two columns of the user's with one name", "Accession,x,x\n2,a,b\n", [(1, 2, "A=2")]),
    ("keys in any order", "x,Accession,y,EMPI\na,2,b,1\n", [(1, 2, "A=2 P=1")]),
    ("a quote inside a cell", 'Accession,Size\n2,5" x 3"\n', [(1, 2, "A=2")]),
    ("leading zeros", "EMPI,Accession\n0001,000\n", [(1, 2, "P=0001 A=000")]),
    ("non-breaking spaces", "EMPI,Accession\n\xa01\xa0,\xa0 2\n", ONE),
    ("zero-width characters", "EMPI,\u200bAccession\n1,\u200e2\ufeff\n", ONE),
    ("text formula, as Excel writes it", 'EMPI,Accession\n1,"=""0012"""\n', [(1, 2, "P=1 A=0012")]),
    ("text formula, by hand", 'EMPI,Accession\n1,="0012"\n', [(1, 2, "P=1 A=0012")]),
    ("apostrophe", "EMPI,Accession\n'01,'0012\n", [(1, 2, "P=01 A=0012")]),
    ("float", "EMPI,Accession\n12345.0,0012.00\n", [(1, 2, "P=12345 A=0012")]),
    ("float of 16 digits", "Accession\n1234567890123456.0\n", [(1, 2, "!")]),
    (
        "scientific",
        'EMPI,Accession\n1,1.23E+10\n1,1E+10\n1,"1,23E+10"\n',
        [(n, n + 1, "!") for n in (1, 2, 3)],
    ),
    ("an accession that is almost scientific", "Accession\n1E10\n", [(1, 2, "A=1E10")]),
    ("a spreadsheet's errors", "Accession\n#N/A\n#REF!\n########\n", [(n, n + 1, "!") for n in (1, 2, 3)]),
    ("a database's NULL", "EMPI,Accession\nNULL,2\n1,nan\n", [(1, 2, "A=2"), (2, 3, "!")]),
    ("wildcards", "Accession\nA*\nA?\nA\\B\n*\n", [(n, n + 1, "!") for n in (1, 2, 3, 4)]),
    ("16 and 17 characters", f"Accession\n{'A' * 16}\n{'A' * 17}\n", [(1, 2, f"A={'A' * 16}"), (2, 3, "!")]),
    (
        "64 and 65 characters",
        f"EMPI,Acc\xa0No\n{'A' * 64},1\n{'A' * 65},1\n",
        [(1, 2, f"P={'A' * 64} A=1"), (2, 3, "!")],
    ),
    (
        "UIDs",
        "SUID\n1.2.840.1\n1.2.x\n1..2\n.1\n12\n",
        [(1, 2, "U=1.2.840.1"), *((n, n + 1, "!") for n in (2, 3, 4, 5))],
    ),
    ("a UID of 65 characters", f"SUID\n1.{'2' * 63}\n", [(1, 2, "!")]),
    (
        "dates",
        "MRN,StudyDate\n1,20180723\n1,2018-07-23\n1,2018/07/23\n1,2018/7/3\n1,2018-07-23 00:00:00\n"
        "1,20180723.0\n",
        [(n, n + 1, "P=1 D=20180703" if n == 4 else "P=1 D=20180723") for n in range(1, 7)],
    ),
    (
        "dates in doubt",
        "MRN,StudyDate\n1,01/02/2018\n1,23.07.2018\n1,43304\n1,20180230\n1,2018-07/23\n"
        "1,2018-07-23 10:30:00\n1,00000101\n1,2018\n1,201807\n1,20180723.5\n",
        [(n, n + 1, "!") for n in range(1, 11)],
    ),
    ("patient alone", "EMPI,Accession\n1,\n1,2\n", [(1, 2, "!"), (2, 3, "P=1 A=2")]),
    ("date alone", "StudyDate\n20180723\n", [(1, 2, "!")]),
    ("keys empty, other cells filled", "Accession,Note\n,hello\n", [(1, 2, "!")]),
    (
        "rows with different keys",
        "MRN,Accession,StudyDate,SUID\n1,,20180723,\n,2,,\n,,,1.2\n,2,20180723,\n",
        [(1, 2, "P=1 D=20180723"), (2, 3, "A=2"), (3, 4, "U=1.2"), (4, 5, "A=2 D=20180723")],
    ),
    (
        "ranges of dates",
        "MRN,StudyDate\n1,20180101-20180131\n1,20180101-\n1,-20180131\n1,2018-01-01 - 2018-01-31\n"
        "1,2018/1/1 to 2018/1/31\n1,20180101..\n1,20180101..20180131\n1,20180101\N{EN DASH}20180131\n"
        "1,20180101-20180101\n",
        [
            (n, n + 1, f"P=1 D={days}")
            for n, days in enumerate(
                [
                    "20180101-20180131",
                    "20180101-",
                    "-20180131",
                    *["20180101-20180131"] * 2,
                    "20180101-",
                    *["20180101-20180131"] * 2,
                    "20180101",
                ],
                1,
            )
        ],
    ),
    (
        "ranges that are none",
        "MRN,StudyDate\n1,20180131-20180101\n1,-\n1,20180101-20180230\n1,20180101-2018013\n1, to \n"
        "1,20180101-20180102-20180103\n1,20180101 - 20180102 - 20180103\n",
        [(n, n + 1, "!") for n in range(1, 8)],
    ),
    (
        "From and Until",
        "EMPI,From,Until\n1,20180101,20180131\n1,2018-01-01,\n1,,20180131\n1,20180101,20180101\n"
        "1,20180131,20180101\n1,,\n,20180101,20180131\n",
        [
            (1, 2, "P=1 D=20180101-20180131"),
            (2, 3, "P=1 D=20180101-"),
            (3, 4, "P=1 D=-20180131"),
            (4, 5, "P=1 D=20180101"),
            *((n, n + 1, "!") for n in (5, 6, 7)),
        ],
    ),
    (
        "Study Date From and To",
        "MRN;Study Date From;Study_Date_To\n1;20180101;20180131\n",
        [(1, 2, "P=1 D=20180101-20180131")],
    ),
    ("a lone From is the user's", "Accession,From\n2,ward 7\n", [(1, 2, "A=2")]),
    (
        "StudyMonth",
        "EMPI,StudyMonth\n1,201802\n1,2016-02\n1,2018/2\n1,201802.0\n1,2018-02-01\n",
        [
            (n, n + 1, f"P=1 D={month}")
            for n, month in enumerate(
                ["20180201-20180228", "20160201-20160229", *["20180201-20180228"] * 3], 1
            )
        ],
    ),
    (
        "no months",
        "EMPI,StudyMonth\n1,201813\n1,18-02\n1,20182\n1,20180215\n1,000002\n,201802\n1,Feb 2018\n",
        [(n, n + 1, "!") for n in range(1, 8)],
    ),
    (
        "one date a row, whichever column has it",
        "MRN,StudyDate,StudyMonth,From,Until\n1,20180723,,,\n1,,201807,,\n1,,,20180701,20180702\n"
        "1,20180723,201807,,\n1,20180723,,20180701,\n",
        [
            (1, 2, "P=1 D=20180723"),
            (2, 3, "P=1 D=20180701-20180731"),
            (3, 4, "P=1 D=20180701-20180702"),
            (4, 5, "!"),
            (5, 6, "!"),
        ],
    ),
    (
        "a series, within its study",
        "SUID,Series UID,Accession\n1.2,1.2.3,\n,1.2.3,2\n,1.2.3,\n1.2,1.2.x,\n",
        [(1, 2, "U=1.2 S=1.2.3"), (2, 3, "S=1.2.3 A=2"), (3, 4, "!"), (4, 5, "!")],
    ),
    ("a series and a patient", "MRN,SeriesInstanceUID\n1,1.2.3\n", [(1, 2, "!")]),
    (
        "names, sex and descriptions are the user's",
        'Accession,Patient Name,StudyDescription,Modality,Study ID\n2,"Doe, J",*,CT?,7\n',
        [(1, 2, "A=2")],
    ),
    (
        "errors of newer spreadsheets",
        "Accession\n#SPILL!\n#CALC!\n#1\n",
        [(1, 2, "!"), (2, 3, "!"), (3, 4, "A=#1")],
    ),
    ("a repeated row", "Accession\n2\n2\n", [(1, 2, "A=2"), (2, 3, "A=2")]),
]


@pytest.mark.parametrize(("content", "expected"), [pytest.param(c, e, id=name) for name, c, e in GOOD])
def test_a_table_gives_these_requests(tmp_path: Path, content: str | bytes, expected: Rows) -> None:
    cohort = read(tmp_path, content)
    assert row_keys(cohort) == expected
    assert all(len(one.cells) == len(cohort.columns) for one in cohort.requests)
    assert all(not one.keys for one in cohort.requests if one.problem)


A_HEADER = "it needs a header line such as EMPI,Accession, and rows"
IS_DATA = "this line looks like data, not like a header; add a header line such as EMPI,Accession above it"
AS_CSV = "save it as 'CSV UTF-8' and use that file"
NO_TEXT = f": neither UTF-8, UTF-16 nor Windows-1252 text; {AS_CSV}"
KEEP = "rename the one that is not to be used"

BAD: list[tuple[str, str | bytes, str]] = [
    ("empty", "", f": the file is empty; {A_HEADER}"),
    ("blank", "\n \n,,,\n;;\n", f": the file is blank; {A_HEADER}"),
    ("a mark alone", codecs.BOM_UTF8, f": the file is blank; {A_HEADER}"),
    (
        "header only",
        "\nEMPI,Accession\n\n,\n",
        ", line 2: there is a header, but no row below it; add a row for each study",
    ),
    ("data first", "\n0012,123456\n0013,123457\n", f", line 2: {IS_DATA}"),
    ("one column of data", "20180723\n20180724\n", f", line 1: {IS_DATA}"),
    (
        "MRN and EMPI",
        "MRN,x,EMPI\n1,2,3\n",
        ", line 1: the columns 'MRN' (1) and 'EMPI' (3) both mean PatientID; "
        "choose one of them, as in --map 'MRN=PatientID'",
    ),
    (
        "the same twice",
        "Accession,accession\n1,2\n",
        f", line 1: the columns 'Accession' (1) and 'accession' (2) both mean AccessionNumber; {KEEP}",
    ),
    (
        "a quote never closed",
        'EMPI,Accession\n1,2\n"3,4\n5,6\n',
        ", line 3: a quote begins on this line and is never closed; close it, or remove it",
    ),
    (
        "text behind a quote",
        'EMPI,Accession\n"1"x,2\n',
        ", line 2: there is text after a closing quote; write each quote inside a cell twice",
    ),
    (
        "XLS",
        b"\xd0\xcf\x11\xe0\xa1\xb1",
        ": this is an old Excel workbook, or one with a password: save it as XLSX, without a password",
    ),
    ("gzip", b"\x1f\x8b\x08\x00", ": this is compressed with gzip: unpack it first"),
    ("UTF-32", "EMPI,Accession\n1,2".encode("utf-32"), f": this is text in UTF-32: {AS_CSV}"),
    ("no encoding", b"EMPI,Accession\n1,\x81\xff", NO_TEXT),
    ("half a UTF-16 character", "EMPI,Accession\n1,2".encode("utf-16") + b"\x00", NO_TEXT),
    (
        "sep that separates nothing",
        "sep=x\nEMPIxAccession\n",
        ", line 1: 'x' cannot separate columns; write 'sep=;' or 'sep=,'",
    ),
    (
        "a line without end",
        "EMPI,Accession\n1," + "2" * (1 << 25),
        ", line 2: the line is too long for a table; check that this is a CSV file",
    ),
]


def test_a_cell_without_end_is_refused(tmp_path: Path) -> None:
    limit = csv.field_size_limit(100_000)
    try:
        with pytest.raises(
            InputError, match=r"line 2: a cell that begins on this line is too long; look for"
        ):
            read(tmp_path, "EMPI,Accession\n1," + "2" * 200_000)
    finally:
        csv.field_size_limit(limit)


def test_a_column_of_the_user_may_have_megabytes_in_a_cell(tmp_path: Path) -> None:
    letter = "x" * 10_000_000
    cohort = read(tmp_path, f'Accession,Letter\nA1,"{letter}"\nA2,-\n')
    assert [one.cells for one in cohort.requests] == [("A1", letter), ("A2", "-")]


@pytest.mark.parametrize(("content", "message"), [pytest.param(c, m, id=name) for name, c, m in BAD])
def test_a_table_is_refused_with_this_message(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    assert str(caught.value) == f"{tmp_path / 'cohort.csv'}{message}"


def test_an_unknown_header_is_answered_with_what_was_found_and_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"line 1: no column name is recognised; the table has 'Name', 'Sex'. Accepted names are",
    ) as caught:
        read(tmp_path, "Name,Sex\nDoe,F\n")
    for word in (
        "PatientID",
        "EMPI",
        "MRN",
        "Accession",
        "Acc#",
        "StudyDate",
        "StudyInstanceUID",
        "SUID",
        "add a header line",
    ):
        assert word in str(caught.value)


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.csv: cannot be read \(No such file or directory\)"):
        read_cohort(tmp_path / "nothing.csv")
    with pytest.raises(InputError, match="not a regular file"):
        read_cohort(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_cohort(tmp_path / "a\x00b")


def test_the_users_cells_stay_untouched(tmp_path: Path) -> None:
    cohort = read(tmp_path, 'Site , Accession,Note\n a , =x,"l1\r\nl2"\nshort\nlong,1,b,c, d\n')
    assert cohort.columns == ("Site ", " Accession", "Note")
    assert [one.cells for one in cohort.requests] == [
        (" a ", " =x", "l1\r\nl2"),
        ("short", "", ""),
        ("long", "1", "b,c, d"),
    ]


def test_the_mapping_is_told_in_the_tables_order(tmp_path: Path) -> None:
    cohort = read(tmp_path, "Site, Acc# ,STUDY-DATE,medical_record_number\nx,1,20180723,2\n")
    assert cohort.mapping == (
        ("Acc#", "AccessionNumber"),
        ("STUDY-DATE", "StudyDate"),
        ("medical_record_number", "PatientID"),
    )


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    content = "Accession\n1\n".encode("utf-16")
    assert read(tmp_path, content).digest == hashlib.sha256(content).hexdigest()
