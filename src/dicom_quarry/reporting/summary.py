"""The summary of a job: counts of rows and studies, and next steps for rows that need attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dicom_quarry.ledger.views import RowView, StudyView
from dicom_quarry.model import SETTLED, OnCompleteState, Outcome, OutcomeStatus
from dicom_quarry.outcomes import CATALOGUE, INTERNAL_ERROR
from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.system.text_safety import escape_text

#: Maximum number of rows listed for one reason; report.csv has all of them.
MAX_SHOWN = 20

#: Listed for every study, because a person has to delete its folder.
_EXCLUDED_BUT_STORED = "excluded_but_stored"

_STYLES = {
    OutcomeStatus.COMPLETE: "green",
    OutcomeStatus.FILTERED: "",
    OutcomeStatus.PENDING: "cyan",
    OutcomeStatus.FAILED: "red",
}


@dataclass(slots=True)
class OutcomeGroup:
    """The rows with the same reason code; ``rows`` are the first of them, with number and reason."""

    status: OutcomeStatus
    code: str
    next_step: str
    count: int = 0
    rows: list[tuple[int, str]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The reason without anything that could name a patient."""
        entry = CATALOGUE.get(self.code)
        return entry.title if entry else self.code


@dataclass(frozen=True, slots=True)
class JobSummary:
    """The totals of a job: ``outcome_counts`` counts rows; a study of several rows counts once.

    ``attention_groups`` are the rows that are not complete, by reason. ``refused_instances`` were sent but
    not stored, because they were not requested or were damaged. ``on_complete_counts`` counts complete
    studies by the state of their on-complete command. The data of ``released_studies`` was moved elsewhere.
    ``file_problem`` describes files that are damaged or missing, with the command that mends them.
    """

    rows: int
    outcome_counts: tuple[tuple[OutcomeStatus, int], ...]
    studies: int
    studies_complete: int
    instances: int
    size: int
    attention_groups: tuple[OutcomeGroup, ...]
    refused_instances: int = 0
    on_complete_counts: Mapping[str, int] = field(default_factory=dict)
    released_studies: int = 0
    file_problem: str = ""

    @property
    def exit_code(self) -> int:
        """0 every row complete or filtered, 1 rows need attention, 4 not finished, 70 a defect."""
        statuses = {status for status, _ in self.outcome_counts}
        if OutcomeStatus.PENDING in statuses or self.on_complete_counts.get(OnCompleteState.WAITING):
            return 4
        if self.internal_errors:
            return 70
        failed = self.on_complete_counts.get(OnCompleteState.FAILED)
        return 1 if statuses - SETTLED or failed or self.file_problem else 0

    @property
    def internal_errors(self) -> int:
        """The number of rows that ended for a defect of Quarry."""
        return sum(group.count for group in self.attention_groups if group.code == INTERNAL_ERROR)

    @property
    def incomplete_rows(self) -> int:
        """The number of rows that are neither complete nor filtered."""
        return sum(count for status, count in self.outcome_counts if status not in SETTLED)

    @property
    def rows_done(self) -> int:
        """The number of rows that have ended."""
        return self.rows - dict(self.outcome_counts).get(OutcomeStatus.PENDING, 0)

    @property
    def settled_text(self) -> str:
        """The sentence for a job whose rows need no attention."""
        filtered = dict(self.outcome_counts).get(OutcomeStatus.FILTERED, 0)
        if filtered:
            return f"every row is complete, or filtered by your own options ({filtered:,} of {self.rows:,})"
        return "every row is complete"

    @property
    def verdict(self) -> str:
        """The exit code in words that stand alone, without a list of rows above them."""
        return self.exit_code_text.partition("; see")[0]

    @property
    def exit_code_text(self) -> str:
        """The exit code in words."""
        if self.exit_code == 0:
            return self.settled_text
        if self.exit_code == 4:
            return "not finished: run the same command again to continue"
        if not self.incomplete_rows and self.file_problem:
            return "finished: every row was complete, but files are damaged or missing; see above"
        if not self.incomplete_rows:
            return f"finished: {self.settled_text}, but an on-complete command failed; see studies.csv"
        complete = dict(self.outcome_counts).get(OutcomeStatus.COMPLETE, 0)
        return (
            f"finished: {complete:,} of {format_count(self.rows, 'row')} complete, {self.incomplete_rows:,} "
            f"{'needs' if self.incomplete_rows == 1 else 'need'} your attention; see above and report.csv"
        )


def summarise(rows: Iterable[RowView], studies: Iterable[StudyView], refused: int = 0) -> JobSummary:
    """Summarise a job; the views may come from iterators."""
    status_counts: dict[OutcomeStatus, int] = {}
    groups: dict[str, OutcomeGroup] = {}
    for row in rows:
        outcome = row.outcome
        status_counts[outcome.status] = status_counts.get(outcome.status, 0) + 1
        if outcome.status is OutcomeStatus.COMPLETE or outcome.code == _EXCLUDED_BUT_STORED:
            continue
        add_to_group(groups, row.row, outcome)
    number = complete = instances = size = released = 0
    on_complete_counts: Counter[str] = Counter()
    for view in studies:
        number += 1
        complete += view.outcome.status is OutcomeStatus.COMPLETE
        instances += view.stored
        size += view.size
        if view.outcome.code == _EXCLUDED_BUT_STORED:
            # The row is listed even if another of its studies has a worse outcome.
            for each in view.rows:
                add_to_group(groups, each, view.outcome)
        released += view.released_at is not None
        on_complete_counts.update([view.on_complete_state] if view.on_complete_state else [])
    counts = tuple((status, status_counts[status]) for status in OutcomeStatus if status in status_counts)
    return JobSummary(
        sum(status_counts.values()),
        counts,
        number,
        complete,
        instances,
        size,
        sort_groups(groups),
        refused,
        on_complete_counts,
        released,
    )


