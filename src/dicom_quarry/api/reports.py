"""The reports of a job, at its end or in its midst."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicom_quarry.api.result import Result, access_of
from dicom_quarry.jobs.folder import JobFolder, existing
from dicom_quarry.jobs.instance_paths import derive_of
from dicom_quarry.ledger.reader import Reader
from dicom_quarry.reporting.csv_reports import (
    report_table,
    study_table,
    write_manifest,
    write_missing,
    write_report,
    write_studies,
)
from dicom_quarry.reporting.summary import summarise

if TYPE_CHECKING:
    from dicom_quarry.extraction.runner import JobEnd

_REPORTS = ("report.csv", "studies.csv", "manifest.csv.gz")
_WORKBOOK = "report.xlsx"


def report(out: str | Path, *, xlsx: bool = False) -> Result:
    """Write the reports of a job as it stands, also while it runs; raises InputError if there is none.

    With ``xlsx`` report.xlsx too, which is then kept up to date like the other reports.
    """
    return write_reports(existing(Path(out)), xlsx=xlsx)


def reports_of(end: JobEnd) -> Result:
    """The reports of a run that has ended; where it had nothing to do those that stand are good.

    With millions of instances they take minutes to write again.
    """
    return write_reports(end.folder, again=not end.nothing_to_do)


def write_reports(folder: JobFolder, *, again: bool = True, xlsx: bool = False) -> Result:
    """Write report.csv, studies.csv, manifest.csv.gz and, if instances are missing, missing.csv.

    Not ``again`` where they stand and the ledger has not been written to since. report.xlsx is written with
    ``xlsx``, and where there is one: an old one must not look like the newest.
    """
    reader = Reader(folder.ledger)
    try:
        if again or not _stand(folder):
            if xlsx or (folder.out / _WORKBOOK).exists():
                _write_workbook(folder, reader)
            _write(folder, reader)
        refused = int(reader.facts().get("refused", "0"))
        return Result(folder, summarise(reader.rows(), reader.studies(), refused))
    finally:
        reader.close()


def _write(folder: JobFolder, reader: Reader) -> None:
    shared = access_of(folder.out)
    write_report(folder.out / "report.csv", reader.columns(), reader.rows(), access=shared)
    write_studies(folder.out / "studies.csv", reader.studies(), access=shared)
    write_manifest(folder.out / "manifest.csv.gz", reader.instances(derive_of(reader)), access=shared)
    write_missing(folder.out / "missing.csv", reader.missing(), access=shared)


def _write_workbook(folder: JobFolder, reader: Reader) -> None:
    # Imported here: XlsxWriter takes a tenth of a second, and few jobs need it.
    from dicom_quarry.reporting.xlsx_report import write_workbook

    tables = {
        "report": report_table(reader.columns(), reader.rows()),
        "studies": study_table(reader.studies()),
    }
    write_workbook(folder.out / _WORKBOOK, tables, access=access_of(folder.out))


def _stand(folder: JobFolder) -> bool:
    try:
        oldest = min((folder.out / name).stat().st_mtime_ns for name in _REPORTS)
    except FileNotFoundError:
        return False
    # What was written last may still be in the write-ahead log alone.
    log = folder.ledger.with_name(f"{folder.ledger.name}-wal")
    written = [one.stat() for one in (folder.ledger, log) if one.is_file()]
    return all(oldest > one.st_mtime_ns for one in written if one.st_size)
