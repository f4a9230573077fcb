"""The reports of a job, and the history of its rows and studies."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_quarry.api.options import StrPath, make_path
from dicom_quarry.api.result import Result, report_access
from dicom_quarry.config.settings import parse_recorded_settings
from dicom_quarry.errors import ConfigError, InputError
from dicom_quarry.jobs.instance_paths import load_path_function
from dicom_quarry.jobs.open_place import open_existing
from dicom_quarry.jobs.opened_job import OpenedJob, open_job
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.file_state import read_damage
from dicom_quarry.ledger.history import HistoryReader
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.reporting.csv_reports import (
    make_report_table,
    make_study_table,
    write_manifest,
    write_missing,
    write_problems,
    write_report,
    write_sha256sums,
    write_studies,
)
from dicom_quarry.reporting.file_damage import describe_damage
from dicom_quarry.reporting.metrics import write_final_metrics
from dicom_quarry.reporting.proof import PROOF_NAME, write_proof
from dicom_quarry.reporting.summary import JobSummary, summarise
from dicom_quarry.reporting.summary_table import make_summary_table
from dicom_quarry.system.permissions import Permissions, make_private_folder
from dicom_quarry.system.signatures import load_private_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from dicom_quarry.extraction.runner import JobResult


def open_history(out: Path) -> HistoryReader:
    """Open the history of a job's rows and studies; raises InputError if there is no job."""
    return open_job(out).reader


_log = logging.getLogger("dicom_quarry.job")

