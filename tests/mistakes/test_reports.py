"""Reports: what people open in Excel, send on, hand over, or take for something else."""

from __future__ import annotations

import csv
import gzip
import io
import random
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import MR, TINY, make_patient, make_study
from tests.e2e.damage import flip
from tests.mistakes.commands import Done, Shell

HEADER = [
    "quarry_row",
    "quarry_line",
    "quarry_outcome",
    "quarry_reason",
    "quarry_what_to_do",
    "quarry_folders",
    "quarry_study_date",
    "quarry_modality",
    "quarry_description",
    "quarry_images",
]
TABLE = "Accession,Größe\nR0,=1+1\nR1,ü\nN0NE,007\n"


@pytest.fixture(scope="module")
def archive() -> Iterator[DemoArchive]:
    rng = random.Random(12)
    made = [
        make_study(make_patient(rng, "p 1"), "R0", date(2024, 1, 31), (TINY, 2), description="=HEAD;+1"),
        make_study(make_patient(rng, "p2"), "R1", date(2024, 2, 1), (TINY, 1), description="KNEE"),
    ]
    twice = make_patient(rng, "p3")
    for day, description in ((1, "ONE"), (2, "TWO")):
        made.append(make_study(twice, f"S{day}", date(2024, 3, day), (MR, 1), description=description))
    with DemoArchive(made) as server:
        yield server


@pytest.fixture
def finished(shell: Shell) -> Shell:
    """A user whose job has one row that needs attention."""
    shell.table(TABLE)
    assert shell.extract().code == 1
    return shell


def succeeds(done: Done) -> None:
    assert done.code == 0, done.text


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))


def hand_over(shell: Shell, name: str = "given") -> Path:
    """Copy the images and reports, without the record."""
    return shutil.copytree(shell.out, shell.folder / name, ignore=shutil.ignore_patterns(".quarry"))


def test_what_to_do_is_read_without_scrolling(finished: Shell) -> None:
    first, _, third = read(finished.out / "report.csv")
    assert list(first)[:2] == ["Accession", "Größe"]
    assert list(first)[2:12] == HEADER
    assert list(first)[-2:] == ["quarry_code", "quarry_study_uids"]
    assert (first["quarry_study_date"], first["quarry_modality"], first["quarry_images"]) == (
        "20240131",
        "CT",
        "2",
    )
    assert first["quarry_folders"] == f"p 1/{first['quarry_study_uids']}"
    assert (finished.out / first["quarry_folders"]).is_dir()
    assert third["quarry_what_to_do"].startswith("check the values")


def test_a_formula_of_the_archive_is_text_and_the_users_own_stays(finished: Shell) -> None:
    first = read(finished.out / "report.csv")[0]
    assert first["Größe"] == "=1+1"
    assert first["quarry_description"] == "'=HEAD;'+1"


