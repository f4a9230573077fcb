"""A job as it stands, read from its record: its result, its settings, and all that is known of a row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.folder import JobFolder, open_existing
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.ledger.views import RowView, StudyView
from dicom_quarry.reporting.summary import JobSummary
from dicom_quarry.system.permissions import PRIVATE, Permissions


@dataclass(frozen=True, slots=True)
class Result:
    """A job as it stands: its summary, and its rows and studies one by one."""

    folder: JobFolder
    summary: JobSummary

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
        with closing(LedgerReader(self.folder.ledger)) as reader:
            yield from reader.rows()

    def studies(self) -> Iterator[StudyView]:
        """Every study, with its outcome."""
        with closing(LedgerReader(self.folder.ledger)) as reader:
            yield from reader.studies()


def load_settings(out: Path) -> Settings:
    """The settings that a job was last run with; raises InputError if the folder holds no job.

    Its folders are where they are found now: they may have been given relative to another folder, or moved.
    """
    with closing(LedgerReader(open_existing(out).ledger)) as reader:
        settings = Settings.model_validate_json(reader.metadata()["settings"])
        return settings.model_copy(update={"to": out, "state": None})


def report_access(out: Path) -> Permissions:
    """Who may read a job's reports; its owner alone where its group is not of this computer or user."""
    try:
        return load_settings(out).permissions
    except ConfigError:
        return PRIVATE
