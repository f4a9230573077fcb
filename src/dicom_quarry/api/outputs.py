"""The outputs of jobs and plans: in a notebook as HTML, elsewhere as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from dicom_quarry.api.notebook import is_ipython
from dicom_quarry.jobs.opened_job import OpenedJob, open_job
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.plan_reader import PlannedRow
from dicom_quarry.ledger.views import RowView
from dicom_quarry.model import SETTLED, OutcomeStatus
from dicom_quarry.reporting.csv_reports import own_columns
from dicom_quarry.reporting.html.notebook import ShownRows, job_lines, job_output
from dicom_quarry.reporting.job_view import JobView, read_job_view

#: Most rows of an output with identifiers; a table has all of them.
MAX_SHOWN_ROWS = 50


def job_html(folder: JobPlace, note: str) -> str:
    """Return a job as HTML without identifiers; raises LedgerError."""
    with open_job(folder) as job:
        return job_output(read_job_view(job), note=note)


def show_job(folder: JobPlace, note: str, *, identifiers: bool) -> None:
    """Show a job; ``identifiers`` adds rows with their cells."""
    with open_job(folder) as job:
        view = read_job_view(job)
        shown = read_shown_rows(job, view) if identifiers else None
    show_output(job_output(view, note=note, shown=shown), [*job_lines(view), note], shown)


def show_output(html: str, lines: Sequence[str], shown: ShownRows | None) -> None:
    """Show an output in a notebook; where there is none, print it as text."""
    text = "\n".join([line for line in lines if line] + (shown.lines() if shown else []))
    if is_ipython():
        from IPython.display import display

        display({"text/html": html, "text/plain": text}, raw=True)  # type: ignore[no-untyped-call]
    else:
        print(text)


def read_shown_rows(job: OpenedJob, view: JobView) -> ShownRows:
    """Read some rows of a job, first those that need attention."""
    columns = job.reader.columns()
    own = own_columns(columns)
    rows = {one.row: one for one in islice(_attention_first(job, view), 2 * MAX_SHOWN_ROWS)}
    header = ("Row", *(columns[at] for at in own), "Outcome", "Reason", "What to do")
    cells = [
        (
            str(one.row),
            *(one.cells[at] for at in own),
            one.outcome.status.replace("_", " "),
            one.outcome.reason,
            one.outcome.next_step,
        )
        for one in islice(rows.values(), MAX_SHOWN_ROWS)
    ]
    return ShownRows(header, cells, view.rows)


def _attention_first(job: OpenedJob, view: JobView) -> Iterator[RowView]:
    for status in OutcomeStatus:
        if status not in {*SETTLED, OutcomeStatus.PENDING} and view.rows_by_status.get(status):
            yield from job.reader.row_page(status, MAX_SHOWN_ROWS)
    yield from job.reader.row_page(None, MAX_SHOWN_ROWS)


def make_shown_plan(columns: Sequence[str], rows: Iterator[PlannedRow], total: int) -> ShownRows:
    """Return the first rows of a plan with their cells and studies."""
    own = own_columns(columns)
    cells = [
        (
            str(one.row),
            *(one.cells[at] for at in own),
            "found" if one.outcome is None else one.outcome.status.replace("_", " "),
            one.note if one.outcome is None else one.outcome.reason,
            " | ".join(
                " ".join(filter(None, (study.study_date, study.modalities, study.description)))
                for _, study in one.studies
            ),
        )
        for one in islice(rows, MAX_SHOWN_ROWS)
    ]
    header = ("Row", *(columns[at] for at in own), "Outcome", "Reason", "Studies")
    return ShownRows(header, cells, total)