def test_excel_shows_two_letters_for_one(finished: Shell) -> None:
    """``Größe`` becomes GrÃ¶ÃŸe without a byte order mark; --bom is kept by later runs."""
    report = finished.out / "report.csv"
    assert not report.read_bytes().startswith(b"\xef\xbb\xbf")
    finished.quarry("report", "out", "--bom")
    assert report.read_bytes().startswith(b"\xef\xbb\xbfAccession,Gr\xc3\xb6")
    finished.quarry("retry", "out")
    assert report.read_bytes().startswith(b"\xef\xbb\xbf")
    assert (finished.out / "studies.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    finished.quarry("report", "out", "--no-bom")
    assert report.read_bytes().startswith(b"Accession")


def test_a_report_is_the_next_cohort(finished: Shell) -> None:
    finished.quarry("report", "out", "--bom", "--xlsx")
    for name in ("report.csv", "report.xlsx"):
        again = finished.quarry(
            *(
                "extract",
                f"out/{name}",
                "--from",
                finished.remote,
                "--as",
                finished.local,
                "--to",
                f"to-{name}",
            )
        )
        assert again.code == 1, again.text
        rows = read(finished.folder / f"to-{name}" / "report.csv")
        assert [row["quarry_outcome"] for row in rows] == ["complete", "complete", "not_found"]
        assert list(rows[0]) == list(read(finished.out / "report.csv")[0])


def test_only_the_rows_that_need_attention(finished: Shell) -> None:
    done = finished.quarry("report", "out", "--problems")
    assert done.code == 1
    assert "rows that need attention: out/problems.csv" in done.text
    (row,) = read(finished.out / "problems.csv")
    assert (row["Accession"], row["Größe"], row["quarry_outcome"]) == ("N0NE", "007", "not_found")
    again = finished.quarry(
        *("extract", "out/problems.csv", "--from", finished.remote, "--as", finished.local, "--to", "rest")
    )
    assert "1 row: 1 not found" in again.text


def test_problems_that_are_solved(finished: Shell) -> None:
    finished.quarry("report", "out", "--problems")
    finished.table("Accession,Größe\nR0,=1+1\nR1,ü\n")
    succeeds(finished.extract("--update"))
    assert not (finished.out / "problems.csv").exists()
    done = finished.quarry("report", "out", "--problems")
    succeeds(done)
    assert "no row needs attention: there is no problems.csv" in done.text


def test_a_workbook_to_read(finished: Shell) -> None:
    done = finished.quarry("report", "out", "--xlsx")
    assert "workbook: out/report.xlsx" in done.text
    with zipfile.ZipFile(finished.out / "report.xlsx") as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
        links = book.read("xl/worksheets/_rels/sheet1.xml.rels").decode()
        assert 'name="Summary"' in book.read("xl/workbook.xml").decode()
        assert "not_found" in book.read("xl/worksheets/sheet3.xml").decode()
    assert "<cols>" in sheet and "<v>2</v>" in sheet
    targets = re.findall('Target="([^"]+)"', links)
    assert len(targets) == 2
    assert all((finished.out / target.replace("%20", " ")).is_dir() for target in targets)


def test_checksums_for_people_without_quarry(finished: Shell) -> None:
    done = finished.quarry("report", "out", "--sha256sums")
    assert "checksums: out/SHA256SUMS" in done.text
    given = hand_over(finished)
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    checked = subprocess.run(check, cwd=given, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout.count(": OK")) == (0, 3)
    next(given.rglob("*.dcm")).write_bytes(b"x")
    assert subprocess.run(check, cwd=given, capture_output=True, check=False).returncode == 1


def test_a_folder_without_its_record_is_verified_from_its_manifest(finished: Shell) -> None:
    given = hand_over(finished)
    done = finished.quarry("verify", "given", "--threads", 1)
    succeeds(done)
    assert "Comparing with given/manifest.csv.gz of" in done.text
    assert "3 files compared by SHA-256: 0 damaged or missing" in done.text
    broken = next(given.rglob("*.dcm"))
    flip(broken)
    done = finished.quarry("verify", "given", "--threads", 1)
    assert done.code == 1
    assert "copy these files again from where the folder came from, then verify it again" in done.text
    assert "quarry retry" not in done.text
    assert [row["path"] for row in read(given / "damaged.csv")] == [str(broken.relative_to(given))]
    flip(broken)  # back
    succeeds(finished.quarry("verify", "given", "--threads", 1))


def test_a_manifest_that_was_sent_by_another_way(finished: Shell) -> None:
    given = hand_over(finished)
    sent = shutil.move(given / "manifest.csv.gz", finished.folder / "sent.csv.gz")
    done = finished.quarry("verify", "given", "--quick")
    assert done.code == 2
    assert "holds no job" in done.text
    succeeds(finished.quarry("verify", "given", "--quick", "--manifest", sent))


def test_a_manifest_that_names_files_elsewhere(finished: Shell) -> None:
    given = hand_over(finished)
    manifest = given / "manifest.csv.gz"
    text = gzip.decompress(manifest.read_bytes()).decode()
    manifest.write_bytes(gzip.compress(text.replace("p2/", "../out/p2/").encode()))
    done = finished.quarry("verify", "given")
    assert done.code == 2
    assert "has no path of a file in the folder): get it again" in done.text
    shutil.copy(finished.out / "manifest.csv.gz", manifest)
    succeeds(finished.quarry("verify", "given", "--quick"))


def test_a_row_of_several_studies_names_all_folders(shell: Shell) -> None:
    shell.table("Patient ID\np3\n")
    succeeds(shell.extract("--whole-patients"))
    (row,) = read(shell.out / "report.csv")
    found = row["quarry_folders"].split(" | ")
    assert len(found) == 2
    assert all((shell.out / folder).is_dir() for folder in found)
    assert row["quarry_study_date"].split(" | ") == ["20240301", "20240302"]
    assert (row["quarry_description"], row["quarry_images"]) == ("ONE | TWO", "2")


def test_the_page_is_there_and_names_no_patient(finished: Shell) -> None:
    page = finished.out / "report.html"
    assert page.stat().st_mode & 0o777 == 0o600
    assert "N0NE" not in page.read_text("utf-8") and "1 needs attention" in page.read_text("utf-8")
    done = finished.quarry("report", "out", "--html", "--identifiers")
    assert done.code == 1 and "page: out/report.html" in done.text
    assert "N0NE" in page.read_text("utf-8")
    finished.quarry("report", "out")
    assert "N0NE" not in page.read_text("utf-8"), "identifiers are there only as long as they are requested"
    refused = finished.quarry("report", "out", "--identifiers")
    assert refused.code == 2 and "--html" in refused.text


def test_no_page_is_written_that_the_settings_forbid(shell: Shell) -> None:
    shell.table(TABLE)
    (shell.folder / "quarry.toml").write_text("html = false\n")
    assert shell.extract().code == 1
    assert not (shell.out / "report.html").exists()
    assert shell.quarry("report", "out").code == 1
    assert not (shell.out / "report.html").exists()
    assert shell.quarry("report", "out", "--html").code == 1
    assert (shell.out / "report.html").exists()
