"""Notifications about the end of a job: counts and row numbers, without anything that names a patient."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from dicom_quarry.errors import ArchiveError, InputError, LedgerError, StartError, redact
from dicom_quarry.jobs.notifications import Notification, build_notification
from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.formatting import format_timestamp
from dicom_quarry.reporting.summary import JobSummary, summary_lines

_ERROR_TEXTS = {
    InputError: "the table, or a setting, cannot be used: see the terminal or the log file",
    LedgerError: "the job's ledger cannot be read or written: see the terminal or the log file",
}


def end_notification(summary: JobSummary, out: Path, started: datetime, problem: str = "") -> Notification:
    """Build the message for a run that has ended.

    ``problem`` states what a person has to do, without text from the archive; empty if nothing.
    """
    lines = summary_lines(summary, out / "report.csv")
    facts = {
        "exit_code": summary.exit_code,
        "problem": problem,
        "started": format_timestamp(started),
        "rows": summary.rows,
        "rows_by_outcome": dict(summary.outcome_counts),
        "needs_attention": [
            {
                "outcome": one.status,
                "code": one.code,
                "rows": one.count,
                "first_rows": [row for row, _ in one.rows],
            }
            for one in summary.attention_groups
        ],
        "studies": summary.studies,
        "studies_complete": summary.studies_complete,
        "studies_released": summary.released_studies,
        "on_complete": dict(summary.on_complete_counts),
        "instances": summary.instances,
        "bytes": summary.size,
        "refused": summary.refused_instances,
    }
    head = (problem, "") if problem else ()
    return _make_end_message(_end_subject(summary, problem), out, started, (*head, *lines), facts)


def _end_subject(summary: JobSummary, problem: str) -> str:
    if summary.exit_code == 4:
        return "not finished, your action is needed" if problem else "stopped, not finished"
    if summary.exit_code == 0:
        return f"finished, {summary.settled_text}"
    if not summary.incomplete_rows and summary.file_problem:
        return "finished, files are damaged or missing"
    if not summary.incomplete_rows:
        return "finished, an on-complete command failed"
    need = "needs" if summary.incomplete_rows == 1 else "need"
    return f"finished, {format_count(summary.incomplete_rows, 'row')} {need} your attention"


def failure_notification(error: Exception, out: Path, started: datetime) -> Notification:
    """Build the message for a run that an error ended, or that could not begin."""
    subject = "could not start" if isinstance(error, InputError | StartError) else "not finished"
    problem = _describe_error(error)
    facts = {"exit_code": None, "problem": problem, "started": format_timestamp(started)}
    return _make_end_message(subject, out, started, (problem,), facts)


def _describe_error(error: Exception) -> str:
    """Describe an error without text from the table, the archive or a path."""
    if isinstance(error, StartError):
        return str(error)
    if isinstance(error, ArchiveError):
        return redact(error)
    kind = next((kind for kind in _ERROR_TEXTS if isinstance(error, kind)), None)
    return (
        _ERROR_TEXTS[kind]
        if kind
        else f"an error: {getattr(error, 'strerror', None) or type(error).__name__}"
    )


def _make_end_message(
    subject: str, out: Path, started: datetime, lines: tuple[str, ...], facts: Mapping[str, object]
) -> Notification:
    return build_notification(
        "ended", subject, out, (f"started: {format_timestamp(started)}", "", *lines), facts
    )
