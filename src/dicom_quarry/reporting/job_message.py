"""How a job ended, for those who want to be told: counts and row numbers, nothing that names a patient."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from dicom_quarry.errors import ArchiveError, InputError, LedgerError, StartError, told
from dicom_quarry.jobs.notification import Notice, notice
from dicom_quarry.reporting.formatting import instant
from dicom_quarry.reporting.summary import Summary, summary_lines

_HOW = {0: "finished, every row is complete", 1: "finished with exceptions", 4: "stopped, not finished"}
_BLOCKED = "not finished, a person has to act"

_WHY = {
    InputError: "the table, or a setting, cannot be used: the terminal says why",
    LedgerError: "the job's record cannot be read or written: the terminal says why",
}


def end_notice(summary: Summary, out: Path, started: datetime, problem: str = "") -> Notice:
    """A run has ended; ``problem`` is what a person has to do, without an archive's own words."""
    lines = summary_lines(summary, out / "report.csv")
    facts = {
        "exit_code": summary.exit_code,
        "problem": problem,
        "started": instant(started),
        "rows": summary.rows,
        "rows_by_outcome": dict(summary.words),
        "exceptions": [
            {
                "outcome": one.word,
                "code": one.code,
                "rows": one.count,
                "first_rows": [row for row, _ in one.rows],
            }
            for one in summary.exceptions
        ],
        "studies": summary.studies,
        "studies_complete": summary.studies_complete,
        "studies_released": summary.released,
        "on_complete": dict(summary.hand_overs),
        "instances": summary.instances,
        "bytes": summary.size,
        "refused": summary.refused,
    }
    what = _BLOCKED if problem and summary.exit_code == 4 else _HOW[summary.exit_code]
    return _ended(what, out, started, (*([problem, ""] if problem else []), *lines), facts)


def failure_notice(error: Exception, out: Path, started: datetime) -> Notice:
    """A run was ended by an error, or could not begin."""
    what = "could not start" if isinstance(error, InputError | StartError) else "not finished"
    problem = _why(error)
    facts = {"exit_code": None, "problem": problem, "started": instant(started)}
    return _ended(what, out, started, (problem,), facts)


def _why(error: Exception) -> str:
    """An error without words of the table's, of the archive's or of a path's."""
    if isinstance(error, StartError):
        return str(error)
    if isinstance(error, ArchiveError):
        return told(error)
    kind = next((kind for kind in _WHY if isinstance(error, kind)), None)
    return _WHY[kind] if kind else f"an error: {getattr(error, 'strerror', None) or type(error).__name__}"


def _ended(
    what: str, out: Path, started: datetime, lines: tuple[str, ...], facts: Mapping[str, object]
) -> Notice:
    return notice("ended", what, out, (f"started: {instant(started)}", "", *lines), facts)
