"""The workbook is read back with Quarry's own reader."""

from __future__ import annotations

import random
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dicom_quarry.cohort.cohort import read_cohort
from dicom_quarry.cohort.input_source import InputSource
from dicom_quarry.cohort.xlsx_table import open_xlsx
from dicom_quarry.errors import InputError
from dicom_quarry.outcomes import make_outcome
from dicom_quarry.reporting import xlsx_report
from dicom_quarry.reporting.csv_reports import (
    REPORT_COLUMNS,
    STUDY_COLUMNS,
    ReportTable,
    make_report_table,
    make_study_table,
    write_csv,
)
from dicom_quarry.reporting.xlsx_report import write_xlsx
from dicom_quarry.system.permissions import Permissions
from tests.e2e.file_systems import small_disk
from tests.reporting.test_csv_reports import lines as csv_lines
from tests.reporting.test_csv_reports import row, study

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def read_back(path: Path) -> list[list[str]]:
    """The first sheet, its header first."""
    table = open_xlsx(InputSource(path), is_key=lambda _: True)
    return [list(table.header), *(cells for _, cells in table.rows())]


def parts(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as book:
        return {name: book.read(name).decode() for name in book.namelist()}


def test_it_says_what_the_csv_files_say(tmp_path: Path) -> None:
    columns, cells = (
        ("EMPI", "Note"),
        [("0012345678901234567890", "=1+1"), ("1e5", "-"), ("", "\ttwo\r\nlines ")],
    )
    rows = [row(at, one) for at, one in enumerate(cells, 1)]
    write_csv(tmp_path / "report.csv", *make_report_table(columns, rows)[:2])
    write_xlsx(tmp_path / "report.xlsx", {"report": make_report_table(columns, rows)})
    assert read_back(tmp_path / "report.xlsx") == csv_lines(tmp_path / "report.csv")
    write_csv(tmp_path / "studies.csv", *make_study_table([study()])[:2])
    write_xlsx(tmp_path / "studies.xlsx", {"studies": make_study_table([study()])})
    assert read_back(tmp_path / "studies.xlsx") == csv_lines(tmp_path / "studies.csv")


@settings(deadline=None, max_examples=10)
@given(st.lists(st.tuples(TEXT, TEXT).map(lambda pair: (pair[0], f"{pair[1]}.")), max_size=40))
@example([("<r>", "<r><t>x</t></r>.")])
@example([("<r><evil/></r>", "_x0041_.")])
@example([("\ufffe\uffff\x00\x1b\x85\u2028", " \r\n.")])
def test_cells_read_back_exactly(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.xlsx"
        write_xlsx(path, {"report": ReportTable(("a", "b"), rows)})
        assert [tuple(line) for line in read_back(path)[1:]] == rows


def test_every_cell_is_text(tmp_path: Path) -> None:
    path = tmp_path / "report.xlsx"
    values = ("007", "1e5", "=1+1", "https://x.example", "2018-07-23", "TRUE", 12345678901234567890)
    write_xlsx(path, {"report": ReportTable([f"c{at}" for at, _ in enumerate(values)], [values])})
    sheet = parts(path)["xl/worksheets/sheet1.xml"]
    assert sheet.count('t="inlineStr"') == 2 * len(values) == sheet.count("<c ")
    assert "<f>" not in sheet and "hyperlink" not in sheet
    assert read_back(path)[1] == [*map(str, values)]


def test_quarrys_columns_are_for_reading(tmp_path: Path) -> None:
    path = tmp_path / "report.xlsx"
    missing = make_outcome("study_not_found", keys="accession")
    # Columns of the user's with names of Quarry's stay text.
    rows = [row(1, ("00012", "x")), row(2, ("17", "1"), missing)]
    write_xlsx(path, {"report": make_report_table(("EMPI", "folder"), rows)})
    book = parts(path)
    sheet, links = book["xl/worksheets/sheet1.xml"], book["xl/worksheets/_rels/sheet1.xml.rels"]
    at = 2 + REPORT_COLUMNS.index("quarry_images")
    assert re.search(rf'<c r="{chr(65 + at)}2" s="\d+"><v>3</v></c>', sheet)
    assert re.search(r'<c r="A2" s="\d+" t="inlineStr"><is><t>00012</t></is></c>', sheet)
    assert re.search(r'<c r="B3" s="\d+" t="inlineStr"><is><t>1</t></is></c>', sheet)
    assert links.count("Target=") == 2 == links.count('Target="4711/1.2.3" TargetMode="External"')
    outcome = chr(67 + REPORT_COLUMNS.index("quarry_outcome"))
    styles = [re.search(rf'<c r="{outcome}{line}" s="(\d+)"', sheet) for line in (2, 3)]
    assert all(styles) and len({style[1] for style in styles if style}) == 2
    assert "FFC6EFCE" in book["xl/styles.xml"] and 'wrapText="1"' in book["xl/styles.xml"]
    widths = [float(width) for width in re.findall(r'<col [^>]*width="([\d.]+)"', sheet)]
    assert 5 < min(widths) < max(widths) < 60


@pytest.mark.parametrize(
    ("folder", "target"),
    [
        ("A", "A"),
        ("a%2Fb/1", "a%252Fb/1"),
        ("a b", "a%20b"),
        ("./=x", "=x"),
        ("X#1", "X%231"),
        ("é/1", "é/1"),
    ],
)
def test_links_lead_to_the_folder(tmp_path: Path, folder: str, target: str) -> None:
    path = tmp_path / "studies.xlsx"
    write_xlsx(path, {"studies": make_study_table([study(folder=folder), study(folder="")])})
    assert f'Target="{target}" TargetMode' in parts(path)["xl/worksheets/_rels/sheet1.xml.rels"]
    assert unquote(target) == folder.removeprefix("./")


def test_more_links_than_a_sheet_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx_report, "_MAX_LINKS", 2)
    path = tmp_path / "studies.xlsx"
    write_xlsx(path, {"studies": make_study_table([study()] * 3)})
    assert parts(path)["xl/worksheets/_rels/sheet1.xml.rels"].count("Target=") == 2
    assert [line[STUDY_COLUMNS.index("folder")] for line in read_back(path)[1:]] == ["4711/1.2.3"] * 3


def test_what_xml_cannot_hold_is_escaped(tmp_path: Path) -> None:
    """Our parser would take it, Excel calls the file damaged."""
    path = tmp_path / "report.xlsx"
    write_xlsx(path, {"report": ReportTable(("a",), [["\ufffe\uffff\x1b"]])})
    assert "_xFFFE__xFFFF__x001B_" in parts(path)["xl/worksheets/sheet1.xml"]
    assert read_back(path)[1] == ["\ufffe\uffff\x1b"]


def test_sheets_can_be_worked_with(tmp_path: Path) -> None:
    path = tmp_path / "report.xlsx"
    write_xlsx(
        path, {"report": ReportTable(("a", "b"), [("1", "2")] * 3), "studies": make_study_table([study()])}
    )
    book = parts(path)
    first, second = book["xl/worksheets/sheet1.xml"], book["xl/worksheets/sheet2.xml"]
    assert '<autoFilter ref="A1:B4"/>' in first and 'state="frozen"' in first
    assert 'name="report"' in book["xl/workbook.xml"] and 'name="studies"' in book["xl/workbook.xml"]
    assert STUDY_COLUMNS[0] in second and "CT CHEST" in second
    assert "<b/>" in book["xl/styles.xml"]


@pytest.mark.parametrize(("count", "sheets"), [(0, [0]), (3, [3]), (4, [3, 1]), (6, [3, 3]), (7, [3, 3, 1])])
def test_a_long_table_goes_on_in_further_sheets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, sheets: list[int]
) -> None:
    monkeypatch.setattr(xlsx_report, "_MAX_LINES", 3)
    path = tmp_path / "report.xlsx"
    write_xlsx(
        path,
        {"report": ReportTable(("a",), ([at] for at in range(count))), "studies": ReportTable(("b",), [])},
    )
    book = parts(path)
    names = ["report", *(f"report-{number}" for number in range(2, len(sheets) + 1)), "studies"]
    assert [name for name in names if f'name="{name}"' in book["xl/workbook.xml"]] == names
    found = [book[f"xl/worksheets/sheet{at}.xml"].count("<row ") - 1 for at, _ in enumerate(names, 1)]
    assert found == [*sheets, 0]
    assert "<t>a</t>" in book[f"xl/worksheets/sheet{len(sheets)}.xml"]  # each has the header


