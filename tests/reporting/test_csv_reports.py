"""The files are read back with the csv module, as a script would."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.cohort.cohort import read_cohort
from dicom_quarry.ledger.views import InstanceView, MissingView, RowView, StudyView
from dicom_quarry.model import InstanceRef, Outcome, Study
from dicom_quarry.outcomes import make_outcome
from dicom_quarry.reporting.csv_reports import (
    REPORT_COLUMNS,
    write_manifest,
    write_missing,
    write_problems,
    write_report,
    write_sha256sums,
    write_studies,
)
from dicom_quarry.system.permissions import Permissions

DONE = make_outcome("all_listed_stored", instances=3)


def row(number: int, cells: tuple[str, ...], ended: Outcome = DONE, same_as: int | None = None) -> RowView:
    proved = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    found = (
        Study("1.2.3", study_date="20180723", modalities="CT\\SR", description="=CT"),
        Study("1.2.4", study_date="20180724", modalities="CT"),
    )
    folders = ("4711/1.2.3", "=4711/1.2.4")
    return RowView(number, number + 1, cells, ended, same_as, 1, 1, 3, 3, 1234, proved, found, folders)


def study(description: str = "CT CHEST", folder: str = "4711/1.2.3", **fields: str) -> StudyView:
    found = Study("1.2.3", "4711", "ACC1", "20180723", "CT\\SR", description, 2, 3)
    for name, value in fields.items():
        object.__setattr__(found, name, value)
    return StudyView((1, 7), found, "main", DONE, 3, 3, 1234, folder, 2)


def instance(path: str, sop: str = "1.2.3.4.5") -> InstanceView:
    ref = InstanceRef("1.2.3", "1.2.3.4", sop, "1.2.840.10008.5.1.4.1.1.2")
    return InstanceView(PurePosixPath(path), ref, "1.2.840.10008.1.2.1", 99, bytes(range(32)))


def lines(path: Path) -> list[list[str]]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return list(csv.reader(io.StringIO(text, newline="")))


def test_the_report_is_the_users_table_and_what_became_of_it(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    cells = (" a ", '=1+1, "x"', "two\r\nlines")
    missing = make_outcome("study_not_found", keys="accession")
    assert write_report(path, ("Site ", "Accession", "Note"), [row(1, cells), row(2, cells, missing, 1)]) == 2
    header, first, second = lines(path)
    assert header == ["Site ", "Accession", "Note", *REPORT_COLUMNS]
    assert tuple(first[:3]) == cells
    cells_by_name = dict(zip(REPORT_COLUMNS, first[3:], strict=True))
    assert cells_by_name == {
        "quarry_row": "1",
        "quarry_line": "2",
        "quarry_outcome": "complete",
        "quarry_reason": "3 instances stored: all that the archive lists",
        "quarry_what_to_do": "",
        "quarry_folders": "4711/1.2.3 | ./=4711/1.2.4",
        "quarry_study_date": "20180723 | 20180724",
        "quarry_modality": "CT\\SR | CT",
        "quarry_description": "'=CT | ",
        "quarry_images": "3",
        "quarry_same_as_row": "",
        "quarry_studies_found": "1",
        "quarry_studies_complete": "1",
        "quarry_instances_expected": "3",
        "quarry_instances_stored": "3",
        "quarry_bytes": "1234",
        "quarry_proved_at": "2026-01-02T03:04:05Z",
        "quarry_code": "all_listed_stored",
        "quarry_study_uids": "1.2.3 1.2.4",
    }
    by_name = dict(zip(REPORT_COLUMNS, second[3:], strict=True))
    assert [by_name[f"quarry_{name}"] for name in ("outcome", "reason", "code", "same_as_row")] == [
        "not_found",
        "no study matches this accession",
        "study_not_found",
        "1",
    ]


def test_the_time_of_proof_is_told_in_utc(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    proved = datetime(2026, 1, 2, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    write_report(
        path, (), [RowView(1, 2, (), DONE, None, 0, 0, 0, 0, 0, when, ()) for when in (proved, None)]
    )
    at = REPORT_COLUMNS.index("quarry_proved_at")
    assert [line[at] for line in lines(path)[1:]] == ["2026-01-01T23:00:00Z", ""]


def test_a_report_can_be_the_next_jobs_table(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    write_report(path, ("EMPI", "Accession"), [row(1, ("01", "002"))])
    cohort = read_cohort(path)
    assert cohort.requests[0].keys == (("PatientID", "01"), ("AccessionNumber", "002"))
    before = path.read_bytes()
    write_report(path, cohort.columns, [row(1, cohort.requests[0].cells)])
    assert path.read_bytes() == before


def test_the_users_own_quarry_columns_stay(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    columns = ("quarry_site", "Quarry_Code", "quarry_next_step", "Accession")
    write_report(path, columns, [row(1, ("pit 3", "old", "of an earlier version", "1"))])
    assert lines(path)[0][:3] == ["quarry_site", "Accession", "quarry_row"]
    assert lines(path)[1][:3] == ["pit 3", "1", "1"]


@given(st.lists(st.tuples(st.text(), st.text()).map(lambda pair: (pair[0], f"{pair[1]}.")), max_size=5))
def test_the_users_cells_read_back_exactly(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.csv"
        write_report(path, ("a", "b"), [row(at, cells) for at, cells in enumerate(rows, 1)])
        assert [tuple(line[:2]) for line in lines(path)[1:]] == rows


def test_a_row_without_studies_has_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    write_report(path, (), [RowView(1, 2, (), DONE, None, 0, 0, 0, 0, 0, None, (Study("1.2"),), ("",))])
    cells = dict(zip(REPORT_COLUMNS, lines(path)[1], strict=True))
    assert {cells[f"quarry_{name}"] for name in ("folders", "study_date", "modality", "description")} == {""}


def test_a_byte_order_mark_on_request(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    write_report(path, ("Accession", "Größe"), [row(1, ("01", "ü"))], bom=True)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfAccession,Gr\xc3\xb6")
    assert read_cohort(path).requests[0].keys == (("AccessionNumber", "01"),)


def test_the_rows_that_need_attention(tmp_path: Path) -> None:
    path = tmp_path / "problems.csv"
    absent, waits = make_outcome("study_not_found", keys="accession"), make_outcome("pending")
    rows = [row(1, ("a",)), row(2, ("b",), absent), row(3, ("c",), waits)]
    assert write_problems(path, ("Accession",), rows) == 2
    assert [line[0] for line in lines(path)] == ["Accession", "b", "c"]
    assert write_problems(path, ("Accession",), rows[:1]) == 0
    assert not path.exists()


def test_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    content = tmp_path / "a b" / "é.dcm"
    content.parent.mkdir()
    content.write_bytes(b"x")
    here = replace(instance("a b/é.dcm"), digest=hashlib.sha256(b"x").digest())
    elsewhere = replace(instance("gone.dcm"), released=True)
    assert write_sha256sums(tmp_path / "SHA256SUMS", [here, elsewhere]) == 1
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "a b/é.dcm: OK\n")


def test_studies_stand_one_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "studies.csv"
    assert write_studies(path, [study()]) == 1
    header, line = lines(path)
    assert dict(zip(header, line, strict=True)) == {
        "rows": "1 7",
        "patient_id": "4711",
        "accession": "ACC1",
        "study_date": "20180723",
        "modality": "CT\\SR",
        "description": "CT CHEST",
        "study_uid": "1.2.3",
        "outcome": "complete",
        "code": "all_listed_stored",
        "reason": "3 instances stored: all that the archive lists",
        "expected": "3",
        "stored": "3",
        "bytes": "1234",
        "folder": "4711/1.2.3",
        "attempts": "2",
        "on_complete": "",
        "on_complete_at": "",
        "on_complete_error": "",
        "released_at": "",
    }


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1", " '=1"),
        ("＝1", "'＝1"),
        ("\t=1", "\\x09=1"),
        ("\r=1", "\\x0d=1"),
        ("a;=1", "a;'=1"),
        ("a\nb", "a\\x0ab"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\u202eb", "a\\u202eb"),
        ("\udcff", "\\udcff"),
        ("CT-CHEST = 1", "CT-CHEST = 1"),
        ("MÜLLER^ÄNNE", "MÜLLER^ÄNNE"),
        ("x" * 200, "x" * 200),
    ],
)
def test_text_from_the_archive_is_harmless(tmp_path: Path, text: str, written: str) -> None:
    path = tmp_path / "studies.csv"
    for field in ("patient_id", "accession", "description"):
        write_studies(path, [study(**{field: text})])
        header, line = lines(path)
        assert line[header.index(field)] == written


def test_a_reason_that_quotes_the_archive_is_harmless(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    write_report(path, ("Accession",), [row(1, ("1",), make_outcome("row_unusable", problem="=1\x1b"))])
    assert lines(path)[1][1 + REPORT_COLUMNS.index("quarry_reason")] == "'=1\\x1b"


def test_a_path_stays_the_same_path(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv.gz"
    write_manifest(path, [instance("=1+1/1.2.3/x.dcm"), instance("4711/1.2.3/x.dcm")])
    written = [line[0] for line in lines(path)[1:]]
    assert written == ["./=1+1/1.2.3/x.dcm", "4711/1.2.3/x.dcm"]
    assert PurePosixPath(written[0]) == PurePosixPath("=1+1/1.2.3/x.dcm")


def test_the_manifest_lists_every_instance(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv.gz"
    assert write_manifest(path, (instance(f"p/{n}.dcm", f"1.{n}") for n in range(3))) == 3
    header, *rest = lines(path)
    assert dict(zip(header, rest[2], strict=True)) == {
        "path": "p/2.dcm",
        "study_uid": "1.2.3",
        "series_uid": "1.2.3.4",
        "sop_uid": "1.2",
        "sop_class": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax": "1.2.840.10008.1.2.1",
        "bytes": "99",
        "sha256": bytes(range(32)).hex(),
    }


def test_the_same_manifest_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "a.csv.gz", tmp_path / "other.csv.gz"
    write_manifest(one, [instance("p/1.dcm")])
    write_manifest(two, [instance("p/1.dcm")])
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes()[3:8] == bytes(5)  # no name, no time (RFC 1952)


def test_missing_instances_are_listed_only_where_there_are_any(tmp_path: Path) -> None:
    path = tmp_path / "missing.csv"
    ref = InstanceRef("1.2", "1.2.3", "1.2.3.4")
    assert write_missing(path, []) == 0
    assert not path.exists()
    assert write_missing(path, [MissingView((2, 3), ref), MissingView((2, 3), ref, "refused: no space")]) == 2
    assert lines(path) == [
        ["rows", "study_uid", "series_uid", "sop_uid", "sop_class", "reason"],
        ["2 3", "1.2", "1.2.3", "1.2.3.4", "", ""],
        ["2 3", "1.2", "1.2.3", "1.2.3.4", "", "refused: no space"],
    ]
    assert write_missing(path, iter(())) == 0
    assert not path.exists()


def test_only_the_owner_may_read_them_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    path.write_text("an older one")
    path.chmod(0o666)
    write_report(path, ("a",), [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_report(path, ("a",), [], permissions=Permissions(0o640))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["studies.csv", "studies.csv.gz"])
def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("the old one")

    def breaks() -> Iterator[StudyView]:
        yield study()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_studies(path, breaks())
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_there_is_no_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    write_report(path, ("Ärztin",), [row(1, ("Ö",))])
    assert path.read_bytes().startswith("Ärztin,".encode())
