"""The outputs of a notebook: a job, a plan, a verification, and progress, each as one HTML element.

They need no script, and their styles apply to nothing else in the notebook. Without :class:`ShownRows` they
have row numbers, codes and modalities, and no cell or description: notebooks are committed and shared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.estimate import Forecast
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.reporting.html.charts import flow_diagram
from dicom_quarry.reporting.html.markup import Markup, element, join, table, tiles
from dicom_quarry.reporting.html.page import read_asset, style_sheet
from dicom_quarry.reporting.job_view import JobView
from dicom_quarry.reporting.plan_summary import PlanSummary
from dicom_quarry.reporting.summary import OutcomeGroup
from dicom_quarry.system.durations import format_duration

_PALETTE = re.compile(r"--page:.*?--window: [^;]+;", re.DOTALL)
#: The codes of damaged files in words.
_DAMAGE = {
    "missing": "Missing",
    "size": "Other size",
    "content": "Other content",
    "unreadable": "Unreadable",
}
_WARNING = "This output has values of your table and of the archive. Clear it before you share the notebook."


@dataclass(frozen=True, slots=True)
class ShownRows:
    """Some rows with their cells, for an output with identifiers; ``total`` is the number of all rows."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: int
    name: str = "row"

    @property
    def title(self) -> str:
        """The number of rows that are shown, in words."""
        all_rows = format_count(self.total, self.name)
        return all_rows if len(self.rows) >= self.total else f"{len(self.rows):,} of {all_rows}"

    def lines(self) -> list[str]:
        """Return a plain line for each row."""
        return [
            "; ".join(f"{name}: {value}" for name, value in zip(self.header, row, strict=True) if value)
            for row in self.rows
        ]


def job_output(view: JobView, *, note: str = "", shown: ShownRows | None = None) -> str:
    """Return a job as HTML; ``note`` is a sentence for the user."""
    state = element("p", element("span", view.state, class_=f"badge {view.level}"))
    verdict = element("p", view.verdict, class_="verdict")
    outcomes = [
        (one.status.replace("_", " "), f"{one.rows:,}", one.title, one.next_step) for one in view.outcomes
    ]
    parts = [
        state,
        verdict,
        *([element("p", note)] if note else []),
        *(
            [element("p", f"Waiting for {view.waiting_for}")]
            if view.waiting_for and view.process is not None
            else []
        ),
        tiles(_job_tiles(view)),
        table(("Outcome", "Rows", "Reason", "What to do"), outcomes, numeric=(1,), caption="Rows by outcome"),
        element("details", element("summary", "Flow of the rows"), flow_diagram(view.flow), open=""),
    ]
    return _output(parts, view.level, shown)


def job_lines(view: JobView) -> list[str]:
    """Return a job as plain lines, without identifiers."""
    outcomes = [
        f"  {one.rows:>9,} {one.status.replace('_', ' ')} ({one.code}): {one.title}" for one in view.outcomes
    ]
    numbers = "; ".join(
        f"{name.lower()}: {value} {remark}".strip() for name, value, remark in _job_tiles(view)
    )
    return [f"{view.state}: {view.verdict}", *outcomes, numbers]


def _job_tiles(view: JobView) -> Iterator[tuple[str, str, str]]:
    yield "Rows ended", f"{view.rows_done:,}", f"of {view.rows:,}"
    yield "Studies complete", f"{view.studies_complete:,}", f"of {view.studies:,}"
    yield "Images stored", f"{view.instances_stored:,}", f"of {view.instances_expected:,} listed"
    yield "Size", format_size(view.size), ""
    if view.rows_needing_attention:
        number = view.rows_needing_attention
        yield "Need attention", f"{number:,}", "row" if number == 1 else "rows"


def plan_output(summary: PlanSummary, *, note: str = "", shown: ShownRows | None = None) -> str:
    """Return a plan as HTML."""
    level = {0: "good", 4: "unfinished"}.get(summary.exit_code, "attention")
    parts = [
        element("p", element("span", "plan", class_=f"badge {level}")),
        element("p", _sentence(summary.verdict), class_="verdict"),
        *([element("p", note)] if note else []),
        tiles(_plan_tiles(summary)),
        *_unresolved(summary.counts.unresolved_groups),
        *_modalities(summary),
        *_forecasts(summary.forecasts),
    ]
    return _output(parts, level, shown)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _plan_tiles(summary: PlanSummary) -> Iterator[tuple[str, str, str]]:
    yield "Rows with studies", f"{summary.counts.found:,}", f"of {summary.counts.rows:,}"
    yield "Studies", f"{summary.studies:,}", ""
    unknown = "the archive gives no number"
    instances = summary.instances
    yield ("Images", "?", unknown) if instances is None else ("Images", f"{instances:,}", "")
    size = summary.size
    yield ("Size", "?", unknown) if size is None else ("Size", format_size(size), "about, uncompressed")
    is_short = size is not None and size > summary.free_bytes
    yield "Free disk space", format_size(summary.free_bytes), "not enough" if is_short else ""


