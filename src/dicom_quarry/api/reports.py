"""All that is known of a job's rows and studies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
    """What is known of a job's rows and studies, one at a time; raises InputError if there is no job."""
    return HistoryReader(open_existing(out).ledger, MISMATCH_DIR)


_REPORT_FILES = ("report.csv", "studies.csv", "manifest.csv.gz")
_XLSX_FILE = "report.xlsx"


def report(out: str | Path, *, xlsx: bool = False) -> Result:
    """Write the reports of a job as it stands, also while it runs; raises InputError if there is none.

    With ``xlsx`` report.xlsx too, which is then kept up to date like the other reports.
    """
    return write_reports(open_existing(Path(out)), xlsx=xlsx)


def write_final_reports(end: JobResult) -> Result:
    """The reports of a run that has ended; where it had nothing to do those that stand are good.

    With millions of instances they take minutes to write again.
    """
    return write_reports(end.folder, force=not end.nothing_to_do)


def write_reports(folder: JobFolder, *, force: bool = True, xlsx: bool = False) -> Result:
    """Write report.csv, studies.csv, manifest.csv.gz and, if instances are missing, missing.csv.

    Not ``again`` where they stand and the ledger has not been written to since. report.xlsx is written with
    ``xlsx``, and where there is one: an old one must not look like the newest.
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
    # What was written last may still be in the write-ahead log alone.
    log = folder.ledger.with_name(f"{folder.ledger.name}-wal")
    written = [one.stat() for one in (folder.ledger, log) if one.is_file()]
    return all(oldest > one.st_mtime_ns for one in written if one.st_size)
