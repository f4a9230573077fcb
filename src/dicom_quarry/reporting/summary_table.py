"""The summary of a job as a sheet of the workbook."""

from __future__ import annotations

from collections.abc import Iterator

from dicom_quarry.reporting.csv_reports import ReportTable
from dicom_quarry.reporting.formatting import escape_cell
from dicom_quarry.reporting.summary import JobSummary

_HEADER = ("outcome", "number", "reason", "what_to_do")


def make_summary_table(summary: JobSummary) -> ReportTable:
    """Return the totals of a job, then the rows that need attention by reason."""
    return ReportTable(_HEADER, _summary_lines(summary), 0)


def _summary_lines(summary: JobSummary) -> Iterator[tuple[object, ...]]:
    for status, number in summary.outcome_counts:
        yield status, number, "rows of the table", ""
    for group in summary.attention_groups:
        yield group.status, group.count, escape_cell(group.title), escape_cell(group.next_step)
    if summary.file_problem:
        yield "", "", escape_cell(summary.file_problem), ""
    totals = (
        (summary.rows, "rows in all"),
        (summary.studies, "studies"),
        (summary.studies_complete, "studies that are complete"),
        (summary.instances, "images and other objects stored"),
        (summary.size, "bytes stored"),
        (summary.refused_instances, "images that were refused"),
        (summary.released_studies, "studies whose data was moved elsewhere"),
    )
    for number, meaning in totals:
        yield "", number, meaning, ""
