"""The files of a job that a web page offers: a fixed list of reports, opened without following a link."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from dicom_quarry.errors import InputError
from dicom_quarry.reporting.html.report_page import FILE_NAME as PAGE_NAME
from dicom_quarry.reporting.html.report_page import may_name_patients
from dicom_quarry.system.ownership import open_own_file


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A report in the output folder, and what it has; ``names_patients``: only for pages with identifiers."""

    name: str
    content: str
    names_patients: bool = True


REPORT_FILES = (
    ReportFile("report.csv", "your table with the outcome of every row"),
    ReportFile("report.xlsx", "the same as a workbook"),
    ReportFile("report.html", "the report with charts, for a browser without a network"),
    ReportFile("studies.csv", "every study with its outcome"),
    ReportFile("problems.csv", "the rows that need attention"),
    ReportFile("missing.csv", "instances that are listed and not stored", names_patients=False),
    ReportFile("manifest.csv.gz", "every stored file with its SHA-256"),
    ReportFile("SHA256SUMS", "the checksums of the files, for sha256sum -c"),
    ReportFile("damaged.csv", "files that a verification found damaged or missing"),
    ReportFile("changes.csv", "differences between the archive and the record"),
    ReportFile("proof.json", "the completeness record", names_patients=False),
    ReportFile("proof.json.sig", "its signature", names_patients=False),
)
_BY_NAME = {one.name: one for one in REPORT_FILES}


def existing_reports(out: Path) -> list[tuple[ReportFile, int]]:
    """Return the reports that a job's output folder has, with their bytes."""
    found = []
    for one in REPORT_FILES:
        with suppress(OSError, InputError), _open(out, one) as stream:
            named = replace(one, names_patients=_may_name_patients(one, stream))
            found.append((named, os.fstat(stream.fileno()).st_size))
    return found


def open_report(out: Path, name: str, *, with_identifiers: bool) -> BinaryIO:
    """Open a report for reading; raise InputError if it is not on the list, not there, or names patients."""
    known = _BY_NAME.get(name)
    if known is None:
        raise InputError("there is no report of this name")
    try:
        stream = _open(out, known)
    except OSError:
        raise InputError(f"there is no {name} yet: quarry report writes the reports of a job") from None
    if not with_identifiers and _may_name_patients(known, stream):
        stream.close()
        raise InputError(f"{name} may name patients: start  quarry web --identifiers  to download it")
    return stream


def _open(out: Path, report: ReportFile) -> BinaryIO:
    return os.fdopen(open_own_file(out / report.name, os.O_RDONLY), "rb")


def _may_name_patients(report: ReportFile, stream: BinaryIO) -> bool:
    """Return True if a report may have identifiers; one that is a page shows it at its beginning."""
    return may_name_patients(stream) if report.name == PAGE_NAME else report.names_patients