@pytest.mark.parametrize("letter", ["x", "\U0001f600"])
def test_a_cell_too_long_for_excel_says_that_it_is_cut(tmp_path: Path, letter: str) -> None:
    path = tmp_path / "report.xlsx"
    longest = letter * (32_767 // len(letter.encode("utf-16-le")) * 2)
    write_xlsx(path, {"report": ReportTable(("a",), [[longest], [longest + "more"]])})
    _, (whole,), (cut,) = read_back(path)
    assert whole == longest
    assert len(cut.encode("utf-16-le")) <= 2 * 32_767
    assert cut.startswith(letter * 16_000) and cut.endswith("the CSV file has the whole text)")


def test_more_columns_than_a_sheet_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.xlsx"
    header = ["c"] * 16_385
    with pytest.raises(InputError, match="16,385 columns"):
        write_xlsx(path, {"report": ReportTable(header, [])})
    assert not list(tmp_path.iterdir())


def test_a_report_can_be_the_next_jobs_table(tmp_path: Path) -> None:
    path = tmp_path / "report.xlsx"
    table = make_report_table(("EMPI", "Accession"), [row(1, ("01", "002"))])
    write_xlsx(path, {"report": table, "studies": make_study_table([study()])})
    cohort = read_cohort(path)
    assert cohort.requests[0].keys == (("PatientID", "01"), ("AccessionNumber", "002"))
    assert cohort.columns == ("EMPI", "Accession", *REPORT_COLUMNS)


def test_only_the_owner_may_read_it_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "report.xlsx"
    write_xlsx(path, {"report": ReportTable(("a",), [])})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_xlsx(path, {"report": ReportTable(("a",), [])}, permissions=Permissions(0o640))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.xlsx"
    path.write_text("the old one")
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))

    def breaks() -> Iterator[Sequence[object]]:
        yield ["0042"]
        yield ["0043"]
        # What is written on the way names patients: only its owner may read it, in any folder.
        below = [one for one in tmp_path.rglob("*") if one not in (path, elsewhere)]
        assert below and not list(elsewhere.iterdir())
        assert all(stat.S_IMODE(one.stat().st_mode) in (0o600, 0o700) for one in below)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_xlsx(path, {"report": ReportTable(("a",), breaks())})
    assert path.read_text() == "the old one"
    assert set(tmp_path.iterdir()) == {path, elsewhere}


def test_what_the_disk_says_is_an_oserror(tmp_path: Path) -> None:
    def takes_the_folder_away() -> Iterator[Sequence[object]]:
        yield ["1"]
        shutil.rmtree(next(one for one in tmp_path.iterdir() if one.is_dir()))

    with pytest.raises(FileNotFoundError):
        write_xlsx(tmp_path / "report.xlsx", {"report": ReportTable(("a",), takes_the_folder_away())})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_oserror(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        path = disk / "report.xlsx"
        path.write_text("the old one")
        # Random, so that the packed file is no smaller: the disk holds the lines once, not three times.
        lines = [[random.Random(at).randbytes(500).hex()] for at in range(600)]
        with pytest.raises(OSError, match="No space left"):
            write_xlsx(path, {"report": ReportTable(("a",), lines)})
        assert path.read_text() == "the old one"
        assert list(disk.iterdir()) == [path]
