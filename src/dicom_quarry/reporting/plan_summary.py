"""A plan for people, for spreadsheets and for scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dicom_quarry.ledger.plan_reader import PlannedRow
from dicom_quarry.model import OutcomeStatus, Study
from dicom_quarry.reporting.estimate import Forecast
from dicom_quarry.reporting.formatting import format_count, format_size
from dicom_quarry.reporting.summary import (
    OutcomeGroup,
    add_to_group,
    group_lines,
    render_group,
    sort_groups,
)
from dicom_quarry.system.durations import format_duration
from dicom_quarry.system.text_safety import escape_text

#: Rows that are shown on a terminal; the file has all of them.
MAX_SHOWN_ROWS = 50

_MEANINGS = {
    0: "every row has studies to fetch",
    1: "some rows have none, which is explained above",
    4: "not every row was asked about: run the same command again to go on",
}


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows by what was found for them; ``repeated`` have the keys of an earlier one."""

    rows: int
    found: int
    repeated: int
    exceptions: tuple[OutcomeGroup, ...]


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a plan comes to. ``free`` is what the disk of ``to`` has beyond what is left to others.

    ``filtered``: of some studies only certain series are wanted.
    """

    counts: RowCounts
    forecasts: tuple[Forecast, ...]
    output_folder: Path
    free_bytes: int
    has_series_filter: bool = False

    @property
    def studies(self) -> int:
        """Studies to fetch; one that several rows ask for counts once."""
        return sum(one.volume.studies for one in self.forecasts)

    @property
    def instances(self) -> int:
        """Their instances, as far as the archives say."""
        return sum(one.volume.instances for one in self.forecasts)

    @property
    def size(self) -> int:
        """Their bytes, estimated."""
        return sum(one.volume.estimated_size for one in self.forecasts)

    @property
    def exit_code(self) -> int:
        """0 every row has studies, 1 some rows have none, 4 not every row was asked about."""
        statuses = {group.status for group in self.counts.exceptions}
        if OutcomeStatus.PENDING in statuses:
            return 4
        return 1 if statuses else 0

    @property
    def exit_code_text(self) -> str:
        """The exit code in words."""
        return _MEANINGS[self.exit_code]


def count_rows(rows: Iterable[PlannedRow]) -> RowCounts:
    """Count; each row is looked at once and let go."""
    total = found = repeated = 0
    groups: dict[str, OutcomeGroup] = {}
    for row in rows:
        total += 1
        repeated += row.same_as_row is not None
        if row.outcome is None:
            found += 1
        else:
            add_to_group(groups, row.row, row.outcome)
    return RowCounts(total, found, repeated, sort_groups(groups))


def plan_lines(summary: PlanSummary, file: Path | None = None) -> list[str]:
    """Plain lines, for a file or a pipe: rows by their number, nothing that could name a patient."""
    lines = [_rows_line(summary)]
    for group in summary.counts.exceptions:
        lines.extend(group_lines(group))
    lines.extend(_total_lines(summary))
    if file is not None:
        lines.append(f"plan: {file}")
    lines.append(f"{summary.exit_code_text} (exit code {summary.exit_code})")
    return lines


def render_plan(summary: PlanSummary, rows: Iterable[PlannedRow], file: Path | None = None) -> RenderableType:
    """For a terminal: the first rows with their studies, then what all of them come to."""
    parts: list[RenderableType] = [_table(islice(rows, MAX_SHOWN_ROWS))]
    if summary.counts.rows > MAX_SHOWN_ROWS:
        more = summary.counts.rows - MAX_SHOWN_ROWS
        parts.append(Text(f"… and {format_count(more, 'more row')}; -o plan.csv writes them all"))
    parts.append(Text(f"\n{_rows_line(summary)}", style="bold"))
    for group in summary.counts.exceptions:
        parts.extend(render_group(group))
    parts.append(Text("\n" + "\n".join(_total_lines(summary))))
    if file is not None:
        parts.append(Text(f"plan: {file}"))
    parts.append(Text(summary.exit_code_text, style="bold"))
    return Group(*parts)


def _table(rows: Iterable[PlannedRow]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("row", "patient", "date", "modality", "description", "series", "instances"):
        table.add_column(name, justify="right" if name in ("row", "series", "instances") else "left")
    for row in rows:
        for cells in _cells(row):
            table.add_row(str(row.row), *cells)
    return table


def _cells(row: PlannedRow) -> Iterator[tuple[Text, ...]]:
    if row.outcome is not None:
        yield Text("–"), Text(""), Text(""), Text(row.outcome.status.replace("_", " "), style="yellow")
    repeated = f" (as row {row.same_as_row})" if row.same_as_row is not None else ""
    for _, study in row.studies:
        values = (study.patient_id, study.study_date, study.modalities.replace("\\", " "), study.description)
        texts = [Text(escape_text(value, limit=40)) for value in values]
        texts[-1].append(f"{repeated}{_availability_note(study)}", style="dim")
        yield (
            *texts,
            Text(_count_or_unknown(study.series_count)),
            Text(_count_or_unknown(study.instance_count)),
        )


def _availability_note(study: Study) -> str:
    available = study.availability in ("", "ONLINE")
    return "" if available else f" {escape_text(study.availability, limit=20).lower()}"


def _count_or_unknown(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _rows_line(summary: PlanSummary) -> str:
    counts = summary.counts
    text = f"{format_count(counts.rows, 'row')}, {counts.found:,} of them with studies"
    return f"{text}; {counts.repeated:,} repeat an earlier one" if counts.repeated else text


def _total_lines(summary: PlanSummary) -> list[str]:
    """Totals, times and room, each with how it was estimated."""
    lines = [
        f"{format_count(summary.studies, 'study', 'studies')}, {format_count(summary.instances, 'instance')}, "
        f"about {format_size(summary.size)}: instances as the archive counts them, each taken for as large "
        "as is typical of its modality, uncompressed"
    ]
    uncounted = sum(one.volume.uncounted for one in summary.forecasts)
    if uncounted:
        lines.append(
            f"the archive does not say how many instances {format_count(uncounted, 'study', 'studies')} have: "
            "they are taken for as large as the others"
        )
    if summary.has_series_filter:
        lines.append("whole studies are counted; only the series that are wanted are fetched, which is less")
    lines.extend(_duration_line(one, several=len(summary.forecasts) > 1) for one in summary.forecasts)
    verdict = "enough" if summary.free_bytes >= summary.size else "NOT ENOUGH"
    lines.append(f"{format_size(summary.free_bytes)} free on the disk of {summary.output_folder}: {verdict}")
    return lines


def _duration_line(one: Forecast, *, several: bool) -> str:
    text = f"about {format_duration(one.seconds)} {one.rate_note}"
    if one.windows is None:
        text += ", spread over more windows than are foreseen"
    elif one.windows and one.ends_at is not None:
        text += (
            f", in {format_count(one.windows, 'window')}, until {one.ends_at.astimezone():%a %Y-%m-%d %H:%M}"
        )
    return f"{one.archive}: {text}" if several else text
