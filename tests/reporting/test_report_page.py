"""report.html: its content, what it never has, and text that tries to leave its place."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicom_quarry import api
from dicom_quarry.jobs import record
from dicom_quarry.jobs.local_place import create_local
from dicom_quarry.jobs.opened_job import OpenedJob, open_job
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.reporting.html import report_data
from dicom_quarry.reporting.html.methods_section import methods_text
from dicom_quarry.reporting.html.report_data import read_report_data
from dicom_quarry.reporting.html.report_page import make_report_page, write_report_page
from dicom_quarry.reporting.html.row_data import NumberColumn, RowRanges, base36, pack_size
from dicom_quarry.reporting.job_view import read_job_view
from tests.e2e.finished_job import record_job
from tests.reporting.recorded_cohort import record_cohort

MARKER = "ZQX"
ROWS, UNUSABLE = 500, 3
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\u2028\u202e"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenedJob]:
    out = tmp_path_factory.mktemp("report") / f"{MARKER}out"
    record_cohort(out, ROWS, unusable=UNUSABLE, marker=MARKER)
    with open_job(out) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(job: OpenedJob) -> str:
    return make_report_page(read_report_data(job))


def row_data(text: str) -> dict[str, Any]:
    [found] = re.findall(r'<script type="application/json" id="row-data">(.*?)</script>', text, re.DOTALL)
    return dict(json.loads(found))


def unpack(text: str) -> list[int]:
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        value, _, times = part.partition("*")
        numbers += [int(value, 36)] * int(times or "1", 36)
    return numbers


def words(text: str) -> str:
    """The text of a page as a person reads it."""
    without = re.sub(r"<(script|style)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", without)).split())


def test_a_default_page_has_nothing_of_the_table_or_of_the_archive(page: str) -> None:
    assert MARKER not in page
    assert MARKER.lower() not in page.lower()


def test_the_page_has_what_its_readers_look_for(job: OpenedJob, page: str) -> None:
    view, text = read_job_view(job), words(page)
    complete = view.rows_by_status[OutcomeStatus.COMPLETE]
    assert view.verdict in text and f"{complete:,} of {ROWS} rows complete" in text
    for heading in (
        "From the table to complete rows",
        "Throughput over time",
        "Data by modality",
        "Data by year of the study",
        "Sizes of the studies",
        "Missing images",
        "What we did to the archive",
        "Rows that need attention",
        "All rows",
        "Methods",
        "Software and settings",
    ):
        assert heading in text
    for outcome in view.outcomes:
        assert outcome.next_step in text
    assert "IRB-2026-014" in text and "PACS@10.1.2.3:104" in text and "19:00-07:00 (America/New_York)" in text
    assert f"{view.activity.total.retrievals:,}" in text
    assert "no request began outside" in text
    assert "Studies tried again later 9" in text and "1 h 30 min" in text
    assert "matched by PatientID and AccessionNumber" in text


def test_the_flow_loses_no_row(job: OpenedJob) -> None:
    view = read_job_view(job)
    assert view.flow[0].rows == ROWS
    assert view.flow[0].leaving == (("Invalid", UNUSABLE),)
    for step, following in zip(view.flow, view.flow[1:], strict=False):
        assert step.rows - sum(number for _, number in step.leaving) == following.rows
    assert view.flow[-1].rows == view.rows_by_status[OutcomeStatus.COMPLETE]


def test_the_load_has_every_byte_that_is_stored(job: OpenedJob) -> None:
    view = read_job_view(job)
    assert round(view.activity.total.size) == view.size
    assert round(view.activity.total.instances) == view.instances_stored
    assert job.reader.most_retrievals_at_once() == {"main": 2}


@pytest.mark.parametrize(("began", "ended"), [(3e8, 3e8 + 9), (2e9, 1e8), (2e9, 3e10)])
def test_a_clock_that_jumps_costs_no_page(tmp_path: Path, began: float, ended: float) -> None:
    settings = record_cohort(tmp_path / "out", 3)
    with closing(sqlite3.connect(settings.to / ".quarry" / "ledger.db")) as database, database:
        database.execute("UPDATE attempts SET started = ?, ended = ? WHERE id = 2", (began, ended))
    with open_job(tmp_path / "out") as job:
        assert "Throughput over time" in make_report_page(read_report_data(job))


def test_one_row_is_singular(job: OpenedJob) -> None:
    data = read_report_data(job)
    view = replace(data.view, rows_by_status={OutcomeStatus.FILTERED: 1, OutcomeStatus.PARTIAL: 2})
    text = methods_text(replace(data, view=view))
    assert "1 row was left out by the selection" in text and "2 rows were retrieved in part" in text


def test_a_page_that_fails_costs_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(MARKER)

    monkeypatch.setattr("dicom_quarry.reporting.html.report_page.make_report_page", fail)
    record_job(tmp_path / "out", studies=2, files=1)
    result = api.report(tmp_path / "out")
    assert result.exit_code == 0 and (tmp_path / "out" / "proof.json").exists()
    assert "report.html was not written (ValueError). To try again: quarry report" in result.page_problem
    with pytest.raises(ValueError, match=MARKER):
        api.report(tmp_path / "out", html=True)


def test_every_row_is_in_the_table_as_it_is_in_the_report(job: OpenedJob, page: str) -> None:
    data, rows = row_data(page), list(job.reader.rows())
    codes = [data["outcomes"][number]["code"] for number in unpack(data["code"])]
    assert codes == [row.outcome.code for row in rows]
    assert unpack(data["row"]) == [1] * ROWS
    assert unpack(data["stored"]) == [row.instances_stored for row in rows]
    assert unpack(data["missing"]) == [row.instances_expected - row.instances_stored for row in rows]
    for packed, row in zip(unpack(data["size"]), rows, strict=True):
        assert packed // 14 * 10 ** (packed % 14) == pytest.approx(row.size, rel=0.006)


def test_identifiers_are_there_on_request_under_a_red_line(job: OpenedJob, tmp_path: Path) -> None:
    write_report_page(tmp_path / "report.html", job, identifiers=True)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "This page has patient identifiers" in text
    data = row_data(text)
    assert data["columns"] == ["EMPI", "Accession", "Note"]
    assert (
        data["cells"][1]["texts"][unpack(data["cells"][1]["at"])[ROWS - 1]]
        == f"{MARKER}{951381800000 + ROWS}"
    )
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o600


def test_text_cannot_leave_its_place(tmp_path: Path) -> None:
    settings = record_cohort(tmp_path / "seed" / "out", 1).model_copy(update={"to": tmp_path / "out"})
    table, cell = tmp_path / "hostile.csv", HOSTILE.replace('"', '""')
    table.write_text(f'Accession,"{cell}"\nA1,"{cell}"\n', "utf-8")
    with closing(Ledger(create_local(tmp_path / "out", None).ledger)) as ledger:
        record.begin_or_continue(ledger, record.read_cohort(table, settings)[0], settings, update=False)
    with open_job(tmp_path / "out") as job:
        text = make_report_page(read_report_data(job, identifiers=True))
    assert "<img" not in text and "\u2028" not in text and "\u202e" not in text
    assert len(re.findall("</script", text)) == 2  # the rows, and the one script
    data = row_data(text)
    shown = HOSTILE.replace("\u2028", "\\u2028").replace("\u202e", "\\u202e")
    assert data["columns"][1] == shown and data["cells"][1]["texts"] == [shown]
    assert html.escape(shown, quote=True) in text  # in the table of the rows that need attention


def test_the_browser_may_run_and_load_nothing_else(page: str) -> None:
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0])
    assert policy.startswith("default-src 'none'; ")
    styles, scripts = (
        re.findall(r"<style>(.*?)</style>", page, re.DOTALL),
        re.findall(r"<script>(.*?)</script>", page, re.DOTALL),
    )
    assert len(styles) == len(scripts) == 1
    for directive, content in (("style-src", styles[0]), ("script-src", scripts[0])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    assert not re.search(r"\s(style|on[a-z]+)=", markup)
    assert not re.search(r"(?:src|href)=\"(?!#|report\.csv|studies\.csv|manifest\.csv\.gz)", markup)


def test_a_very_large_job_has_the_exceptions_alone(job: OpenedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_data, "MAX_ROWS", 100)
    data = read_report_data(job)
    rows = [row.row for row in job.reader.rows() if row.outcome.status not in ("complete", "filtered")]
    text = make_report_page(data)
    total, listed = 0, []
    for step in unpack(row_data(text)["row"]):
        total += step
        listed.append(total)
    assert listed == rows and len(rows) < 100
    assert "report.csv has all of them" in words(text)


def test_packed_numbers_read_back_the_same() -> None:
    column = NumberColumn()
    values = [0, 0, 0, 1, 35, 36, 36, 12345, 0]
    for value in values:
        column.add(value)
    assert unpack(column.text()) == values
    assert column.text().startswith("0*3,1,z,10*2,")
    assert base36(-37) == "-11"
    assert [pack_size(size) // 14 * 10 ** (pack_size(size) % 14) for size in (0, 7, 999, 1234, 999_999)] == [
        0,
        7,
        999,
        1230,
        1_000_000,
    ]


def test_row_numbers_are_ranges() -> None:
    ranges = RowRanges(2)
    for row in (1, 2, 3, 7, 8, 20, 21):
        ranges.add(row)
    assert ranges.text() == "1–3, 7–8, …"
