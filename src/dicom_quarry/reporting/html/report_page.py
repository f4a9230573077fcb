"""``report.html``: one file that shows a job without a server, a network or another file."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from dicom_quarry.jobs.opened_job import OpenedJob
from dicom_quarry.reporting.html.archive_section import archive_section
from dicom_quarry.reporting.html.markup import Markup, element, escape, join
from dicom_quarry.reporting.html.methods_section import methods_section, software_section
from dicom_quarry.reporting.html.page import make_page, read_asset
from dicom_quarry.reporting.html.report_data import ReportData, read_report_data
from dicom_quarry.reporting.html.report_sections import (
    all_rows,
    attention_rows,
    flow_and_outcomes,
    headline,
    stored_data,
)
from dicom_quarry.system.atomic_file import atomic_write_text
from dicom_quarry.system.permissions import PRIVATE, Permissions

FILE_NAME = "report.html"

#: Bytes at the beginning of a page in which its warning is.
_HEAD = 1 << 16

_WARNING = "This page has patient identifiers: keep it where the images are."

_SECTIONS = (
    ("summary", "Summary"),
    ("flow", "Flow"),
    ("data", "Data"),
    ("archive", "Archive"),
    ("attention", "Attention"),
    ("rows", "Rows"),
    ("methods", "Methods"),
    ("software", "Software"),
)


def write_report_page(
    path: Path, job: OpenedJob, *, identifiers: bool = False, permissions: Permissions = PRIVATE
) -> None:
    """Write the report of a job as one HTML file; with ``identifiers`` it has cells and reasons.

    Raises LedgerError.
    """
    page = make_report_page(read_report_data(job, identifiers=identifiers))
    with atomic_write_text(path, permissions) as file:
        file.write(page)


def may_name_patients(page: BinaryIO) -> bool:
    """Return True unless a file is a report that was written without identifiers; the file is read again."""
    head = page.read(_HEAD)
    page.seek(0)
    return b"<header>" not in head or _WARNING.encode() in head.partition(b"<header>")[0]


def make_report_page(data: ReportData) -> str:
    """Return the page; without identifiers it has row numbers, codes and outcome titles alone."""
    warning = (
        element("div", _WARNING, class_="identifiers", role="region", aria_label="Warning")
        if data.identifiers
        else Markup()
    )
    links = [element("li", element("a", name, href=f"#{anchor}")) for anchor, name in _SECTIONS]
    sections = (
        headline(data),
        flow_and_outcomes(data),
        stored_data(data),
        archive_section(data),
        attention_rows(data),
        all_rows(data),
        methods_section(data),
        software_section(data),
    )
    written = f"Written {data.local(data.written_at.timestamp()):%d %B %Y %H:%M %Z}. "
    content = join(
        [
            element("a", "To the content", href="#summary", class_="skip"),
            warning,
            element("header", element("h1", "Quarry · Report of an extraction")),
            element("nav", element("ul", *links), aria_label="Sections"),
            element("main", *sections),
            element("footer", element("p", written, _other_files(), class_="quiet")),
        ]
    )
    return make_page("Report of an extraction", content, scripts=[read_asset("report.js")])


def _other_files() -> Markup:
    names = ("report.csv", "studies.csv", "manifest.csv.gz")
    links = [element("a", name, href=name) for name in names]
    return join(["In this folder: ", links[0], ", ", links[1], ", ", links[2], escape(".")])
