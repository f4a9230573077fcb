"""The summary: its counts and sentences, and what it leaves out where others may read it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from dicom_quarry.ledger.views import RowView, StudyView
from dicom_quarry.model import Outcome, Study
from dicom_quarry.outcomes import make_outcome
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.reporting.summary import JobSummary, render_summary, summarise, summary_lines

DONE = make_outcome("all_listed_stored", instances=3)
ABSENT = make_outcome("study_not_found", keys="accession")
BAD_ROW = make_outcome("row_unusable", problem="column 'MRN': \"47[red]11\x1b\" is wrong")


def rows(*ended: Outcome) -> list[RowView]:
    return [RowView(n, n + 1, ("x",), one, None, 1, 1, 3, 3, 10, None, ()) for n, one in enumerate(ended, 1)]


def studies(*ended: Outcome) -> list[StudyView]:
    return [
        StudyView((1,), Study("1.2", "4711", "ACC"), "main", one, 3, 3, 1_500_000, "4711/1.2", 1)
        for one in ended
    ]


def terminal(summary: JobSummary) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200, force_terminal=False).print(
        render_summary(summary, Path("out/report.csv"))
    )
    return stream.getvalue()


def test_all_is_well() -> None:
    summary = summarise(rows(DONE, DONE), studies(DONE))
    assert summary.exit_code == 0
    assert summary_lines(summary, Path("out/report.csv")) == [
        "2 rows: 2 complete",
        "1 study, 1 of them complete; 3 instances stored, 1.5 MB",
        "report: out/report.csv",
        "every row is complete (exit code 0)",
    ]


def test_a_page_next_to_the_report_is_named(tmp_path: Path) -> None:
    summary, report = summarise(rows(DONE), studies(DONE)), tmp_path / "report.csv"
    assert f"report: {report}" in summary_lines(summary, report)
    (tmp_path / "report.html").touch()
    assert f"report: {report}, as a page: {tmp_path}/report.html" in summary_lines(summary, report)


def test_rows_that_need_attention_are_grouped_with_what_to_do() -> None:
    summary = summarise(rows(DONE, ABSENT, BAD_ROW, ABSENT), studies(DONE, DONE))
    assert summary.exit_code == 1
    assert summary_lines(summary) == [
        "4 rows: 1 complete, 2 not found, 1 invalid",
        "2 studies, 2 of them complete; 6 instances stored, 3.0 MB",
        "not found, 2 rows (study_not_found): the archive has no matching study",
        "  rows 2, 4",
        "  what to do: check the values; the study may be in another archive or under another patient ID",
        "invalid, 1 row (row_unusable): the row cannot be used",
        "  row 3",
        "  what to do: correct the row in the table, then run the command again with --update",
        "finished: 1 of 4 rows complete, 3 need your attention; see above and report.csv (exit code 1)",
    ]


def test_a_terminal_may_show_the_sentences_and_nothing_of_them_is_obeyed() -> None:
    shown = terminal(summarise(rows(DONE, BAD_ROW, ABSENT), studies(DONE)))
    assert "row 2: column 'MRN': \"47[red]11\\x1b\" is wrong" in shown
    assert "row 3: no study matches this accession" in shown
    assert "\x1b" not in shown
    assert "out/report.csv" in shown


def test_what_is_redirected_names_no_patient() -> None:
    text = "\n".join(summary_lines(summarise(rows(BAD_ROW, ABSENT), studies(DONE))))
    for secret in ("47", "ACC", "1.2"):
        assert secret not in text


def test_the_first_twenty_rows_of_a_group_are_named() -> None:
    summary = summarise(rows(*[ABSENT] * 25), [])
    numbers = ", ".join(map(str, range(1, 21)))
    assert f"  rows {numbers} and 5 more" in summary_lines(summary)
    assert "… and 5 more" in terminal(summary)


@pytest.mark.parametrize(
    ("ended", "code", "meaning"),
    [
        ((), 0, "every row is complete"),
        ((DONE, make_outcome("pending"), ABSENT), 4, "not finished: run the same command again to continue"),
        (
            (ABSENT, DONE),
            1,
            "finished: 1 of 2 rows complete, 1 needs your attention; see above and report.csv",
        ),
    ],
)
def test_the_exit_code_and_what_it_means(ended: tuple[Outcome, ...], code: int, meaning: str) -> None:
    summary = summarise(rows(*ended), [])
    assert (summary.exit_code, summary.exit_code_text) == (code, meaning)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_940, "99.9 kB"),
        (99_960, "100 kB"),
        (999_600, "1.0 MB"),
        (1_234_567_890, "1.2 GB"),
        (10**19, "10000 PB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text
