"""The summary of a plan: for a terminal, and as plain lines for a file or a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dicom_quarry.ledger.plan_reader import PlannedRow
from dicom_quarry.model import SETTLED, OutcomeStatus, Study
from dicom_quarry.outcomes import INTERNAL_ERROR
from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.cohort_content import CohortContent
from dicom_quarry.reporting.estimate import Forecast
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.reporting.plan_advice import for_plan
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


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Numbers of rows: ``found`` have studies to fetch, ``repeated`` have the keys of an earlier row.

    ``unresolved_groups`` are the rows without a study, by reason.
    """

    rows: int
    found: int
    repeated: int
    unresolved_groups: tuple[OutcomeGroup, ...]


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """The totals of a plan.

    ``free_bytes`` is the free space on the disk of ``output_folder``, less the space that Quarry keeps free.
    ``has_series_filter`` is true if only some series of the studies will be fetched. ``content`` counts the
    descriptions and modalities of the studies.
    """

    counts: RowCounts
    forecasts: tuple[Forecast, ...]
    output_folder: Path
    free_bytes: int
    has_series_filter: bool = False
    content: CohortContent = field(default_factory=CohortContent)

    @property
    def studies(self) -> int:
        """The number of studies to fetch; a study of several rows counts once."""
        return sum(one.volume.studies for one in self.forecasts)

    @property
    def instances(self) -> int | None:
        """The number of their instances, of the studies for which the archive gave one; None if unknown."""
        if not all(one.volume.is_counted for one in self.forecasts):
            return None
        return sum(one.volume.instances for one in self.forecasts)

    @property
    def size(self) -> int | None:
        """The estimated number of their bytes, None if unknown."""
        sizes = [one.volume.estimated_size for one in self.forecasts]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def exit_code(self) -> int:
        """0 every row has studies or is filtered, 1 some have none, 4 not queried, 70 a defect."""
        statuses = {group.status for group in self.counts.unresolved_groups}
        if OutcomeStatus.PENDING in statuses:
            return 4
        if any(group.code == INTERNAL_ERROR for group in self.counts.unresolved_groups):
            return 70
        return 1 if statuses - SETTLED else 0

    @property
    def verdict(self) -> str:
        """The exit code in words that stand alone, without a list of rows above them."""
        return self.exit_code_text.partition("; see")[0]

    @property
    def exit_code_text(self) -> str:
        """The exit code in words."""
        counts = self.counts
        filtered = sum(
            group.count for group in counts.unresolved_groups if group.status is OutcomeStatus.FILTERED
        )
        if self.exit_code == 0 and filtered:
            return (
                "every row has studies to fetch, or is filtered by your own options "
                f"({filtered:,} of {counts.rows:,})"
            )
        if self.exit_code == 0:
            return "every row has studies to fetch"
        if self.exit_code == 4:
            return "some rows were not queried yet: run the same command again to continue"
        missing = counts.rows - counts.found - filtered
        has = "has" if missing == 1 else "have"
        return f"{missing:,} of {format_count(counts.rows, 'row')} {has} no study to fetch; see above"


def count_rows(rows: Iterable[PlannedRow]) -> RowCounts:
    """Count the rows, which may come from an iterator."""
    total = found = repeated = 0
    groups: dict[str, OutcomeGroup] = {}
    for row in rows:
        total += 1
        repeated += row.same_as_row is not None
        if row.outcome is None:
            found += 1
        else:
            add_to_group(groups, row.row, for_plan(row.outcome))
    return RowCounts(total, found, repeated, sort_groups(groups))


def plan_lines(summary: PlanSummary, file: Path | None = None, *, descriptions: bool = True) -> list[str]:
    """Return plain lines for a file or a pipe: row numbers, nothing that could name a patient.

    ``descriptions`` are those of the studies, which an archive may have filled with anything.
    """
    lines = [_rows_line(summary)]
    for group in summary.counts.unresolved_groups:
        lines.extend(group_lines(group))
    lines.extend(summary.content.lines(descriptions=descriptions))
    lines.extend(_total_lines(summary))
    if file is not None:
        lines.append(f"plan: {file}")
    lines.append(f"{summary.exit_code_text} (exit code {summary.exit_code})")
    return lines


