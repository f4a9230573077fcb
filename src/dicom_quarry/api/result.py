"""A job's result and settings, read from its record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.api.notebook import JobOutput
from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.settings import Settings, load_commands
from dicom_quarry.config.toml_file import FILE_NAME, validate_model
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.open_place import open_existing
from dicom_quarry.jobs.opened_job import open_job
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.views import RowView, StudyView
from dicom_quarry.reporting.summary import JobSummary
from dicom_quarry.system.permissions import PRIVATE, Permissions


@dataclass(frozen=True, slots=True, repr=False)
class Result(JobOutput):
    """The present result of a job: its summary, and its rows and studies one by one.

    ``problem`` is what a person has to solve before the job can continue, empty if nothing.
    ``further_reports`` are the reports on request that are there, such as report.xlsx. ``sign_problem`` is
    why proof.json is not signed with the key of the settings, empty if it is; ``page_problem`` why
    report.html was not written.
    """

    folder: JobPlace
    summary: JobSummary
    problem: str = ""
    further_reports: tuple[Path, ...] = ()
    sign_problem: str = ""
    page_problem: str = ""

    def __repr__(self) -> str:
        return f"<Result of {self.folder.out}: {self.summary.verdict}>"

    def _job(self) -> JobPlace:
        return self.folder

    def _note(self, *, identifiers: bool) -> str:
        if not self.problem or identifiers:
            return self.problem
        return "The job needs the help of a person: read the attribute problem of the result."

    @property
    def exit_code(self) -> int:
        """0 every row complete or filtered, 1 rows need attention, 4 not finished, 70 a defect."""
        return self.summary.exit_code

    @property
    def report(self) -> Path:
        """The user's table with the outcome of every row."""
        return self.folder.out / "report.csv"

    def rows(self) -> Iterator[RowView]:
        """Read every row of the table with its outcome."""
        return read_rows(self.folder)

    def studies(self) -> Iterator[StudyView]:
        """Read every study with its outcome."""
        return read_studies(self.folder)


def read_rows(folder: JobPlace) -> Iterator[RowView]:
    """Read every row of a job's table with its present outcome."""
    with open_job(folder) as job:
        yield from job.reader.rows()


def read_studies(folder: JobPlace) -> Iterator[StudyView]:
    """Read every study of a job with its present outcome."""
    with open_job(folder) as job:
        yield from job.reader.studies()


def load_job_settings(out: Path, *, trust_owner: bool = False) -> Settings:
    """Load the settings of a job's last run, for another run; raises InputError if the folder has no job.

    ``to`` is that of the place, since the folders may have been moved. Raises NotOwned if another user owns
    the job's folder, and ConfigError for a command that another user, also with root as the reader, could
    have written; ``trust_owner`` accepts both.
    """
    folder = open_existing(out, check_owner=True, trust_owner=trust_owner)
    settings = _read_settings(folder, {**folder.settings_of_place(), "trust_owner": trust_owner})
    if settings.command_name:  # no record has commands of that name
        settings = settings.model_copy(update={"commands": load_commands(Path(FILE_NAME))})
    folder.reject_commands(settings.model_dump(), trust_owner=trust_owner)
    return settings


def override_settings(settings: Settings, flags: Mapping[str, object]) -> Settings:
    """Return the settings of a job with options of a command; raises ConfigError.

    ``retrieve`` applies to every archive.
    """
    changes, source = dict(flags), Path(FILE_NAME)
    if "retrieve" in changes:
        retrieve = {"retrieve": changes.pop("retrieve")}
        changes["archives"] = tuple(
            validate_model(ArchiveProfile, {**dict(one), **retrieve}, source, f"[archive.{one.name}] ")
            for one in settings.archives
        )
    return validate_model(Settings, {**dict(settings), **changes}, source) if changes else settings


def list_changed_settings(flags: Mapping[str, object]) -> list[str]:
    """Return the settings that the flags of ``override_settings`` change, to be recorded."""
    return ["archives" if name == "retrieve" else name for name in flags]


def _read_settings(folder: JobPlace, changes: Mapping[str, object]) -> Settings:
    with open_job(folder) as job:
        return job.settings.model_copy(update=changes)


def report_access(place: JobPlace) -> Permissions:
    """Return the permissions of a job's reports: its owner alone where the job's group is not known here."""
    try:
        return _read_settings(place, {}).permissions
    except ConfigError:
        return PRIVATE