def _unresolved(groups: Sequence[OutcomeGroup]) -> Iterator[Markup]:
    if groups:
        rows = [
            (one.status.replace("_", " "), f"{one.count:,}", one.title, _row_numbers(one), one.next_step)
            for one in groups
        ]
        header = ("Outcome", "Rows", "Reason", "Row numbers", "What to do")
        yield table(header, rows, numeric=(1,), caption="Rows without a study to fetch")


def _row_numbers(group: OutcomeGroup) -> str:
    numbers = ", ".join(str(row) for row, _ in group.rows)
    more = group.count - len(group.rows)
    return f"{numbers} and {more:,} more" if more > 0 else numbers


def _modalities(summary: PlanSummary) -> Iterator[Markup]:
    counted = summary.content.modalities.most_common(10)
    if counted:
        rows = [(name or "(none)", f"{number:,}") for name, number in counted]
        yield table(("Modality", "Studies"), rows, numeric=(1,), caption="Studies by modality")


def _forecasts(forecasts: Iterable[Forecast]) -> Iterator[Markup]:
    rows = [
        (
            one.archive,
            f"{one.volume.studies:,}",
            "unknown" if one.seconds is None else f"about {format_duration(one.seconds)}",
            one.rate_note,
        )
        for one in forecasts
    ]
    yield table(("Archive", "Studies", "Time", "Assumption"), rows, numeric=(1,), caption="Time to fetch")


@dataclass(frozen=True, slots=True)
class VerificationView:
    """The result of a verification: files that were compared, and those with a problem by its code."""

    files: int
    size: int
    by_code: Sequence[tuple[str, int]]
    is_quick: bool
    is_finished: bool

    @property
    def damaged(self) -> int:
        """The number of files that differ from their record, or are missing."""
        return sum(number for _, number in self.by_code)

    @property
    def verdict(self) -> str:
        """The result as a sentence."""
        files = format_count(self.files, "file")
        if not self.is_finished:
            return f"Not finished: {files} compared, {self.damaged:,} damaged or missing so far."
        if self.damaged:
            verb = "is" if self.damaged == 1 else "are"
            return f"{self.damaged:,} of {files} {verb} damaged or missing."
        if not self.files:
            return "There is no file to compare."
        what = "has its recorded size" if self.is_quick else "is as recorded, byte for byte"
        return f"The file {what}." if self.files == 1 else f"Every one of {files} {what}."


def verification_output(view: VerificationView, *, shown: ShownRows | None = None) -> str:
    """Return a verification as HTML."""
    level = "bad" if view.damaged else "good" if view.is_finished else "unfinished"
    numbers = [("Files compared", f"{view.files:,}", ""), ("Size", format_size(view.size), "")]
    numbers += [(_DAMAGE.get(code, code), f"{number:,}", "") for code, number in view.by_code]
    label = "sizes compared" if view.is_quick else "contents compared"
    parts = [
        element("p", element("span", label, class_=f"badge {level}")),
        element("p", view.verdict, class_="verdict"),
        tiles(numbers),
    ]
    return _output(parts, level, shown)


@dataclass(frozen=True, slots=True)
class ProgressView:
    """Progress to show in place: what is ``done`` of ``total`` units, lines about it, the last messages."""

    title: str
    done: int
    total: int
    lines: Sequence[str] = ()
    messages: Sequence[str] = ()


def progress_output(view: ProgressView) -> str:
    """Return progress as HTML."""
    share = min(100, 100 * view.done // max(view.total, 1))
    bar = element("progress", f"{share} %", value=min(view.done, view.total), max=max(view.total, 1))
    parts = [
        element("p", element("strong", view.title), f" {share} %"),
        *([bar] if view.total else []),
        *(element("p", line) for line in view.lines),
        *(element("p", message, class_="quiet") for message in view.messages),
    ]
    return _output(parts, "plain", None)


def _output(parts: Iterable[Markup], level: str, shown: ShownRows | None) -> str:
    further = []
    if shown is not None:
        further = [
            element("p", _WARNING, class_="identifiers"),
            table(shown.header, shown.rows, caption=shown.title),
        ]
    section = element("section", join(parts), *further, class_=f"headline {level}")
    return element("div", element("style", Markup(notebook_styles())), section, class_="quarry output")


@cache
def notebook_styles() -> str:
    """Return the style sheet of an output, with colours for the themes of notebooks."""
    sheet = style_sheet()
    light, dark = _PALETTE.findall(sheet)[:2]  # behind them is that of a printed page
    own = read_asset("notebook.css").replace("@light", light).replace("@dark", dark)
    # Each output has the styles: comments and indentation would be most of a small notebook.
    return re.sub(r"/\*.*?\*/|\n\s*|@media print \{.*?\n\}", "", sheet + own, flags=re.DOTALL)
