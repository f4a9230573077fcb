"""The rows of a job a page at a time, and the history of one row."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

from starlette.responses import Response

from dicom_quarry import api
from dicom_quarry.api import JobPlace, OpenedJob
from dicom_quarry.api.pages import Markup, element, table, timeline, tone_of
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.outcomes import CATALOGUE
from dicom_quarry.web.context import WebContext
from dicom_quarry.web.frame import make_page
from dicom_quarry.web.jobs_page import badge, job_address

#: Rows of one page, and columns of the table that are shown with identifiers.
_PAGE = 50
_MAX_CELLS = 8


def rows_page(
    context: WebContext,
    folder: JobPlace,
    outcome: OutcomeStatus | None,
    after: int,
    before: int | None,
) -> Response:
    """Return the rows of an outcome, None for any, behind the row ``after`` or in front of ``before``."""
    address = f"{job_address(folder)}/rows"
    with api.open_job(folder) as job:
        # One more than a page shows that there are further ones.
        found = job.reader.row_page(outcome, _PAGE + 1, after=after, before=before)
        is_full = len(found) > _PAGE
        views = found[:_PAGE] if before is None else found[-_PAGE:]
        columns = job.reader.columns()[:_MAX_CELLS] if context.with_identifiers else ()
    has_earlier = is_full if before is not None else after > 0
    has_later = is_full if before is None else True
    edges = (views[0].row, views[-1].row) if views else (after, after)
    header = (
        *("Row", "Outcome", "Reason"),
        *columns,
        *("Studies", "Images", "Size"),
    )
    rows = [_row(context, address, one, len(columns)) for one in views]
    first = 3 + len(columns)
    found_rows = table(header, rows, caption="Rows of the table", numeric=(first, first + 1, first + 2))
    pages = element(
        "nav",
        *_page_links(address, outcome, edges, has_earlier=has_earlier, has_later=has_later),
        class_="pages",
        aria_label="Pages",
    )
    title = "All rows" if outcome is None else f"Rows: {outcome.replace('_', ' ')}"
    content = [found_rows, pages] if views else [element("p", "There is no such row."), pages]
    section = element("section", _outcome_links(context, folder, address, outcome), *content)
    return make_page(context, title, section, trail=_trail(folder))


def _trail(folder: JobPlace) -> list[tuple[str, str]]:
    return [(folder.out.name or folder.label, job_address(folder))]


def _outcome_links(
    context: WebContext, folder: JobPlace, address: str, chosen: OutcomeStatus | None
) -> Markup:
    counts = context.views.get(folder).rows_by_status
    choices: list[tuple[str, OutcomeStatus | None, int]] = [("all", None, sum(counts.values()))]
    choices += [(one.replace("_", " "), one, counts[one]) for one in OutcomeStatus if counts.get(one)]
    links = [
        element(
            "a",
            f"{name} ({number:,})",
            href=_address(address, outcome=status),
            aria_current="true" if status is chosen else None,
        )
        for name, status, number in choices
    ]
    return element("nav", *links, class_="choices", aria_label="Outcomes")


def _page_links(
    address: str, outcome: OutcomeStatus | None, edges: tuple[int, int], *, has_earlier: bool, has_later: bool
) -> Iterator[Markup]:
    first, last = edges
    if has_earlier:
        yield element("a", "First page", href=_address(address, outcome=outcome))
        yield element("a", "Previous page", href=_address(address, outcome=outcome, before=first), rel="prev")
    if has_later:
        yield element("a", "Next page", href=_address(address, outcome=outcome, after=last), rel="next")


def _address(address: str, **values: object) -> str:
    given = {name: value for name, value in values.items() if value is not None}
    return f"{address}?{urlencode(given)}" if given else address


def _row(context: WebContext, address: str, view: api.RowView, cells: int) -> tuple[object, ...]:
    outcome = view.outcome
    return (
        element("a", f"{view.row:,}", href=f"{address}/{view.row}"),
        badge(outcome.status.replace("_", " "), tone_of(outcome.status)),
        outcome.reason if context.with_identifiers else CATALOGUE[outcome.code].title,
        *view.cells[:cells],
        *[""] * (cells - len(view.cells)),
        f"{view.studies_complete:,} of {view.studies_found:,}",
        f"{view.instances_stored:,} of {view.instances_expected:,}",
        api.format_size(view.size),
    )


def row_page(context: WebContext, folder: JobPlace, number: int) -> Response | None:
    """Return the history of a row as a timeline, None if there is no such row."""
    with api.open_job(folder) as job:
        explained = _explain(context, job, number)
    if explained is None:
        return None
    subjects = [_section(lines) for lines in explained.subjects]
    outcomes = [_section(lines) for lines in explained.outcomes]
    remark = [element("p", explained.remark)] if explained.remark else []
    what_happened = element("section", element("h2", "What happened"), *remark, timeline(explained.events))
    trail = [*_trail(folder), ("Rows", f"{job_address(folder)}/rows")]
    return make_page(context, f"Row {number}", *outcomes, what_happened, *subjects, trail=trail)


def _section(lines: tuple[str, ...]) -> Markup:
    heading = f"{lines[0][:1].upper()}{lines[0][1:]}"
    return element("section", element("h2", heading), *(element("p", one.strip()) for one in lines[1:]))


def _explain(context: WebContext, job: OpenedJob, number: int) -> api.Explanation | None:
    row = job.reader.row_history(number)
    if row is None:
        return None
    studies = list(job.reader.study_histories_of_rows([number]))
    return api.explain([row], studies, with_identifiers=context.with_identifiers)