def add_to_group(groups: dict[str, OutcomeGroup], row: int, outcome: Outcome) -> None:
    """Add a row to the group of its reason code."""
    group = groups.setdefault(outcome.code, OutcomeGroup(outcome.status, outcome.code, outcome.next_step))
    group.count += 1
    if len(group.rows) < MAX_SHOWN:
        group.rows.append((row, outcome.reason))


def sort_groups(groups: dict[str, OutcomeGroup]) -> tuple[OutcomeGroup, ...]:
    """Return the groups, those with the most rows first."""
    return tuple(sorted(groups.values(), key=lambda group: (-group.count, group.code)))


def summary_lines(summary: JobSummary, report: Path | None = None) -> list[str]:
    """Return plain lines for a file or a pipe: row numbers, nothing that could name a patient."""
    counts = ", ".join(f"{count:,} {status_text(status)}" for status, count in summary.outcome_counts)
    lines = [f"{format_count(summary.rows, 'row')}: {counts}" if counts else "no rows", _totals_line(summary)]
    for group in summary.attention_groups:
        lines.extend(group_lines(group))
    lines.extend(_follow_up_lines(summary))
    if report is not None:
        lines.append(_report_line(report))
    lines.append(f"{summary.exit_code_text} (exit code {summary.exit_code})")
    return lines


def render_summary(summary: JobSummary, report: Path | None = None) -> RenderableType:
    """Render a summary for a terminal, where reasons may quote the user's table."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right")
    table.add_column()
    for status, count in summary.outcome_counts:
        table.add_row(f"{count:,}", Text(status_text(status), style=_style(status)))
    parts: list[RenderableType] = [Text(format_count(summary.rows, "row"), style="bold"), table]
    parts.append(Text(_totals_line(summary)))
    for group in summary.attention_groups:
        parts.extend(render_group(group))
    parts.extend(Text(line) for line in _follow_up_lines(summary))
    if report is not None:
        parts.append(Text(_report_line(report)))
    parts.append(Text(summary.exit_code_text, style="bold"))
    return Group(*parts)


def _report_line(report: Path) -> str:
    """Return the line that names the report, and its page for a browser, if there is one."""
    page = report.with_name("report.html")
    return f"report: {report}, as a page: {page}" if page.is_file() else f"report: {report}"


def render_group(group: OutcomeGroup) -> Sequence[Text]:
    """Render the rows with the same reason for a terminal."""
    head = f"\n{status_text(group.status)}, {format_count(group.count, 'row')}: {group.title}"
    lines = [Text(head, style=_style(group.status))]
    # Rows that have not ended have no reason to show yet.
    if group.status is not OutcomeStatus.PENDING:
        lines += [Text(f"  row {row}: {escape_text(reason, limit=300)}") for row, reason in group.rows]
        if group.count > len(group.rows):
            lines.append(Text(f"  … and {group.count - len(group.rows):,} more"))
    if group.next_step:
        lines.append(Text(f"  what to do: {escape_text(group.next_step, limit=300)}", style="italic"))
    return lines


def group_lines(group: OutcomeGroup) -> list[str]:
    """Return plain lines for the rows with the same reason: row numbers only."""
    lines = [f"{status_text(group.status)}, {format_count(group.count, 'row')} ({group.code}): {group.title}"]
    lines.append(f"  {_row_numbers(group)}")
    if group.next_step:
        lines.append(f"  what to do: {escape_text(group.next_step, limit=300)}")
    return lines


def _totals_line(summary: JobSummary) -> str:
    studies = format_count(summary.studies, "study")
    text = (
        f"{studies}, {summary.studies_complete:,} of them complete; "
        f"{format_count(summary.instances, 'instance')} stored, {format_size(summary.size)}"
    )
    return (
        f"{text}; {format_count(summary.refused_instances, 'instance')} refused"
        if summary.refused_instances
        else text
    )


def _follow_up_lines(summary: JobSummary) -> list[str]:
    """Return lines on the on-complete commands and the released studies."""
    lines = []
    if summary.on_complete_counts:
        states = (
            (OnCompleteState.DONE, "done"),
            (OnCompleteState.WAITING, "not done yet"),
            (OnCompleteState.FAILED, "failed"),
        )
        state_counts = [
            f"{summary.on_complete_counts[state]:,} {name}"
            for state, name in states
            if state in summary.on_complete_counts
        ]
        lines.append(f"on-complete: {', '.join(state_counts)}")
    if summary.on_complete_counts.get(OnCompleteState.FAILED):
        lines.append("  what to do: see studies.csv for the error, then run quarry retry")
    if summary.released_studies:
        released = format_count(summary.released_studies, "study")
        lines.append(f"{released} released (the data was moved elsewhere)")
    if summary.file_problem:
        lines.append(summary.file_problem)
    return lines


def _row_numbers(group: OutcomeGroup) -> str:
    numbers = ", ".join(str(row) for row, _ in group.rows)
    more = group.count - len(group.rows)
    return f"row{'s' if group.count > 1 else ''} {numbers}" + (f" and {more:,} more" if more else "")


def status_text(status: OutcomeStatus) -> str:
    """Return an outcome in words."""
    return "invalid" if status is OutcomeStatus.INVALID_ROW else status.replace("_", " ")


def _style(status: OutcomeStatus) -> str:
    return _STYLES.get(status, "yellow")
