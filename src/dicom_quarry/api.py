"""What the command does, for notebooks and scripts; the command line is a thin face of this."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dicom_quarry import config
from dicom_quarry.config import Settings
from dicom_quarry.errors import ConfigError
from dicom_quarry.extraction.against import NEW, Again
from dicom_quarry.extraction.aside import studies_in
from dicom_quarry.extraction.earlier import earlier_rate
from dicom_quarry.extraction.folder import JobFolder, existing, logging_to
from dicom_quarry.extraction.identity import APART
from dicom_quarry.extraction.listener import Listener
from dicom_quarry.extraction.notices import tell
from dicom_quarry.extraction.planning import PlanEnd
from dicom_quarry.extraction.release import Release
from dicom_quarry.extraction.release import release as _release
from dicom_quarry.extraction.runner import JobEnd, Runner
from dicom_quarry.extraction.verify import DAMAGED, Checked, Verification, Verified, derive_of
from dicom_quarry.extraction.verify import verify as _verify
from dicom_quarry.ledger.history import HistoryReader
from dicom_quarry.ledger.planned import PlannedRow, PlanReader
from dicom_quarry.ledger.reading import Reader
from dicom_quarry.ledger.views import ChangeView, RowView, StudyView
from dicom_quarry.report import (
    Amount,
    PlanSummary,
    Summary,
    count_rows,
    end_notice,
    failure_notice,
    forecast,
    report_table,
    study_table,
    summarise,
    write_changes,
    write_damaged,
    write_manifest,
    write_missing,
    write_plan,
    write_plan_json,
    write_report,
    write_studies,
)
from dicom_quarry.sharing import PRIVATE, Access
from dicom_quarry.site import site_policy

_log = logging.getLogger(__name__)

_REPORTS = ("report.csv", "studies.csv", "manifest.csv.gz")
_WORKBOOK = "report.xlsx"


@dataclass(frozen=True, slots=True)
class Result:
    """A job as it stands: its summary, and its rows and studies one by one."""

    folder: JobFolder
    summary: Summary

    @property
    def exit_code(self) -> int:
        """0 every row complete, 1 finished with exceptions, 4 not finished."""
        return self.summary.exit_code

    @property
    def report(self) -> Path:
        """The user's table with the outcome of every row."""
        return self.folder.out / "report.csv"

    def rows(self) -> Iterator[RowView]:
        """Every row of the table, with its outcome."""
        reader = Reader(self.folder.ledger)
        try:
            yield from reader.rows()
        finally:
            reader.close()

    def studies(self) -> Iterator[StudyView]:
        """Every study, with its outcome."""
        reader = Reader(self.folder.ledger)
        try:
            yield from reader.studies()
        finally:
            reader.close()


def extract(
    cohort: str | Path,
    *,
    archive: str | None = None,
    to: str | Path | None = None,
    local: str | None = None,
    config_file: str | Path | None = None,
    update: bool = False,
    listener: Listener | None = None,
    **options: object,
) -> Result:
    """Extract a cohort into a folder, or go on where an earlier call was cut short.

    ``archive`` is ``AET@HOST:PORT`` or a name from quarry.toml, ``local`` our receiver as ``AET[@IP]:PORT``;
    further ``options`` are those of :class:`dicom_quarry.config.Settings`, such as ``parallel=4``. Blocks
    until the job has ended and its reports are written. Raises InputError, StartError or LedgerError.
    """
    flags = {"from": archive, "to": None if to is None else str(to), "as": local, **options}
    settings = config.load(None if config_file is None else Path(config_file), flags)
    listener = listener or Listener()
    runner = Runner(settings, listener)
    with telling(settings, listener.said) as ended:
        end = runner.extract(Path(cohort), update=update)
        result = reports_of(end)
        ended(end, result)
    return result


