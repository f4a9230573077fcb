"""The sections of report.html for readers of the cohort: headline, flow, outcomes, data and rows."""

from __future__ import annotations

from itertools import pairwise

from dicom_quarry.ledger.activity import Slice
from dicom_quarry.ledger.composition import SIZE_BOUNDS, StoredPart
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.outcomes import CATALOGUE, worst_first
from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.reporting.html.charts import Bar, TimeAxis, bar_chart, flow_diagram
from dicom_quarry.reporting.html.markup import Markup, element, join, table, tiles
from dicom_quarry.reporting.html.modalities import name_modalities
from dicom_quarry.reporting.html.over_time import make_time_axis, throughput_chart
from dicom_quarry.reporting.html.report_data import MAX_ATTENTION, ReportData
from dicom_quarry.reporting.html.row_data import MAX_ROWS
from dicom_quarry.reporting.html.tones import tone_of, verdict_word
from dicom_quarry.reporting.summary import status_text

#: Most bars of a chart.
_MAX_BARS = 12


def section(anchor: str, title: str, *content: object, kind: str | None = None) -> Markup:
    """Return a section with its heading."""
    return element("section", element("h2", title), *content, id=anchor, class_=kind)


def headline(data: ReportData) -> Markup:
    """Return the verdict in one sentence, and the numbers of the job."""
    view = data.view
    name = view.name if data.identifiers else ""
    protocol = f" · {data.settings.protocol}" if data.settings.protocol else ""
    when = f"Started {data.local(view.started_at.timestamp()):%d %B %Y %H:%M}"
    if view.ended_at is not None and view.ended_at > view.started_at:
        when += f", last request {data.local(view.activity.ended):%d %B %Y %H:%M}"
    return element(
        "section",
        element("span", verdict_word(view.level), class_=f"badge {view.level}"),
        element("p", view.verdict, class_="verdict"),
        element("p", f"{name}{' · ' if name else ''}{when} ({zone_name(data)}){protocol}", class_="quiet"),
        tiles(_tiles(data)),
        _proof(data),
        id="summary",
        class_=f"headline {view.level}",
    )


def zone_name(data: ReportData) -> str:
    """Return the name of the zone of all times."""
    return f"{data.local(data.view.activity.ended or data.written_at.timestamp()):%Z}"


