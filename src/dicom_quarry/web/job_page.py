"""The page of one job: its state, progress, outcomes, flow and load, with buttons where they are allowed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from starlette.responses import Response

from dicom_quarry import api
from dicom_quarry.api import JobPlace, JobView, ReportFile
from dicom_quarry.api.pages import (
    Bar,
    Markup,
    bar_chart,
    element,
    flow_diagram,
    join,
    make_time_axis,
    table,
    throughput_chart,
    tiles,
)
from dicom_quarry.errors import QuarryError
from dicom_quarry.model import OnCompleteState, OutcomeStatus
from dicom_quarry.web.context import WebContext
from dicom_quarry.web.frame import live_part, make_page
from dicom_quarry.web.jobs_page import badge, format_end, job_address, state_badge
from dicom_quarry.web.live import Parts


def job_page(context: WebContext, folder: JobPlace) -> Response:
    """Return the page."""
    parts = make_job(context, folder, look_at_job(context, folder))
    address = job_address(folder)
    sections = [
        element("section", live_part("headline", parts), live_part("actions", parts), class_="headline"),
        element("section", element("h2", "Outcomes"), live_part("outcomes", parts), _rows_link(address)),
        element("section", element("h2", "Load on the archive"), live_part("activity", parts)),
        element("section", element("h2", "From the table to complete rows"), live_part("flow", parts)),
        element("section", element("h2", "Reports"), live_part("reports", parts)),
    ]
    return make_page(context, folder.label, *sections, events=f"{address}/events")


def _rows_link(address: str) -> Markup:
    return element("p", element("a", "All rows, a page at a time", href=f"{address}/rows"))


#: The view of a job, or the reason why it cannot be read, and its reports with their bytes.
JobLook = tuple[JobView | str, list[tuple[ReportFile, int]]]


def look_at_job(context: WebContext, folder: JobPlace) -> JobLook:
    """Return the state of a job and of its reports."""
    reports = api.existing_reports(folder.out)
    try:
        return context.views.get(folder), reports
    except QuarryError as error:
        return str(error), reports


def make_job(context: WebContext, folder: JobPlace, look: JobLook) -> Parts:
    """Return the live parts of the page."""
    view, reports = look
    if isinstance(view, str):
        return {"headline": element("p", badge("record cannot be read", "bad"), " ", view)}
    address = job_address(folder)
    return {
        "headline": join(_headline(view, address)),
        "actions": join(_actions(view, address)) if context.allow_actions else "",
        "outcomes": _outcomes(view, address),
        "flow": flow_diagram(view.flow),
        "activity": _activity(view),
        "reports": _reports(context, reports, address),
    }


def _headline(view: JobView, address: str) -> Iterator[Markup]:
    yield element("p", state_badge(view), class_="state")
    yield element("h2", view.verdict, class_="verdict")
    if view.waiting_for:
        yield element("p", f"Waiting for {view.waiting_for}", class_="waiting")
    yield from _progress(view)
    yield tiles(_tiles(view))
    if view.active_studies:
        items = [
            element(
                "li",
                element("a", f"row {one.row}", href=f"{address}/rows/{one.row}"),
                f": {api.format_part(one.stored, one.listed, 'image')}",
            )
            for one in view.active_studies
        ]
        yield element("h3", "Being transferred")
        yield element("ul", *items)


def _progress(view: JobView) -> Iterator[Markup]:
    if view.process is None or not view.bytes_expected:
        return
    done, expected = api.format_size(round(view.bytes_done)), api.format_size(round(view.bytes_expected))
    share = view.bytes_done / view.bytes_expected
    text = f"{share:.0%}: {done} of about {expected}"
    yield element("progress", value=view.bytes_done, max=view.bytes_expected, aria_label="Progress by bytes")
    yield element("p", text, class_="quiet")


def _tiles(view: JobView) -> Iterator[tuple[str, str, str]]:
    yield "Rows", f"{view.rows_done:,}", f"of {view.rows:,} ended"
    yield "Studies complete", f"{view.studies_complete:,}", f"of {view.studies:,}"
    yield "Images stored", f"{view.instances_stored:,}", f"of {view.instances_expected:,} listed"
    yield "Stored", api.format_size(view.size), ""
    if view.process is not None:
        rate = view.bytes_per_second
        yield "Rate", "–" if rate is None else f"{api.format_size(round(rate))}/s", "of the last 30 s"
        left, _, end = format_end(view).partition(", ")
        yield "Time left", left.removesuffix(" left") or "–", end or ("" if left else "not known yet")
    elif view.rows_needing_attention:
        yield "Need attention", f"{view.rows_needing_attention:,}", "rows"


def _actions(view: JobView, address: str) -> Iterator[Markup]:
    """Yield a form for each thing that can be done with the job now."""
    if view.process is not None:
        if not view.is_stopping:
            yield _button(address, "stop", "Stop", "after the studies being transferred")
        yield _button(address, "cancel", "Stop now", "and cancel these studies", kind="second")
    elif view.rows_by_status.get(OutcomeStatus.PENDING) or view.on_complete_counts.get(
        OnCompleteState.WAITING
    ):
        yield _button(address, "resume", "Resume", "the job, in the background")
    elif any(view.rows_by_status.get(one) for one in api.RETRIED_BY_DEFAULT):
        yield _button(address, "retry", "Retry", "the rows that are not complete, in the background")


def _button(address: str, action: str, text: str, remark: str, *, kind: str | None = None) -> Markup:
    button = element("button", text, type="submit", id=f"do-{action}", class_=kind)
    return element(
        "form",
        button,
        " ",
        element("span", remark, class_="quiet"),
        method="post",
        action=f"{address}/{action}",
    )


def _outcomes(view: JobView, address: str) -> Markup:
    rows = [
        (
            element("a", one.status.replace("_", " "), href=f"{address}/rows?outcome={one.status}"),
            f"{one.rows:,}",
            one.title,
            one.next_step,
        )
        for one in view.outcomes
    ]
    return table(("Outcome", "Rows", "Reason", "What to do"), rows, numeric=(1,), caption="Rows by outcome")


def _activity(view: JobView) -> Markup:
    if not view.activity.ended:
        return element("p", "Nothing was requested yet.", class_="quiet")
    zone = datetime.now().astimezone().tzinfo
    assert zone is not None
    total = view.activity.total
    bars = [
        Bar("Queries", total.queries, f"{total.queries:,}"),
        Bar("Retrievals", total.retrievals, f"{total.retrievals:,}"),
        Bar("Refusals and failed queries", total.refusals, f"{total.refusals:,}", "bad"),
    ]
    load = [element("h3", "Requests to the archive"), bar_chart(bars, "Requests to the archive")]
    charts = (throughput_chart(*make_time_axis(view.activity, zone)), join(load))
    return element("div", *(element("div", one) for one in charts), class_="columns")


def _reports(context: WebContext, found: list[tuple[ReportFile, int]], address: str) -> Markup:
    if not found:
        return element("p", "None yet: they are written at the end of the job, and by quarry report.")
    rows = [
        (
            element("a", one.name, href=f"{address}/reports/{one.name}")
            if context.with_identifiers or not one.names_patients
            else one.name,
            api.format_size(size),
            one.content,
        )
        for one, size in found
    ]
    locked = any(one.names_patients for one, _ in found) and not context.with_identifiers
    note = element("p", "Files that may name patients can be downloaded with quarry web --identifiers.")
    files = table(("File", "Size", "Content"), rows, numeric=(1,), caption="Files to download")
    return join([files, *([note] if locked else [])])
