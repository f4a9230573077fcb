"""The end of a job in a few lines: what came out, what did not, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dicom_quarry.ledger.views import RowView, StudyView
from dicom_quarry.model import OnCompleteState, Outcome, OutcomeStatus
from dicom_quarry.outcomes import CATALOGUE
from dicom_quarry.reporting.formatting import format_count, format_size
from dicom_quarry.system.text_safety import escape_text

#: How many rows of one kind are named; report.csv has the others.
MAX_SHOWN = 20

#: What a person has to remove: told of every study.
_EXCLUDED_BUT_STORED = "excluded_but_stored"

_STYLES = {OutcomeStatus.COMPLETE: "green", OutcomeStatus.PENDING: "cyan", OutcomeStatus.FAILED: "red"}
_MEANINGS = {
    0: "every row is complete",
    1: "finished; the exceptions are explained above",
    4: "not finished: run the same command again to go on",
}


@dataclass(slots=True)
class OutcomeGroup:
    """The rows that ended, or wait, for the same reason; the first of them with their sentences."""

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
    """What a job came to: ``words`` counts rows; a study counts once, however many rows share it.

    ``refused`` instances were sent and not taken: nobody had asked for them, or they were damaged.
    ``hand_overs`` counts complete studies by how far the command of on-complete has come; ``released`` went
    elsewhere.
    """

    rows: int
    outcome_counts: tuple[tuple[OutcomeStatus, int], ...]
    studies: int
    studies_complete: int
    instances: int
    size: int
    exceptions: tuple[OutcomeGroup, ...]
    refused_instances: int = 0
    on_complete_counts: Mapping[str, int] = field(default_factory=dict)
    released_studies: int = 0

    @property
    def exit_code(self) -> int:
        """0 every row complete, 1 finished with exceptions, 4 not finished."""
        statuses = {status for status, _ in self.outcome_counts}
        if OutcomeStatus.PENDING in statuses or self.on_complete_counts.get(OnCompleteState.WAITING):
            return 4
        return (
            1
            if statuses - {OutcomeStatus.COMPLETE} or self.on_complete_counts.get(OnCompleteState.FAILED)
            else 0
        )

    @property
    def exit_code_text(self) -> str:
        """The exit code in words."""
        return _MEANINGS[self.exit_code]


def summarise(rows: Iterable[RowView], studies: Iterable[StudyView], refused: int = 0) -> JobSummary:
    """Count what the ledger tells; each view is looked at once and let go."""
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
            # Whatever else became of the row: of several studies the worst would speak for it.
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
    """Put a row with those that ended for the same reason."""
    group = groups.setdefault(outcome.code, OutcomeGroup(outcome.status, outcome.code, outcome.next_step))
    group.count += 1
    if len(group.rows) < MAX_SHOWN:
        group.rows.append((row, outcome.reason))


def sort_groups(groups: dict[str, OutcomeGroup]) -> tuple[OutcomeGroup, ...]:
    """The most frequent reasons first."""
    return tuple(sorted(groups.values(), key=lambda group: (-group.count, group.code)))


def summary_lines(summary: JobSummary, report: Path | None = None) -> list[str]:
    """Plain lines, for a file or a pipe: rows by their number, nothing that could name a patient."""
    counts = ", ".join(f"{count:,} {_status_text(status)}" for status, count in summary.outcome_counts)
    lines = [f"{format_count(summary.rows, 'row')}: {counts}" if counts else "no rows", _totals_line(summary)]
    for group in summary.exceptions:
        lines.extend(group_lines(group))
    lines.extend(_follow_up_lines(summary))
    if report is not None:
        lines.append(f"report: {report}")
    lines.append(f"{summary.exit_code_text} (exit code {summary.exit_code})")
    return lines


def render_summary(summary: JobSummary, report: Path | None = None) -> RenderableType:
    """For a terminal, where the sentences may quote what the user's table says."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right")
    table.add_column()
    for status, count in summary.outcome_counts:
        table.add_row(f"{count:,}", Text(_status_text(status), style=_style(status)))
    parts: list[RenderableType] = [Text(format_count(summary.rows, "row"), style="bold"), table]
    parts.append(Text(_totals_line(summary)))
    for group in summary.exceptions:
        parts.extend(render_group(group))
    parts.extend(Text(line) for line in _follow_up_lines(summary))
    if report is not None:
        parts.append(Text(f"report: {report}"))
    parts.append(Text(summary.exit_code_text, style="bold"))
    return Group(*parts)


def render_group(group: OutcomeGroup) -> Sequence[Text]:
    """Rows that ended for the same reason, for a terminal."""
    head = f"\n{_status_text(group.status)}, {format_count(group.count, 'row')}: {group.title}"
    lines = [Text(head, style=_style(group.status))]
    # What has not ended has nothing to explain yet.
    if group.status is not OutcomeStatus.PENDING:
        lines += [Text(f"  row {row}: {escape_text(reason, limit=300)}") for row, reason in group.rows]
        if group.count > len(group.rows):
            lines.append(Text(f"  … and {group.count - len(group.rows):,} more"))
    if group.next_step:
        lines.append(Text(f"  what to do: {escape_text(group.next_step, limit=300)}", style="italic"))
    return lines


def group_lines(group: OutcomeGroup) -> list[str]:
    """The same for a file or a pipe: rows by their number."""
    lines = [
        f"{_status_text(group.status)}, {format_count(group.count, 'row')} ({group.code}): {group.title}"
    ]
    lines.append(f"  {_row_numbers(group)}")
    if group.next_step:
        lines.append(f"  what to do: {escape_text(group.next_step, limit=300)}")
    return lines


def _totals_line(summary: JobSummary) -> str:
    studies = format_count(summary.studies, "study", "studies")
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
    """What became of complete studies afterwards."""
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
        lines.append("  what to do: see studies.csv for how it failed; quarry retry runs it again")
    if summary.released_studies:
        lines.append(
            f"{format_count(summary.released_studies, 'study', 'studies')} released: the data went elsewhere"
        )
    return lines


def _row_numbers(group: OutcomeGroup) -> str:
    numbers = ", ".join(str(row) for row, _ in group.rows)
    more = group.count - len(group.rows)
    return f"row{'s' if group.count > 1 else ''} {numbers}" + (f" and {more:,} more" if more else "")


def _status_text(status: OutcomeStatus) -> str:
    return "invalid" if status is OutcomeStatus.INVALID_ROW else status.replace("_", " ")


def _style(status: OutcomeStatus) -> str:
    return _STYLES.get(status, "yellow")