def _tiles(data: ReportData) -> list[tuple[str, str, str]]:
    view = data.view
    complete = view.rows_by_status.get(OutcomeStatus.COMPLETE, 0)
    missing = sum(number for _, number in data.composition.missing_by_archive.values())
    lacking = sum(studies for studies, _ in data.composition.missing_by_archive.values())
    average = format_size(view.size // view.instances_stored) if view.instances_stored else ""
    return [
        ("Rows complete", f"{complete:,}", f"of {view.rows:,}"),
        ("Studies complete", f"{view.studies_complete:,}", f"of {view.studies:,} found"),
        ("Images stored", f"{view.instances_stored:,}", f"of {view.instances_expected:,} listed"),
        ("Data", format_size(view.size), f"{average} an image" if average else ""),
        (
            "Missing images",
            f"{missing:,}",
            f"in {format_count(lacking, 'study')}" if missing else "none is known",
        ),
        (
            "Rows to look at",
            f"{view.rows_needing_attention:,}",
            "see below" if view.rows_needing_attention else "",
        ),
    ]


def _proof(data: ReportData) -> Markup:
    complete = data.view.rows_by_status.get(OutcomeStatus.COMPLETE, 0)
    text = (
        f"Proof: for {format_count(complete, 'row')}, every image that the archive lists is on the disk, "
        "with its SHA-256 in manifest.csv.gz. "
    )
    if not data.has_proof:
        return element("p", text, class_="proof")
    link = element("a", "proof.json", href="proof.json")
    return element(
        "p",
        text,
        "The completeness record is ",
        link,
        "; check it with ",
        element("code", "quarry verify . --proof"),
        " in this folder.",
        class_="proof",
    )


def flow_and_outcomes(data: ReportData) -> Markup:
    """Return the flow diagram next to the outcomes with their next steps."""
    return section(
        "flow",
        "From the table to complete rows",
        element(
            "div",
            element("div", flow_diagram(data.view.flow)),
            element("div", _outcomes(data)),
            class_="columns",
        ),
    )


def _outcomes(data: ReportData) -> Markup:
    return join(
        [
            element("h3", "Outcomes"),
            *(
                element(
                    "div",
                    element(
                        "p",
                        element("span", status_text(one.status), class_=f"badge {tone_of(one.status)}"),
                        " ",
                        element("a", format_count(one.rows, "row"), href="#rows", data_filter=one.code),
                    ),
                    element("p", f"{one.title[:1].upper()}{one.title[1:]}."),
                    *(
                        [element("p", f"What to do: {one.next_step}.", class_="quiet")]
                        if one.next_step
                        else []
                    ),
                    class_="outcome",
                )
                for one in data.view.outcomes
            ),
        ]
    )


def stored_data(data: ReportData) -> Markup:
    """Return the charts: throughput over time, bytes by modality and by year, sizes, missing images."""
    composition = data.composition
    modalities: dict[str, StoredPart] = {}
    for value, part in composition.modalities.items():
        _merge(modalities, name_modalities(value), part)
    years: dict[str, StoredPart] = {}
    for value, part in composition.years.items():
        _merge(years, value if value.isascii() and value.isdigit() and len(value) == 4 else "no date", part)
    charts = (
        _chart("Data by modality", _part_bars(sorted(modalities.items(), key=lambda one: -one[1].size))),
        _chart("Data by year of the study", _part_bars(sorted(years.items()))),
        _chart("Sizes of the studies", _size_bars(composition.size_classes)),
        _chart("Missing images", _missing_bars(data)),
    )
    return section("data", "The data", throughput(data), element("div", *charts, class_="columns"))


def _merge(parts: dict[str, StoredPart], name: str, part: StoredPart) -> None:
    before = parts.get(name, StoredPart(0, 0, 0))
    parts[name] = StoredPart(
        before.studies + part.studies, before.instances + part.instances, before.size + part.size
    )


def _chart(title: str, bars: list[Bar]) -> Markup:
    drawn = bar_chart(bars, title) if bars else element("p", "Nothing yet.", class_="quiet")
    return element("div", element("h3", title), drawn)


def _part_bars(parts: list[tuple[str, StoredPart]]) -> list[Bar]:
    if len(parts) > _MAX_BARS:
        kept = sorted(parts, key=lambda one: -one[1].size)[: _MAX_BARS - 1]
        others: dict[str, StoredPart] = {}
        for name, part in parts:
            if all(name != known for known, _ in kept):
                _merge(others, "others", part)
        parts = [one for one in parts if one in kept] + list(others.items())
    return [
        Bar(name, part.size, f"{format_size(part.size)}, {format_count(part.studies, 'study')}")
        for name, part in parts
    ]


def _size_bars(classes: tuple[int, ...]) -> list[Bar]:
    bounds = [format_size(bound) for bound in SIZE_BOUNDS]
    names = [
        f"below {bounds[0]}",
        *(f"{low} to {high}" for low, high in pairwise(bounds)),
        f"{bounds[-1]} and more",
    ]
    used = [at for at, number in enumerate(classes) if number]
    if not used:
        return []
    return [
        Bar(names[at], classes[at], format_count(classes[at], "study")) for at in range(used[0], used[-1] + 1)
    ]


def _missing_bars(data: ReportData) -> list[Bar]:
    return [
        Bar(
            archive,
            number,
            f"{number:,} in {format_count(studies, 'study')}",
            "attention",
        )
        for archive, (studies, number) in data.composition.missing_by_archive.items()
    ]


def time_axis(data: ReportData) -> tuple[TimeAxis, list[Slice]]:
    """Return the time axis of the job's charts, and the load of each of its slices."""
    schedules = [data.schedule(archive.name) for archive in data.settings.archives]
    return make_time_axis(data.view.activity, data.zone, schedules)


def throughput(data: ReportData) -> Markup:
    """Return the chart of the bytes over time."""
    if not data.view.activity.ended:
        return element("p", "Nothing was requested yet.", class_="quiet")
    return throughput_chart(*time_axis(data))


def attention_rows(data: ReportData) -> Markup:
    """Return the rows that need attention, the worst first: a table that needs no script."""
    if not data.attention:
        return section("attention", "Rows that need attention", element("p", "None."))
    codes = sorted(data.attention, key=lambda code: (worst_first(CATALOGUE[code].status), code))
    by_code = [
        (
            status_text(CATALOGUE[code].status),
            CATALOGUE[code].title,
            format_count(next(one.rows for one in data.view.outcomes if one.code == code), "row"),
            data.attention[code].ranges.text(),
        )
        for code in codes
    ]
    rows = [row for code in codes for row in data.attention[code].first][:MAX_ATTENTION]
    header = [
        "Row",
        "Outcome",
        "Reason",
        "Images stored",
        "Images listed",
        *(data.columns if data.identifiers else ()),
    ]
    lines = [
        (
            str(row.row),
            element("span", status_text(row.outcome.status), class_=f"badge {tone_of(row.outcome.status)}"),
            row.outcome.reason if data.identifiers else CATALOGUE[row.outcome.code].title,
            f"{row.instances_stored:,}",
            f"{row.instances_expected:,}",
            *(row.cells if data.identifiers else ()),
        )
        for row in rows
    ]
    by_reason = "By reason, with the numbers of the rows"
    return section(
        "attention",
        "Rows that need attention",
        table(("Outcome", "Reason", "Number", "Rows"), by_code, caption=by_reason, kind="broad"),
        table(header, lines, caption=_attention_caption(data, len(rows)), numeric=(3, 4), kind="tall broad"),
    )


def _attention_caption(data: ReportData, shown: int) -> str:
    total = sum(one.rows for one in data.view.outcomes if one.code in data.attention)
    if shown == total:
        return "One by one, the worst first"
    return f"The first {shown:,} of {total:,}, the worst first; quarry report . --problems writes all of them"


def all_rows(data: ReportData) -> Markup:
    """Return the table of all rows: report.js fills it."""
    what = "the rows that need attention" if data.is_cut else "all rows"
    note = f" The job has more than {MAX_ROWS:,} rows: report.csv has all of them." if data.is_cut else ""
    needs_script = element(
        "p",
        f"Search, sort and filter {what} here: this part needs JavaScript. report.csv has every row.",
        id="rows-without-script",
    )
    tools = element(
        "div",
        element(
            "label",
            "Search ",
            Markup('<input id="row-search" type="search" autocomplete="off" spellcheck="false">'),
        ),
        element("label", "Outcome ", element("select", element("option", "all", value=""), id="row-filter")),
        element("output", "", id="row-count"),
        class_="tools",
    )
    lines = element(
        "div",
        element(
            "table",
            element("thead", element("tr")),
            element("tbody"),
            aria_label=f"{what[:1].upper()}{what[1:]}",
        ),
        id="row-view",
        class_="view",
        tabindex=0,
        role="region",
        aria_label=f"Table of {what}; scroll with the arrow keys",
    )
    detail = element(
        "div",
        element("p", "Press a row number to see the row.", class_="quiet"),
        id="row-detail",
        aria_live="polite",
    )
    searched = "the row number, the outcome, the code and the reason" + (
        ", and your columns" if data.identifiers else ""
    )
    tool = join([element("p", f"Search looks at {searched}.{note}", class_="quiet"), tools, lines, detail])
    return section(
        "rows",
        "The rows that need attention" if data.is_cut else "All rows",
        needs_script,
        Markup(f'<div id="rows-tool" hidden>{tool}</div>'),
        element("script", data.rows.json(), type="application/json", id="row-data"),
    )