_REPORT_FILES = ("report.csv", "studies.csv", "manifest.csv.gz", PROOF_NAME)
_XLSX_FILE, _PROBLEMS_FILE, _CHECKSUMS_FILE = "report.xlsx", "problems.csv", "SHA256SUMS"
_HTML_FILE = "report.html"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Reports that are written on request; later runs update those that are there.

    ``bom``: the CSV files begin with a byte order mark, for Excel; None leaves that as it is. ``sign`` is the
    key that signs proof.json; None for that of the job's settings. ``html`` writes report.html also where the
    settings do not; ``identifiers``: with cells and reasons.
    """

    xlsx: bool = False
    problems: bool = False
    sha256sums: bool = False
    bom: bool | None = None
    sign: Path | None = None
    html: bool = False
    identifiers: bool = False


def report(
    folder: StrPath,
    *,
    to: StrPath | None = None,
    xlsx: bool = False,
    problems: bool = False,
    sha256sums: bool = False,
    bom: bool | None = None,
    sign: StrPath | None = None,
    html: bool = False,
    identifiers: bool = False,
) -> Result:
    """Write the reports of a job, also while it runs; raises InputError if there is no job.

    They are written beside the images, or to the folder ``to``: then the images need not be on this computer.
    Also write report.xlsx, ``problems`` with the rows that need attention, and ``sha256sums`` of all files.
    These are kept up to date from then on. ``bom`` is for Excel. ``sign`` is the file of an Ed25519 key that
    signs proof.json. ``html`` writes report.html even where the settings do not; with ``identifiers`` it has
    the cells of the table and all reasons.
    """
    if identifiers and not html:
        raise InputError("--identifiers is for report.html: give --html, too")
    key = None if sign is None else make_path(sign, "sign")
    options = ReportOptions(xlsx, problems, sha256sums, bom, key, html, identifiers)
    place = open_existing(make_path(folder, "folder"))
    return write_reports(place, options=options, to=None if to is None else _make_folder(make_path(to, "to")))


def _make_folder(path: Path) -> Path:
    """Make a folder for reports alone; raise InputError for that of a job, which has its own."""
    if (path / ".quarry").exists():
        raise InputError(f"{path} is the folder of a job: give another folder with --to")
    try:
        if not path.is_dir():
            make_private_folder(path)
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror}") from error
    return path.absolute()


def write_final_reports(end: JobResult) -> Result:
    """Write the reports of a run that has ended.

    Current reports of a run that had nothing to do are kept: writing millions of instances takes minutes.
    """
    return write_reports(end.folder, force=not end.nothing_to_do)


def write_reports(
    folder: JobPlace, *, force: bool = True, options: ReportOptions | None = None, to: Path | None = None
) -> Result:
    """Write report.csv, studies.csv, manifest.csv.gz, proof.json, report.html and, if needed, missing.csv.

    Without ``force`` nothing is written if the reports are newer than the ledger. A report on request is
    written where there is one already, too, so that an old one is not taken for the newest. ``to`` is another
    folder than that of the images, which then need not be here.
    """
    options, images = options or ReportOptions(), folder.out
    if to is None:
        folder.require_folder()
    else:
        folder = folder.with_reports_in(to)
    with open_job(folder) as job:
        reader, metadata = job.reader, job.metadata
        summary = replace(
            summarise(reader.rows(), reader.studies(), int(metadata.get("refused", "0"))),
            file_problem=describe_damage(read_damage(metadata), images),
        )
        requested = _requested_files(job, options)
        key, sign_problem = _load_key(options, metadata)
        page_problem = ""
        if force or not _are_current(folder, requested):
            page_problem = _write_files(job, requested, options, summary, key)
        if to is None:
            write_final_metrics(job)
        # Every job has the page, so only a user who requested it now is shown its place.
        named = [name for name in requested if name != _HTML_FILE or options.html]
        written = tuple(folder.out / name for name in named if (folder.out / name).exists())
        return Result(
            folder, summary, further_reports=written, sign_problem=sign_problem, page_problem=page_problem
        )


def _write_files(
    job: OpenedJob,
    requested: Sequence[str],
    options: ReportOptions,
    summary: JobSummary,
    key: Ed25519PrivateKey | None,
) -> str:
    """Write the reports of every job, and those that are requested; return why the page was not written."""
    bom = _has_bom(job.out / "report.csv") if options.bom is None else options.bom
    shared = report_access(job.folder)
    writer = _ReportWriter(job.out, job.reader, bom=bom, shared=shared)
    if _XLSX_FILE in requested:
        writer.write_xlsx(summary)
    writer.write_csv_reports()
    if _PROBLEMS_FILE in requested:
        writer.write_problems()
    if _CHECKSUMS_FILE in requested:
        writer.write_checksums()
    job.folder.export_audit()
    # Last of the data: a crash before it leaves the earlier proof, which is of an earlier manifest.
    write_proof(job.folder, job.reader, permissions=shared, key=key)
    return writer.write_html(job, options) if _HTML_FILE in requested else ""


def _load_key(options: ReportOptions, metadata: Mapping[str, str]) -> tuple[Ed25519PrivateKey | None, str]:
    """Return the key that signs the proof, None for none; and why that of the settings cannot be used."""
    if options.sign is not None:
        return load_private_key(options.sign), ""
    path = parse_recorded_settings(metadata).sign
    try:
        return None if path is None else load_private_key(path), ""
    except ConfigError as error:
        return None, f"proof.json is not signed: {error}"


def _requested_files(job: OpenedJob, options: ReportOptions) -> list[str]:
    """Return the names of the further reports that are to be written."""
    files = {
        _XLSX_FILE: options.xlsx,
        _PROBLEMS_FILE: options.problems,
        _CHECKSUMS_FILE: options.sha256sums,
        _HTML_FILE: options.html or job.settings.html,
    }
    return [name for name, is_requested in files.items() if is_requested or (job.out / name).exists()]


class _ReportWriter:
    """Writes the reports of one job from its ledger."""

    def __init__(self, out: Path, reader: LedgerReader, *, bom: bool, shared: Permissions) -> None:
        self._out = out
        self._reader = reader
        self._bom = bom
        self._shared = shared

    def write_csv_reports(self) -> None:
        """Write the reports that every job has."""
        out, reader, shared = self._out, self._reader, self._shared
        columns, path_of = reader.columns(), load_path_function(reader)
        write_report(out / "report.csv", columns, reader.rows(), permissions=shared, bom=self._bom)
        write_studies(out / "studies.csv", reader.studies(), permissions=shared, bom=self._bom)
        write_manifest(out / "manifest.csv.gz", reader.instances(path_of), permissions=shared)
        write_missing(out / "missing.csv", reader.missing(), permissions=shared, bom=self._bom)

    def write_problems(self) -> None:
        """Write the rows that need attention."""
        columns, rows = self._reader.columns(), self._reader.rows()
        write_problems(self._out / _PROBLEMS_FILE, columns, rows, permissions=self._shared, bom=self._bom)

    def write_checksums(self) -> None:
        """Write the checksums of the files."""
        instances = self._reader.instances(load_path_function(self._reader))
        write_sha256sums(self._out / _CHECKSUMS_FILE, instances, permissions=self._shared)

    def write_html(self, job: OpenedJob, options: ReportOptions) -> str:
        """Write the page. One that was not requested now costs no result: return why it was not written."""
        # Imported here: quarry status and others load this module, and need no page.
        from dicom_quarry.reporting.html.report_page import write_report_page

        path = self._out / _HTML_FILE
        try:
            write_report_page(path, job, identifiers=options.identifiers, permissions=self._shared)
        except Exception as error:
            if options.html:
                raise
            # The text of an error may have values of the record.
            _log.debug("%s was not written", _HTML_FILE, exc_info=error)
            why = error.strerror if isinstance(error, OSError) else type(error).__name__
            return f"{_HTML_FILE} was not written ({why}). To try again: quarry report {self._out} --html"
        return ""

    def write_xlsx(self, summary: JobSummary) -> None:
        """Write the workbook."""
        # Imported here: XlsxWriter takes a tenth of a second, and few jobs need it.
        from dicom_quarry.reporting.xlsx_report import write_xlsx

        tables = {
            "report": make_report_table(self._reader.columns(), self._reader.rows()),
            "studies": make_study_table(self._reader.studies()),
            "Summary": make_summary_table(summary),
        }
        write_xlsx(self._out / _XLSX_FILE, tables, permissions=self._shared)


def _has_bom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(_BOM)) == _BOM
    except FileNotFoundError:
        return False


def _are_current(folder: JobPlace, requested: Sequence[str]) -> bool:
    """Return True if the reports that every job has are there, and newer than the record."""
    names = [*_REPORT_FILES, *(name for name in requested if name == _HTML_FILE)]
    try:
        oldest = min((folder.out / name).stat().st_mtime_ns for name in names)
    except FileNotFoundError:
        return False
    return not folder.has_changed_since(oldest)