@contextmanager
def telling(settings: Settings, say: Callable[[str], None]) -> Iterator[Callable[[JobEnd, Result], None]]:
    """Around a run and its reports: whoever wants to know is told how it ended, also by an error.

    Gives what is to be called with the end. ``say`` hears of a notification that could not be sent.
    """
    started = datetime.now(UTC)

    def heard(message: str) -> None:
        _log.warning(message)
        say(message)

    def ended(end: JobEnd, result: Result) -> None:
        if not end.nothing_to_do:
            with logging_to(end.folder.log):
                tell(settings, end_notice(result.summary, end.folder.out, started, end.told), heard)

    try:
        yield ended
    except Exception as error:
        tell(settings, failure_notice(error, settings.to, started), heard)
        raise


@dataclass(frozen=True, slots=True)
class Plan:
    """What a cohort would come to: its summary, and its rows one by one. ``problem`` as in a job's end."""

    folder: JobFolder
    summary: PlanSummary
    detailed: bool = False
    problem: str = ""

    @property
    def exit_code(self) -> int:
        """0 every row has studies to fetch, 1 some have none, 4 not every row was asked about."""
        return self.summary.exit_code

    def rows(self) -> Iterator[PlannedRow]:
        """Every row of the table, with the studies found for it."""
        with closing(PlanReader(self.folder.ledger)) as reader:
            yield from reader.planned()

    def write(self, path: str | Path) -> Path:
        """Write the plan, for its owner alone: as JSON where the name ends in .json, else as CSV."""
        path = Path(path)
        if path.suffix.casefold() == ".json":
            write_plan_json(path, self.summary, self.rows(), detailed=self.detailed)
        else:
            write_plan(path, self.rows(), detailed=self.detailed)
        return path


def plan(
    cohort: str | Path,
    *,
    archive: str | None = None,
    to: str | Path | None = None,
    local: str | None = None,
    config_file: str | Path | None = None,
    detailed: bool = False,
    listener: Listener | None = None,
    **options: object,
) -> Plan:
    """Ask what a cohort would come to, and move nothing; parameters are those of :func:`extract`.

    ``detailed`` asks for more attributes of every study. An extraction of the same cohort from the same
    archives, with the same rules, begins with the answers. Raises InputError, StartError or LedgerError.
    """
    flags = {"from": archive, "to": None if to is None else str(to), "as": local, **options}
    settings = plan_settings(None if config_file is None else Path(config_file), flags)
    runner = Runner(settings, listener or Listener())
    return planned(settings, runner.plan(Path(cohort), detailed=detailed), detailed=detailed)


def plan_settings(path: Path | None, flags: Mapping[str, object]) -> Settings:
    """The settings of a plan, those of a job; without a folder to fill, the current one's disk counts."""
    return config.load(path, flags, {"to": "."})


def planned(settings: Settings, end: PlanEnd, *, detailed: bool) -> Plan:
    """What a plan came to that has just been made."""
    amounts = {archive.name: Amount() for archive in settings.archives}
    with closing(PlanReader(end.folder.ledger)) as reader:
        counts = count_rows(reader.planned())
        for archive, study in reader.found():
            amounts[archive].add(study)
    site, now = site_policy(), datetime.now(UTC)
    forecasts = tuple(
        forecast(
            archive.name,
            amounts[archive.name],
            [archive, *site.limits(archive).values()],
            earlier_rate(archive.places),
            now,
        )
        for archive in settings.archives
    )
    there = next(path for path in (settings.to.absolute(), *settings.to.absolute().parents) if path.exists())
    free = max(0, shutil.disk_usage(there).free - settings.keep_free_bytes)
    filtered = bool(settings.series or settings.series_not or settings.min_instances)
    summary = PlanSummary(counts, forecasts, settings.to, free, filtered)
    return Plan(end.folder, summary, detailed, end.problem)


def history(out: Path) -> HistoryReader:
    """What is known of a job's rows and studies, one at a time; raises InputError if there is no job."""
    return HistoryReader(existing(out).ledger, APART)


