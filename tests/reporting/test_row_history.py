"""The words of ``quarry explain`` for what goes wrong, and which of them are for a terminal alone."""

from __future__ import annotations

import pytest

from dicom_quarry.ledger.history import RowHistory, StudyHistory
from dicom_quarry.ledger.ledger import Attempt
from dicom_quarry.ledger.query_log import Postponement, QueryLogEntry
from dicom_quarry.ledger.views import RowView, StudyView
from dicom_quarry.model import Study
from dicom_quarry.outcomes import make_outcome
from dicom_quarry.reporting.row_history import explain_lines

FAILED = make_outcome("query_failed", status="A700 for DOE^JANE")


def row(*queries: QueryLogEntry) -> RowHistory:
    view = RowView(7, 8, ("x",), FAILED, None, 0, 0, 0, 0, 0, None, ())
    return RowHistory(view, (("PatientID", "4711"), ("StudyDate", "20180723")), (), "", queries)


def study(*rounds: Attempt) -> StudyHistory:
    view = StudyView((7,), Study("1.2.3", "4711"), "main", FAILED, 3, 0, 0, "", len(rounds))
    numbered = tuple(enumerate(rounds, 1))
    pause = Postponement(50.0, 110.0, "the archive is busy")
    return StudyHistory(view, None, (), numbered, (70.0,), (pause,), 0, (), ())


def query(
    answers: int | None, status: int | None = None, why: str = "", model: str = "study"
) -> QueryLogEntry:
    return QueryLogEntry(
        "main", model, "row", "STUDY", "PatientID StudyDate", 0.0, 1.5, 1, answers, status, why
    )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (query(None, 0xA700, "says DOE"), "failed, status A700H: The archive is out of resources"),
        (query(None, 503, "says DOE", "qido"), "(STUDY level, QIDO-RS): failed, HTTP 503"),
        (query(None, None, "cut DOE"), "failed"),
        (query(200, None, "capped for DOE"), "200 answers, incomplete"),
    ],
)
def test_queries_that_were_not_answered_whole(entry: QueryLogEntry, expected: str) -> None:
    for identified in (True, False):
        text = "\n".join(explain_lines([row(entry)], [], with_identifiers=identified))
        assert expected in text
        assert ("DOE" in text, "4711" in text) == (identified, identified)
    assert "by PatientID, StudyDate" in text


@pytest.mark.parametrize(
    ("transport", "status", "expected"),
    [
        (
            "move",
            0xA801,
            "C-MOVE at STUDY level: 3 instances requested, 0 stored, 2.00 s, status A801H: The archive",
        ),
        ("wado", 404, "WADO-RS at STUDY level: 3 instances requested, 0 stored, 2.00 s, HTTP 404"),
        ("get", None, "C-GET at STUDY level: 3 instances requested, 0 stored, 2.00 s, lost"),
    ],
)
def test_retrievals_that_failed(transport: str, status: int | None, expected: str) -> None:
    attempt = Attempt(10.0, 12.0, "STUDY", 3, 0, "lost", status, "DOE^JANE is offline", transport)
    for identified in (True, False):
        lines = explain_lines([row()], [study(attempt)], with_identifiers=identified)
        assert sum(expected in line for line in lines) == 1
        assert any("DOE^JANE is offline" in line for line in lines) is identified
    at = lines.index("what happened, in UTC:")
    assert lines[at + 2 : at + 4] == [
        "  1970-01-01 00:00:50  postponed until 1970-01-01 00:01:50: the archive is busy",
        "  1970-01-01 00:01:10  tried again",
    ]
