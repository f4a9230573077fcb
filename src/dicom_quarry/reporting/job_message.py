"""How a job ended, for those who want to be told: counts and row numbers, nothing that names a patient."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from dicom_quarry.errors import ArchiveError, InputError, LedgerError, StartError, redact
from dicom_quarry.jobs.notifications import Notification, build_notification
from dicom_quarry.reporting.formatting import format_timestamp
from dicom_quarry.reporting.summary import JobSummary, summary_lines

_EXIT_SUBJECTS = {
    0: "finished, every row is complete",
    1: "finished with exceptions",
    4: "stopped, not finished",
}
_BLOCKED_SUBJECT = "not finished, a person has to act"

_ERROR_TEXTS = {
    InputError: "the table, or a setting, cannot be used: the terminal says why",
    LedgerError: "the job's record cannot be read or written: the terminal says why",
}


def end_notification(summary: JobSummary, out: Path, started: datetime, problem: str = "") -> Notification:
    """A run has ended; ``problem`` is what a person has to do, without an archive's own words."""
    lines = summary_lines(summary, out / "report.csv")
    facts = {
        "exit_code": summary.exit_code,
        "problem": problem,
        "started": format_timestamp(started),
        "rows": summary.rows,
        "rows_by_outcome": dict(summary.outcome_counts),
        "exceptions": [
            {
                "outcome": one.status,
                "code": one.code,
                "rows": one.count,
                "first_rows": [row for row, _ in one.rows],
            }
            for one in summary.exceptions
        ],
        "studies": summary.studies,
        "studies_complete": summary.studies_complete,
        "studies_released": summary.released_studies,
        "on_complete": dict(summary.on_complete_counts),
        "instances": summary.instances,
        "bytes": summary.size,
        "refused": summary.refused_instances,
    }
    subject = _BLOCKED_SUBJECT if problem and summary.exit_code == 4 else _EXIT_SUBJECTS[summary.exit_code]
    return _make_end_message(subject, out, started, (*([problem, ""] if problem else []), *lines), facts)


def failure_notification(error: Exception, out: Path, started: datetime) -> Notification:
    """A run was ended by an error, or could not begin."""
    subject = "could not start" if isinstance(error, InputError | StartError) else "not finished"
    problem = _describe_error(error)
    facts = {"exit_code": None, "problem": problem, "started": format_timestamp(started)}
    return _make_end_message(subject, out, started, (problem,), facts)


def _describe_error(error: Exception) -> str:
    """An error without words of the table's, of the archive's or of a path's."""
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
