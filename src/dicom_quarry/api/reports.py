"""The reports of a job, and the history of its rows and studies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicom_quarry.api.boundary import clear_errors
from dicom_quarry.api.options import StrPath, make_path
from dicom_quarry.api.result import Result, report_access
from dicom_quarry.jobs.folder import JobFolder, open_existing
from dicom_quarry.jobs.instance_paths import MISMATCH_DIR, load_path_function
from dicom_quarry.ledger.history import HistoryReader
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.reporting.csv_reports import (
    make_report_table,
    make_study_table,
    write_manifest,
    write_missing,
    write_report,
    write_studies,
)
from dicom_quarry.reporting.summary import summarise

if TYPE_CHECKING:
    from dicom_quarry.extraction.runner import JobResult


def open_history(out: Path) -> HistoryReader:
    """Open the history of a job's rows and studies; raises InputError if there is no job."""
    return HistoryReader(open_existing(out).ledger, MISMATCH_DIR)


_REPORT_FILES = ("report.csv", "studies.csv", "manifest.csv.gz")
_XLSX_FILE = "report.xlsx"


@clear_errors
def report(folder: StrPath, *, xlsx: bool = False) -> Result:
    """Write the reports of a job, also while it runs; raises InputError if there is no job.

    With ``xlsx`` write report.xlsx too; from then on it is kept up to date like the other reports.
    """
    return write_reports(open_existing(make_path(folder, "folder")), xlsx=xlsx)


def write_final_reports(end: JobResult) -> Result:
    """Write the reports of a run that has ended.

    Current reports of a run that had nothing to do are kept: writing millions of instances takes minutes.
    """
    return write_reports(end.folder, force=not end.nothing_to_do)


def write_reports(folder: JobFolder, *, force: bool = True, xlsx: bool = False) -> Result:
    """Write report.csv, studies.csv, manifest.csv.gz and, if instances are missing, missing.csv.

    Without ``force`` nothing is written if the reports are newer than the ledger. report.xlsx is written with
    ``xlsx``, and where there is one already, so that an old one is not taken for the newest.
    """
    reader = LedgerReader(folder.ledger)
    try:
        if force or not _are_current(folder):
            if xlsx or (folder.out / _XLSX_FILE).exists():
                _write_xlsx_report(folder, reader)
            _write_csv_reports(folder, reader)
        refused = int(reader.metadata().get("refused", "0"))
        return Result(folder, summarise(reader.rows(), reader.studies(), refused))
    finally:
        reader.close()


def _write_csv_reports(folder: JobFolder, reader: LedgerReader) -> None:
    shared = report_access(folder.out)
    write_report(folder.out / "report.csv", reader.columns(), reader.rows(), permissions=shared)
    write_studies(folder.out / "studies.csv", reader.studies(), permissions=shared)
    write_manifest(
        folder.out / "manifest.csv.gz", reader.instances(load_path_function(reader)), permissions=shared
    )
    write_missing(folder.out / "missing.csv", reader.missing(), permissions=shared)


def _write_xlsx_report(folder: JobFolder, reader: LedgerReader) -> None:
    # Imported here: XlsxWriter takes a tenth of a second, and few jobs need it.
    from dicom_quarry.reporting.xlsx_report import write_xlsx

    tables = {
        "report": make_report_table(reader.columns(), reader.rows()),
        "studies": make_study_table(reader.studies()),
    }
    write_xlsx(folder.out / _XLSX_FILE, tables, permissions=report_access(folder.out))


def _are_current(folder: JobFolder) -> bool:
    try:
        oldest = min((folder.out / name).stat().st_mtime_ns for name in _REPORT_FILES)
    except FileNotFoundError:
        return False
    # The last writes may be in the write-ahead log alone.
    log = folder.ledger.with_name(f"{folder.ledger.name}-wal")
    written = [one.stat() for one in (folder.ledger, log) if one.is_file()]
    return all(oldest > one.st_mtime_ns for one in written if one.st_size)
