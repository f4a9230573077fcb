"""The page of this user's jobs."""

from __future__ import annotations

from starlette.responses import Response

from dicom_quarry import api
from dicom_quarry.api import JobPlace, JobView
from dicom_quarry.api.pages import Markup, element, table
from dicom_quarry.errors import QuarryError
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.web.context import WebContext
from dicom_quarry.web.frame import live_part, make_page
from dicom_quarry.web.live import Parts


def jobs_page(context: WebContext) -> Response:
    """Return the page."""
    parts = make_jobs(look_at_jobs(context, at_once=True))
    section = element("section", live_part("jobs", parts), *_further_pages())
    return make_page(context, "Jobs", section, events="/events")


def _further_pages() -> list[Markup]:
    """Return the link to the workers, where quarry.toml names a database that may have some."""
    if not api.has_cluster():
        return []
    return [element("p", element("a", "Workers and limits of the database", href="/workers"))]


#: A job, and its view; None if its record cannot be read.
Job = tuple[JobPlace, JobView | None]


def look_at_jobs(context: WebContext, *, at_once: bool = False) -> list[Job]:
    """Return this user's jobs, that of the latest run first."""
    return [(folder, _view(context, folder)) for folder in context.views.folders(at_once=at_once)]


def _view(context: WebContext, folder: JobPlace) -> JobView | None:
    try:
        return context.views.get(folder)
    except QuarryError:
        return None


def make_jobs(jobs: list[Job]) -> Parts:
    """Return the live part of the page."""
    rows = [_job_row(folder, view) for folder, view in jobs]
    if not rows:
        return {"jobs": element("p", "You have started no job on this computer, or their folders are gone.")}
    header = ("Job", "State", "Started", "Rows complete", "Images", "Size", "Remark")
    return {"jobs": table(header, rows, caption="Your jobs on this computer", numeric=(3, 4, 5))}


def _job_row(folder: JobPlace, view: JobView | None) -> tuple[object, ...]:
    link = element("a", folder.label, href=job_address(folder))
    if view is None:
        return link, badge("record cannot be read", "bad"), "", "", "", "", ""
    complete = view.rows_by_status.get(OutcomeStatus.COMPLETE, 0)
    return (
        link,
        state_badge(view),
        f"{view.started_at.astimezone():%Y-%m-%d %H:%M}",
        f"{complete:,} of {view.rows:,}",
        f"{view.instances_stored:,}",
        api.format_size(view.size),
        _remark(view),
    )


def _remark(view: JobView) -> str:
    if view.waiting_for:
        return f"waiting for {view.waiting_for}"
    if view.process is None and view.rows_needing_attention:
        return f"{api.format_count(view.rows_needing_attention, 'row needs', 'rows need')} attention"
    return format_end(view)


def job_address(folder: JobPlace) -> str:
    """Return the address of a job's page."""
    return f"/jobs/{api.job_key(folder.out)}"


def format_end(view: JobView) -> str:
    """Format the time left and the end of a running job; empty if it is not known."""
    if view.seconds_left is None:
        return ""
    return api.format_left(view.seconds_left)


def state_badge(view: JobView) -> Markup:
    """Return the state of a job as a word with a colour."""
    if view.was_killed:
        return badge("killed", "bad")
    if view.is_stopping:
        return badge("stopping", "attention")
    kinds = {"running": "plain", "waiting": "attention", "queued": "attention"}
    return badge(view.state, kinds.get(view.state, view.level.value))


def badge(text: str, kind: str) -> Markup:
    """Return a word on a coloured ground."""
    return element("span", text, class_=f"badge {kind}")
