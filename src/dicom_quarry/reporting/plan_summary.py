"""A plan for people, for spreadsheets and for scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dicom_quarry.cohort.cell_values import visible
from dicom_quarry.ledger.plan_reader import PlannedRow
from dicom_quarry.model import Study, Word
from dicom_quarry.reporting.estimate import Forecast
from dicom_quarry.reporting.formatting import counted, human_size
from dicom_quarry.reporting.summary import (
    Exceptions,
    count_exception,
    largest_first,
    paragraph,
    plain_lines,
)
from dicom_quarry.system.time_text import spoken_time

#: Rows that are shown on a terminal; the file has all of them.
SHOWN_ROWS = 50

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
    exceptions: tuple[Exceptions, ...]


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a plan comes to. ``free`` is what the disk of ``to`` has beyond what is left to others.

    ``filtered``: of some studies only certain series are wanted.
    """

    counts: RowCounts
    forecasts: tuple[Forecast, ...]
    to: Path
    free: int
    filtered: bool = False

    @property
    def studies(self) -> int:
        """Studies to fetch; one that several rows ask for counts once."""
        return sum(one.amount.studies for one in self.forecasts)

    @property
    def instances(self) -> int:
        """Their instances, as far as the archives say."""
        return sum(one.amount.instances for one in self.forecasts)

    @property
    def size(self) -> int:
        """Their bytes, estimated."""
        return sum(one.amount.estimated for one in self.forecasts)

    @property
    def exit_code(self) -> int:
        """0 every row has studies, 1 some rows have none, 4 not every row was asked about."""
        words = {group.word for group in self.counts.exceptions}
        if Word.PENDING in words:
            return 4
        return 1 if words else 0

    @property
    def meaning(self) -> str:
        """The exit code in words."""
        return _MEANINGS[self.exit_code]


def count_rows(rows: Iterable[PlannedRow]) -> RowCounts:
    """Count; each row is looked at once and let go."""
    total = found = repeated = 0
    groups: dict[str, Exceptions] = {}
    for row in rows:
        total += 1
        repeated += row.same_as_row is not None
        if row.outcome is None:
            found += 1
        else:
            count_exception(groups, row.row, row.outcome)
    return RowCounts(total, found, repeated, largest_first(groups))


def plan_lines(summary: PlanSummary, file: Path | None = None) -> list[str]:
    """Plain lines, for a file or a pipe: rows by their number, nothing that could name a patient."""
    lines = [_rows(summary)]
    for group in summary.counts.exceptions:
        lines.extend(plain_lines(group))
    lines.extend(_amounts(summary))
    if file is not None:
        lines.append(f"plan: {file}")
    lines.append(f"{summary.meaning} (exit code {summary.exit_code})")
    return lines


def render_plan(summary: PlanSummary, rows: Iterable[PlannedRow], file: Path | None = None) -> RenderableType:
    """For a terminal: the first rows with their studies, then what all of them come to."""
    parts: list[RenderableType] = [_table(islice(rows, SHOWN_ROWS))]
    if summary.counts.rows > SHOWN_ROWS:
        more = summary.counts.rows - SHOWN_ROWS
        parts.append(Text(f"… and {counted(more, 'more row')}; -o plan.csv writes them all"))
    parts.append(Text(f"\n{_rows(summary)}", style="bold"))
    for group in summary.counts.exceptions:
        parts.extend(paragraph(group))
    parts.append(Text("\n" + "\n".join(_amounts(summary))))
    if file is not None:
        parts.append(Text(f"plan: {file}"))
    parts.append(Text(summary.meaning, style="bold"))
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
        yield Text("–"), Text(""), Text(""), Text(row.outcome.word.replace("_", " "), style="yellow")
    repeated = f" (as row {row.same_as_row})" if row.same_as_row is not None else ""
    for _, study in row.studies:
        told = (study.patient_id, study.study_date, study.modalities.replace("\\", " "), study.description)
        texts = [Text(visible(value, limit=40)) for value in told]
        texts[-1].append(f"{repeated}{_offline(study)}", style="dim")
        yield *texts, Text(_number(study.series_count)), Text(_number(study.instance_count))


def _offline(study: Study) -> str:
    available = study.availability in ("", "ONLINE")
    return "" if available else f" {visible(study.availability, limit=20).lower()}"


def _number(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _rows(summary: PlanSummary) -> str:
    counts = summary.counts
    text = f"{counted(counts.rows, 'row')}, {counts.found:,} of them with studies"
    return f"{text}; {counts.repeated:,} repeat an earlier one" if counts.repeated else text


def _amounts(summary: PlanSummary) -> list[str]:
    """Totals, times and room, each with how it was estimated."""
    lines = [
        f"{counted(summary.studies, 'study', 'studies')}, {counted(summary.instances, 'instance')}, "
        f"about {human_size(summary.size)}: instances as the archive counts them, each taken for as large "
        "as is typical of its modality, uncompressed"
    ]
    uncounted = sum(one.amount.uncounted for one in summary.forecasts)
    if uncounted:
        lines.append(
            f"the archive does not say how many instances {counted(uncounted, 'study', 'studies')} have: "
            "they are taken for as large as the others"
        )
    if summary.filtered:
        lines.append("whole studies are counted; only the series that are wanted are fetched, which is less")
    lines.extend(_time(one, several=len(summary.forecasts) > 1) for one in summary.forecasts)
    verdict = "enough" if summary.free >= summary.size else "NOT ENOUGH"
    lines.append(f"{human_size(summary.free)} free on the disk of {summary.to}: {verdict}")
    return lines


def _time(one: Forecast, *, several: bool) -> str:
    text = f"about {spoken_time(one.seconds)} {one.pace}"
    if one.windows is None:
        text += ", spread over more windows than are foreseen"
    elif one.windows and one.ends is not None:
        text += f", in {counted(one.windows, 'window')}, until {one.ends.astimezone():%a %Y-%m-%d %H:%M}"
    return f"{one.archive}: {text}" if several else text