def render_plan(summary: PlanSummary, rows: Iterable[PlannedRow], file: Path | None = None) -> RenderableType:
    """Render a plan for a terminal: the first rows with their studies, then the totals."""
    parts: list[RenderableType] = [_table(islice(rows, MAX_SHOWN_ROWS))]
    if summary.counts.rows > MAX_SHOWN_ROWS:
        more = summary.counts.rows - MAX_SHOWN_ROWS
        parts.append(Text(f"… and {format_count(more, 'more row')}; -o plan.csv writes all of them"))
    parts.append(Text(f"\n{_rows_line(summary)}", style="bold"))
    for group in summary.counts.unresolved_groups:
        parts.extend(render_group(group))
    parts.append(Text("\n" + "\n".join([*summary.content.lines(), *_total_lines(summary)])))
    if file is not None:
        parts.append(Text(f"plan: {file}"))
    parts.append(Text(summary.exit_code_text, style="bold"))
    return Group(*parts)


def _table(rows: Iterable[PlannedRow]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("row", "patient", "accession", "date", "modality", "description", "series", "instances"):
        table.add_column(name, justify="right" if name in ("row", "series", "instances") else "left")
    for row in rows:
        for cells in _cells(row):
            table.add_row(str(row.row), *cells)
    return table


def _cells(row: PlannedRow) -> Iterator[tuple[Text, ...]]:
    if row.outcome is not None:
        wanted = (row.key("PatientID"), row.key("AccessionNumber"), row.key("StudyDate"))
        yield (
            *(Text(escape_text(value, limit=40)) for value in wanted),
            Text(""),
            Text(row.outcome.status.replace("_", " "), style="yellow"),
        )
    repeated = f" (as row {row.same_as_row})" if row.same_as_row is not None else ""
    for _, study in row.studies:
        modalities = study.modalities.replace("\\", " ")
        values = (study.patient_id, study.accession, study.study_date, modalities, study.description)
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
    text = f"{format_count(counts.rows, 'row')}, {counts.found:,} of them with studies to fetch"
    repeats = "repeats" if counts.repeated == 1 else "repeat"
    return f"{text} ({counts.repeated:,} {repeats} an earlier row)" if counts.repeated else text


def _total_lines(summary: PlanSummary) -> list[str]:
    """Return totals, durations and disk space, each with its assumptions."""
    studies = format_count(summary.studies, "study")
    if summary.instances is None or summary.size is None:
        lines = [f"{studies}; number of instances and size unknown: the archive does not report them"]
    else:
        lines = [
            f"{studies}, {format_count(summary.instances, 'instance')}, about {format_size(summary.size)}",
            "size estimated from typical uncompressed images; an archive that compresses images sends less",
        ]
    uncounted = sum(one.volume.uncounted for one in summary.forecasts)
    if uncounted and summary.size is not None:
        lines.append(
            f"{format_count(uncounted, 'study', 'studies')} without a number of instances from the archive, "
            "assumed to be as large as the others"
        )
    if summary.has_series_filter:
        lines.append("these numbers are for whole studies; fetching only the selected series takes less")
    lines.extend(_duration_line(one, several=len(summary.forecasts) > 1) for one in summary.forecasts)
    lines.append(_disk_line(summary))
    return lines


def _disk_line(summary: PlanSummary) -> str:
    text = f"free disk space: {format_size(summary.free_bytes)}"
    if summary.size is None:
        return text
    if summary.free_bytes >= summary.size:
        return f"{text} (enough)"
    return (
        f"{text} (NOT ENOUGH: free some space on the disk of {summary.output_folder}, or choose another "
        "folder with --to)"
    )


def _duration_line(one: Forecast, *, several: bool) -> str:
    if one.seconds is None:
        text = "duration unknown"
        return f"{one.archive}: {text}" if several else text
    text = f"about {format_duration(one.seconds)}, {one.rate_note}"
    if one.windows is None:
        text += ", over too many time windows to predict the end"
    elif one.windows and one.ends_at is not None:
        ends = f"{one.ends_at.astimezone():%a %Y-%m-%d %H:%M}"
        text += f", in {format_count(one.windows, 'time window')}, until {ends}"
    return f"{one.archive}: {text}" if several else text
