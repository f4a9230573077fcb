"""The page of the workers of a database: workers, archives with the use of their limits, and jobs."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.responses import Response

from dicom_quarry import api
from dicom_quarry.api import ArchiveView, ClusterView, FileCheckView, JobShare, WorkerView
from dicom_quarry.api.pages import Markup, element, join, table
from dicom_quarry.web.cluster_views import ClusterLook
from dicom_quarry.web.context import WebContext
from dicom_quarry.web.frame import live_part, make_page
from dicom_quarry.web.jobs_page import badge
from dicom_quarry.web.live import Parts

ADDRESS = "/workers"

#: The colour and the word of a worker's state.
_STATES = {"ready": "good", "waiting": "attention", "vanished": "bad"}


def workers_page(context: WebContext) -> Response:
    """Return the page."""
    parts = make_workers(context.cluster.look())
    sections = [
        element("section", element("h2", "Workers"), live_part("workers", parts)),
        element("section", element("h2", "Archives"), live_part("archives", parts)),
        element("section", element("h2", "Jobs with the workers"), live_part("jobs", parts)),
    ]
    problem = element("div", Markup(parts["problem"]), id="problem", role="status")
    return make_page(context, "Workers and limits", problem, *sections, events=f"{ADDRESS}/events")


def make_workers(look: ClusterLook) -> Parts:
    """Return the live parts of the page; those of the last view, if the database does not answer."""
    problem = element("p", _describe_problem(look), class_="connection") if look.problem else ""
    view = look.view
    if view is None:
        return {"problem": problem, "workers": "", "archives": "", "jobs": ""}
    return {
        "problem": problem,
        "workers": join(_workers(view)),
        "archives": join(_archives(view)),
        "jobs": join([_jobs(view), *map(_comparison, view.file_checks)]),
    }


def _describe_problem(look: ClusterLook) -> str:
    if look.view is None or look.away_since is None:
        return f"The database cannot be read: {look.problem}."
    at = api.format_moment(look.view.time, look.away_since)
    return (
        f"The database cannot be read: {look.problem}. What is below was so at {at}. The page goes on by "
        "itself when the database answers."
    )


def _workers(view: ClusterView) -> Iterator[Markup]:
    yield element("p", f"In {view.url}", class_="quiet long")
    if not view.workers:
        yield element("p", "None. To start one: ", element("code", "quarry worker --as AET:PORT --root DIR"))
        return
    header = ("Worker", "State", "In work", "Address", "Since", "Last seen", "Root", "Version")
    rows = [_worker_row(one, view) for one in view.workers]
    yield table(header, rows, caption=api.format_count(len(rows), "worker"), numeric=(2,), kind="workers")


def _worker_row(worker: WorkerView, view: ClusterView) -> tuple[object, ...]:
    state = badge(worker.state, _STATES.get(worker.state, "plain"))
    remark = api.VANISHED if worker.state == "vanished" else worker.remark
    return (
        worker.name,
        join([state, element("div", remark)]) if remark else state,
        f"{worker.in_work:,}",
        worker.address,
        api.format_moment(worker.since, view.time),
        api.describe_silence(worker),
        worker.root,
        worker.version,
    )


def _archives(view: ClusterView) -> Iterator[Markup]:
    if not view.archives:
        yield element("p", "None: an archive is one that a worker knows.", class_="quiet")
    for archive in view.archives:
        yield element("h3", archive.name, " ", element("span", archive.address, class_="quiet"))
        facts = [("state", _archive_state(archive, view)), *api.archive_facts(archive, view.time)]
        entries = (join([element("dt", name.capitalize()), element("dd", value)]) for name, value in facts)
        yield element("dl", *entries, class_="facts")


def _archive_state(archive: ArchiveView, view: ClusterView) -> Markup:
    if not archive.is_available:
        return join([badge("does not answer", "bad"), " ", api.describe_outage(archive, view.time)])
    if not archive.is_open:
        return badge("window closed", "attention")
    return join([badge("answers", "good"), *_answers_again(archive, view)])


def _answers_again(archive: ArchiveView, view: ClusterView) -> Iterator[str]:
    if archive.since is not None:
        yield f" again since {api.format_moment(archive.since, view.time)}"


def _jobs(view: ClusterView) -> Markup:
    if not view.jobs:
        return element("p", "None.", class_="quiet")
    header = ("Job", "Owner", "Weight", "In work", "Waiting", "Postponed", "Done", "Rows to query")
    rows = [_job_row(one) for one in view.jobs]
    return table(header, rows, caption="Studies of the jobs", numeric=(3, 4, 5, 6, 7), kind="broad")


def _comparison(check: FileCheckView) -> Markup:
    return element("p", f"job:{check.name} of {check.owner}: {api.describe_comparison(check)}")


def _job_row(job: JobShare) -> tuple[object, ...]:
    counts = job.counts
    facts = (f"job:{job.name}", job.owner, f"{job.weight:g} ({job.share:.0%})", f"{job.in_work:,}")
    if counts is None:
        return (*facts, "–", "–", "not yours to read", "–")
    return (
        *facts,
        f"{job.waiting:,}",
        f"{counts.postponed:,}",
        f"{counts.done:,} of {counts.studies:,}",
        f"{counts.rows_waiting:,}",
    )
