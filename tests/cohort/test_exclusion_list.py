"""Opt-out lists: what they stop, however it is written, and that a doubtful list is never an empty one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from dicom_quarry.cohort.exclusion_list import NO_EXCLUSIONS, ExclusionList, read_exclusions
from dicom_quarry.cohort.read_options import ReadOptions
from dicom_quarry.config.exclusion_files import ExclusionFile
from dicom_quarry.errors import InputError
from dicom_quarry.model import Request, Study
from tests.cohort.workbooks import EIGHT_DIGITS, GENERAL, LITERAL, number, sheet, text, workbook


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
    "held",
    [
        "abc12",
        " ABC12 ",
        "ABC12\0",
        "AB\0C12",
        "AB\u00adC12",
        "ABC1\u200b2",
        "AB\u00a0C12",
        "AB\x85C12",
        "AB\U000e0080C12",
        "AB\u00c2\u00adC12",  # a soft hyphen in UTF-8 that was read as Latin-1
        "other\\Abc12",
        "\uff21\uff22\uff23\uff11\uff12",
    ],
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


@pytest.mark.parametrize(
    "header",
    [
        "MRN*",
        "Patient ID #",
        "MRN (hospital)",
        "Pat-ID",
        "Old MRN",
        "Patient",
        "ID",
        "Acession No",
        "Study UIDs",
    ],
)
def test_a_column_that_resembles_an_identifier_is_an_error(write: Write, header: str) -> None:
    path = write(f"EMPI,Name,{header}\n4711,x,4712\n")
    with pytest.raises(InputError) as refused:
        of(path)
    message = str(refused.value)
    assert f"{path}, line 1: the header '{header}' of column 3 resembles" in message
    assert f'exclude = [{{file = "optout.csv", ignore = ["{header}"]}}]' in message
    decided = read_exclusions([ExclusionFile(file=path, ignore=(header,))])
    assert decided.match_study(study("4711"))
    assert not decided.match_study(study("4712"))


@pytest.mark.parametrize("space", [" ", "  ", "\t", "\N{NO-BREAK SPACE}"])
def test_a_quoted_header_behind_a_space_counts(write: Write, space: str) -> None:
    """The quotes belong to the header then (RFC 4180), and the column would be left out."""
    listed = of(write(f'Name,{space}"MRN"\nDoe,{space}"4712"\n'))
    assert listed.match_study(study("4712")) == "patient ID"


def test_other_columns_are_named(write: Write) -> None:
    listed = of(write("Name,MRN,Reason,Date,Comment,\nx,4711,withdrew,2024-01-01,y,\n"))
    assert listed.match_study(study("4711")) == "patient ID"
    (note,) = listed.notes
    assert note.endswith("optout.csv: columns that are not used: Name, Reason, Date, Comment")


def test_what_a_setting_names_must_be_there(write: Write) -> None:
    path = write("MRN,Note\n4711,x\n")
    for decisions, message in [
        (
            {"ignore": ["MRN*"]},
            "ignore names the column 'MRN*', which is not there; the table has 'MRN', 'Note'",
        ),
        ({"verbatim": ["Accession"]}, "verbatim names the column 'Accession', which is not there"),
        ({"verbatim": ["Note"]}, "'Note', which is not a column of identifiers"),
        ({"ignore": ["MRN"]}, "no column with the patients"),
    ]:
        with pytest.raises(InputError) as refused:
            read_exclusions([ExclusionFile.model_validate({"file": path, **decisions})])
        assert message in str(refused.value)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        *((f'"{cell}"', "several") for cell in ("4711; 4712", "4711/4712", "A7,A8", "A1|B2")),
        *((f'"{cell}"', "several") for cell in ("4711\n4712", "4711\r4712", "4711 und 4712", "4711+4712")),
        ("4711\N{NO-BREAK SPACE}4712", "several"),
        ("4711\N{FULLWIDTH SEMICOLON}4712", "several"),
        ("4711 (withdrew)", "a remark in brackets"),
        ("MRN:4711", "has a ':' in it"),
        ("AB\N{EN DASH}77", "the dash '\N{EN DASH}'"),
        ("1001-1005", "a range"),
        ("1001..1005", "a range"),
        ("4.711", "thousands separators"),
        ("4711.5", "decimal or thousands separator"),
        ("-", "no letter and no digit"),
        ("4711 A", "has a space in it"),
        ("4711-", "punctuation"),
        ("Total", "is a word"),
        ("Accession", "is a word"),
    ],
)
def test_a_cell_that_is_not_one_identifier_is_an_error(write: Write, cell: str, message: str) -> None:
    path = write(f"MRN\n4710\n{cell}\n")
    with pytest.raises(InputError) as refused:
        of(path)
    assert "row 2, line 3: column 'MRN': " in str(refused.value)
    assert message in str(refused.value)


def test_several_uids_in_a_cell_are_an_error(write: Write) -> None:
    with pytest.raises(InputError, match=r"column 'SUID': .* is not a UID"):
        of(write("SUID\n1.2.3 1.2.4\n"))


def test_identifiers_that_are_odd_are_taken_as_they_are_where_the_owner_wishes_so(write: Write) -> None:
    path = write('Accession,MRN\n2018/0001,"4 711"\n')
    with pytest.raises(InputError, match='add verbatim = \\["Accession"\\]'):
        of(path)
    listed = read_exclusions([ExclusionFile(file=path, verbatim=("Accession", "MRN"))])
    assert listed.match_study(study(accession="2018/0001")) == "accession"
    assert listed.match_study(study("4  711")) == "patient ID"


def test_a_cell_without_a_header_is_an_error(write: Write) -> None:
    with pytest.raises(InputError, match="row 1, line 2: column 2 has a value, but no header"):
        of(write("MRN,,Note\n4711,4712,x\n"))


def test_letters_of_a_guessed_encoding_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "optout.csv"
    path.write_bytes("MRN,Note\n\xc412,x\n".encode("cp1252"))
    with pytest.raises(InputError, match="save it as 'CSV UTF-8'"):
        of(path)
    path.write_bytes("MRN,Note\n12,\xc4\n".encode("cp1252"))
    assert of(path).match_study(study("12"))


@pytest.mark.parametrize(
    ("listed", "held"),
    [
        ("ab12", "AB\N{ZERO WIDTH SPACE}12"),
        ("ab12", "\N{WORD JOINER}AB12\N{ZERO WIDTH NO-BREAK SPACE}"),
        ("ab\N{SOFT HYPHEN}12", "AB12"),
        ("ab12", "\0AB12\0 "),
        ("ab12", "A\0B12"),
        ("ab12", "\N{RIGHT-TO-LEFT MARK}AB12"),
        ("ab12", "AB12\N{VARIATION SELECTOR-16}"),
        ("ab12", "AB12\N{IDEOGRAPHIC SPACE}"),
        ("stra\N{LATIN SMALL LETTER SHARP S}e1", "STRASSE1"),
        ("\N{LATIN SMALL LETTER U WITH DIAERESIS}1", "U\N{COMBINING DIAERESIS}1"),
        ("\N{ROMAN NUMERAL TWO}-1", "ii-1"),
    ],
)
def test_neither_form_nor_invisible_characters_hide_an_identifier(
    write: Write, listed: str, held: str
) -> None:
    exclusions = of(write(f"MRN\n{listed}\n"))
    assert exclusions.match_study(study(held)) == "patient ID"
    assert exclusions.match_study(study(f"{held}x")) == ""
    padded = of(write("MRN\n0012345\n"), pad=["PatientID=7"])
    assert padded.match_study(study("12\N{ZERO WIDTH SPACE}345")) == "patient ID"


HEADER = [text("MRN"), text("Note")]


def test_values_in_a_hidden_sheet_are_an_error(tmp_path: Path) -> None:
    sheets = ("Shown", sheet([HEADER, [text("1")]])), ("Old", sheet([[text("MRN")], [text("2")]]))
    (tmp_path / "optout.xlsx").write_bytes(workbook(*sheets, hidden=["Old"]))
    with pytest.raises(InputError, match="the hidden sheet 'Old' has values, too"):
        of(tmp_path / "optout.xlsx")


def test_a_line_above_the_header_that_may_be_a_row_is_an_error(write: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 2 is above the header, and may be a row"):
        of(write("Opt-outs of Ward B,\nNote,A4711\nMRN,Note\n4712,y\n"))
    listed = of(write("Opt-outs of Ward B,\nMRN,Note\n4712,y\n"))
    assert any("the header is in line 2" in note for note in listed.notes)
    book = sheet([[text("4711")], HEADER, [text("4712")]])
    (tmp_path / "optout.xlsx").write_bytes(workbook(("Sheet", book)))
    with pytest.raises(InputError, match="line 1 is above the header"):
        of(tmp_path / "optout.xlsx")


@pytest.mark.parametrize(
    ("sheets", "message"),
    [
        (
            (sheet([HEADER, [text("1")]]), sheet([[text("MRN")], [text("2")]])),
            "the sheet 'S2' has values, too",
        ),
        ((sheet([HEADER, [text("1")]]), sheet([[text("hello")]])), "the sheet 'S2' has values, too"),
        ((sheet([HEADER, ['><f>A9&amp;"1"</f>']]),), "cell A2, column 'MRN': "),
        ((sheet([HEADER, ["><f>B9</f><v></v>"]]),), "has not been computed"),
        ((sheet([HEADER, [number("7", LITERAL)]]),), "cell A2, column 'MRN': "),
        ((sheet([HEADER, [text("4711; 4712")]]),), "cell A2, column 'MRN': \"4711; 4712\" seems to contain"),
        (
            (sheet([HEADER, [text("1")]]).replace('<row r="2"', '<row r="2" hidden="1"'),),
            "1 row is hidden (row 2)",
        ),
        ((sheet([HEADER, [text("1"), "", text("2")]]),), "cell C2 has a value, but no header"),
        ((sheet([HEADER, ["", "", text("2")], [text("1")]]),), "cell C2 has a value, but no header"),
        (
            (
                sheet([HEADER, [text("1")], ["", text("x")]])
                + '</sheetData><mergeCells><mergeCell ref="A2:A3"/></mergeCells><sheetData>',
            ),
            "cell A3, column 'MRN': is merged with A2",
        ),
        (
            (
                '</sheetData><cols><col min="2" max="2" hidden="1"/></cols><sheetData>'
                + sheet([HEADER, [text("1")]]),
            ),
            "the column 'Note' is hidden; show it",
        ),
    ],
    ids=[
        *(
            "two lists",
            "another sheet",
            "formula",
            "empty result",
            "literal format",
            "two in a cell",
            "hidden row",
        ),
        *("no header", "row without key", "merged", "hidden column"),
    ],
)
def test_a_workbook_that_is_not_understood_whole_is_an_error(
    tmp_path: Path, sheets: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "optout.xlsx"
    path.write_bytes(workbook(*((f"S{n}", one) for n, one in enumerate(sheets, 1))))
    with pytest.raises(InputError) as refused:
        of(path)
    assert message in str(refused.value)
    assert "--" not in str(refused.value), "an option of the cohort has no effect on a list"


def test_numbers_of_a_workbook_mean_what_they_show(tmp_path: Path) -> None:
    path = tmp_path / "optout.xlsx"
    rows = [HEADER, [number("4711", EIGHT_DIGITS)], [number("4712", GENERAL)]]
    path.write_bytes(workbook(("S1", sheet(rows)), ("Empty", sheet([]))))
    listed = of(path)
    assert [bool(listed.match_study(study(one))) for one in ("00004711", "4712", "4711")] == [
        True,
        True,
        False,
    ]


def test_a_hidden_column_may_be_ignored(tmp_path: Path) -> None:
    path = tmp_path / "optout.xlsx"
    hidden = '</sheetData><cols><col min="2" max="2" hidden="1"/></cols><sheetData>'
    path.write_bytes(workbook(("S1", hidden + sheet([HEADER, [text("1"), text("x")]]))))
    assert read_exclusions([ExclusionFile(file=path, ignore=("Note",))]).match_study(study("1"))