def settings_of(out: Path) -> Settings:
    """The settings that a job was last run with; raises InputError if the folder holds no job.

    Its folders are where they are found now: they may have been given relative to another folder, or moved.
    """
    reader = Reader(existing(out).ledger)
    try:
        settings = Settings.model_validate_json(reader.facts()["settings"])
        return settings.model_copy(update={"to": out, "state": None})
    finally:
        reader.close()


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
    shared = _access(folder.out)
    write_report(folder.out / "report.csv", reader.columns(), reader.rows(), access=shared)
    write_studies(folder.out / "studies.csv", reader.studies(), access=shared)
    write_manifest(folder.out / "manifest.csv.gz", reader.instances(derive_of(reader)), access=shared)
    write_missing(folder.out / "missing.csv", reader.missing(), access=shared)


def _access(out: Path) -> Access:
    """Who may read the reports of a job; its owner alone where its group is not of this computer or user."""
    try:
        return settings_of(out).access
    except ConfigError:
        return PRIVATE


def _write_workbook(folder: JobFolder, reader: Reader) -> None:
    # Imported here: XlsxWriter takes a tenth of a second, and few jobs need it.
    from dicom_quarry.report.xlsx import write_workbook

    tables = {
        "report": report_table(reader.columns(), reader.rows()),
        "studies": study_table(reader.studies()),
    }
    write_workbook(folder.out / _WORKBOOK, tables, access=_access(folder.out))


def _stand(folder: JobFolder) -> bool:
    try:
        oldest = min((folder.out / name).stat().st_mtime_ns for name in _REPORTS)
    except FileNotFoundError:
        return False
    # What was written last may still be in the write-ahead log alone.
    log = folder.ledger.with_name(f"{folder.ledger.name}-wal")
    written = [one.stat() for one in (folder.ledger, log) if one.is_file()]
    return all(oldest > one.st_mtime_ns for one in written if one.st_size)


def verify(out: str | Path, *, quick: bool = False, threads: int | None = None) -> Iterator[Checked]:
    """Compare every recorded file with what is on disk; see :func:`dicom_quarry.extraction.verify.verify`."""
    return _verify(existing(Path(out)), quick=quick, threads=threads)


def release(out: str | Path, study_uids: Collection[str] = (), *, delete: bool = False) -> Iterator[Release]:
    """Release complete studies; see :func:`dicom_quarry.extraction.release.release`."""
    return _release(existing(Path(out)), study_uids, delete=delete)


def damaged_file(verification: Verification, verified: Verified, *, whole: bool) -> Path | None:
    """Leave what a look at the files has found in damaged.csv; its path, None where nothing was found.

    A list of an earlier look goes when a ``whole`` one finds nothing: others would not know.
    """
    path = verification.folder.out / "damaged.csv"
    if not os.access(path.parent, os.W_OK):
        path = verification.kept_in / "damaged.csv"
    if verified.damaged or verified.strays:
        write_damaged(path, verification.damaged(), access=_access(verification.folder.out))
        return path
    if whole:
        path.unlink(missing_ok=True)
    return None


def fetched_again(out: Path, runner: Runner, *, damaged: bool, changed: bool) -> JobEnd:
    """Have sent again what verify found: damaged files, or studies that have grown in the archive.

    Raises InputError where verify has left no list of these.
    """
    study_uids: list[str] = []
    if damaged:
        study_uids += studies_in(out / "damaged.csv", DAMAGED, f"quarry verify {out}")
    if changed:
        study_uids += studies_in(
            out / "changes.csv", frozenset({NEW}), f"quarry verify {out} --against-archive"
        )
    return runner.fetch_again(list(dict.fromkeys(study_uids)))


def compared(out: Path, runner: Runner, *, restart: bool) -> Again:
    """List every complete study again; changes.csv has what is otherwise now, if anything is."""
    path = out / "changes.csv"

    def write(changes: Iterator[ChangeView]) -> None:
        if not write_changes(path, changes, access=_access(out)):
            path.unlink(missing_ok=True)

    return runner.compare(write, restart=restart)
