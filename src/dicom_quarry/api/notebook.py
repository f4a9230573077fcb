"""The outputs and the tables that an object of a job has in a notebook.

What makes them is imported where it is used: the commands use the same objects, and show something else.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dicom_quarry.api.boundary import clear_errors
from dicom_quarry.errors import QuarryError
from dicom_quarry.jobs.opened_job import open_job
from dicom_quarry.jobs.place import JobPlace

if TYPE_CHECKING:
    from dicom_quarry.reporting.arrow_table import ArrowTable


def is_ipython(*, kernel: bool = False) -> bool:
    """Return True if IPython runs this code; with ``kernel``, only if it does so for a notebook."""
    module = sys.modules.get("IPython")  # never imported here: a script does not pay for it
    shell = module.get_ipython() if module is not None else None
    return shell is not None and (not kernel or hasattr(shell, "kernel"))


class JobOutput:
    """The outputs and tables of an object that belongs to a job."""

    __slots__ = ()

    def _job(self) -> JobPlace:
        """Return the folders of the job."""
        raise NotImplementedError

    def _note(self, *, identifiers: bool) -> str:  # noqa: ARG002 - for subclasses
        """Return a sentence for the user, empty if there is none."""
        return ""

    @clear_errors
    def to_dict(self) -> dict[str, object]:
        """Return the present numbers of the job, as ``json`` can write them and without identifiers."""
        from dicom_quarry.reporting.job_dict import job_dict
        from dicom_quarry.reporting.job_view import read_job_view

        folder = self._job()
        with open_job(folder) as job:
            return {"folder": str(folder.out), **job_dict(read_job_view(job))}

    @clear_errors
    def rows_table(self) -> ArrowTable:
        """Return the user's table with the present outcome of every row, for a DataFrame; see report.csv."""
        from dicom_quarry.reporting.job_tables import rows_table

        return rows_table(self._job())

    @clear_errors
    def studies_table(self) -> ArrowTable:
        """Return every study with its present outcome, for a DataFrame; see studies.csv."""
        from dicom_quarry.reporting.job_tables import studies_table

        return studies_table(self._job())

    @clear_errors
    def instances_table(self) -> ArrowTable:
        """Return every stored instance on record, for a DataFrame; see manifest.csv.gz."""
        from dicom_quarry.reporting.job_tables import instances_table

        return instances_table(self._job())

    @clear_errors
    def show(self, *, identifiers: bool = False) -> None:
        """Show the job as it is now: as an output of the notebook, or else as text.

        ``identifiers`` adds rows with their cells and reasons, first those that need attention.
        """
        from dicom_quarry.api.outputs import show_job

        show_job(self._job(), self._note(identifiers=identifiers), identifiers=identifiers)

    def _repr_html_(self) -> str | None:
        from dicom_quarry.api.outputs import job_html

        try:
            return job_html(self._job(), self._note(identifiers=False))
        except QuarryError:
            return None  # the folder was moved: the notebook shows the plain representation
