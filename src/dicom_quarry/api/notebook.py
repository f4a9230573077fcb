"""The outputs of jobs and plans in a notebook, and their tables for a DataFrame."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice

from dicom_quarry.api.boundary import clear_errors
from dicom_quarry.errors import QuarryError
from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.jobs.opened_job import OpenedJob, open_job
from dicom_quarry.ledger.plan_reader import PlannedRow
from dicom_quarry.ledger.views import RowView
from dicom_quarry.model import SETTLED, OutcomeStatus
from dicom_quarry.reporting.arrow_table import ArrowTable
from dicom_quarry.reporting.csv_reports import own_columns
from dicom_quarry.reporting.html.notebook import ShownRows, job_lines, job_output
from dicom_quarry.reporting.job_dict import job_dict
from dicom_quarry.reporting.job_tables import instances_table, rows_table, studies_table
from dicom_quarry.reporting.job_view import JobView, read_job_view

#: Most rows of an output with identifiers; a table has all of them.
MAX_SHOWN_ROWS = 50


class JobOutput:
    """The outputs and tables of an object that belongs to a job."""

    __slots__ = ()

    def _job(self) -> JobFolder:
        """Return the folders of the job."""
        raise NotImplementedError

    def _note(self, *, identifiers: bool) -> str:  # noqa: ARG002 - for subclasses
        """Return a sentence for the user, empty if there is none."""
        return ""

    @clear_errors
    def to_dict(self) -> dict[str, object]:
        """Return the present numbers of the job, as ``json`` can write them and without identifiers."""
        folder = self._job()
        with open_job(folder) as job:
            return {"folder": str(folder.out), **job_dict(read_job_view(job))}

    @clear_errors
    def rows_table(self) -> ArrowTable:
        """Return the user's table with the present outcome of every row, for a DataFrame; see report.csv."""
        return rows_table(self._job())

    @clear_errors
    def studies_table(self) -> ArrowTable:
        """Return every study with its present outcome, for a DataFrame; see studies.csv."""
        return studies_table(self._job())

    @clear_errors
    def instances_table(self) -> ArrowTable:
        """Return every stored instance on record, for a DataFrame; see manifest.csv.gz."""
        return instances_table(self._job())

    @clear_errors
    def show(self, *, identifiers: bool = False) -> None:
        """Show the job as it is now: as an output of the notebook, or else as text.

        ``identifiers`` adds rows with their cells and reasons, first those that need attention.
        """
        note = self._note(identifiers=identifiers)
        with open_job(self._job()) as job:
            view = read_job_view(job)
            shown = read_shown_rows(job, view) if identifiers else None
        show_output(job_output(view, note=note, shown=shown), [*job_lines(view), note], shown)

    def _repr_html_(self) -> str | None:
        try:
            with open_job(self._job()) as job:
                return job_output(read_job_view(job), note=self._note(identifiers=False))
        except QuarryError:
            return None  # the folder was moved: the notebook shows the plain representation


def show_output(html: str, lines: Sequence[str], shown: ShownRows | None) -> None:
    """Show an output in a notebook; where there is none, print it as text."""
    text = "\n".join([line for line in lines if line] + (shown.lines() if shown else []))
    if is_ipython():
        from IPython.display import display

        display({"text/html": html, "text/plain": text}, raw=True)  # type: ignore[no-untyped-call]
    else:
        print(text)


def is_ipython(*, kernel: bool = False) -> bool:
    """Return True if IPython runs this code; with ``kernel``, only if it does so for a notebook."""
    module = sys.modules.get("IPython")  # never imported here: a script does not pay for it
    shell = module.get_ipython() if module is not None else None
    return shell is not None and (not kernel or hasattr(shell, "kernel"))


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
