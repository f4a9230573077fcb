"""This user's jobs on this computer: read their status, list them, stop them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.errors import InputError, LedgerError, QuarryError
from dicom_quarry.jobs.open_place import open_existing
from dicom_quarry.jobs.opened_job import open_job
from dicom_quarry.jobs.place import WORKERS, Holder, JobPlace
from dicom_quarry.jobs.registry import find_registered, last_registered, list_registered
from dicom_quarry.jobs.status import JobStatus
from dicom_quarry.model import SETTLED, OnCompleteState, OutcomeStatus

#: The outcomes that a retry tries again where none are named: those that another try may change.
RETRIED_BY_DEFAULT = frozenset(OutcomeStatus) - {
    *SETTLED,
    OutcomeStatus.PENDING,
    OutcomeStatus.INVALID_ROW,
    OutcomeStatus.EXCLUDED,
}

#: Seconds between two reads of a job's lock.
_POLL_INTERVAL = 0.2


def read_job_status(out: Path | JobPlace) -> JobStatus:
    """Read the status of the job in folder ``out``; raises InputError if there is none, and LedgerError."""
    with open_job(out) as job:
        return job.status()


@dataclass(frozen=True, slots=True)
class DefaultJob:
    """The job of a command without a folder, and the reason; ``is_last``: only because it ran last."""

    folder: Path
    reason: str
    is_last: bool = False


def find_default_job() -> DefaultJob | None:
    """Find the job of quarry.toml's ``to``, else of the current folder, else the last one; None if none.

    Raises ConfigError for a quarry.toml that cannot be read.
    """
    from dicom_quarry.config.toml_file import FILE_NAME, read_toml  # what shows a job needs no settings

    settings = Path(FILE_NAME)
    to = read_toml(settings).get("to") if settings.is_file() else None
    if isinstance(to, str) and _has_job(Path(to)):
        return DefaultJob(Path(to), f"'to' in {FILE_NAME}")
    if _has_job(Path()):
        return DefaultJob(Path(), "the current folder")
    last = next(filter(_has_job, last_registered()), None)
    return DefaultJob(last, "the last job on this computer", is_last=True) if last else None


def configured_archives() -> list[str]:
    """Return the names of the archives in ./quarry.toml; raises ConfigError if it cannot be read."""
    from dicom_quarry.config.toml_file import FILE_NAME, read_toml  # what shows a job needs no settings

    settings = Path(FILE_NAME)
    archives = read_toml(settings).get("archive") if settings.is_file() else None
    return list(archives) if isinstance(archives, dict) else []


def registered_folders() -> list[Path]:
    """Return the folders of this user's jobs on this computer, that of the latest run first."""
    return [folder.out for folder in latest_job_folders()]


def latest_job_folders() -> list[JobPlace]:
    """Return this user's jobs on this computer, that of the latest run first."""
    found = []
    for out in last_registered():
        with suppress(InputError, LedgerError):
            found.append(open_existing(out))
    return found


def find_job(key: str) -> JobPlace | None:
    """Return this user's job with a key of :func:`job_key`, None if there is none."""
    out = find_registered(key)
    return None if out is None else open_existing(out)


def _has_job(out: Path) -> bool:
    try:
        open_existing(out)
    except (InputError, LedgerError):
        return False
    return True


def status_exit_code(status: JobStatus) -> int:
    """0 every row complete or filtered, 1 rows need attention, 4 not finished, 70 a defect."""
    counts = status.counts
    if not counts.is_finished:
        return 4
    if counts.rows_with_internal_error:
        return 70
    settled = set(counts.rows_by_status) <= SETTLED
    settled = settled and status.damage is None
    return 0 if settled and not counts.on_complete_counts.get(OnCompleteState.FAILED) else 1


def list_job_statuses(on_damaged: Callable[[QuarryError], None]) -> list[JobStatus]:
    """Read the status of this user's jobs, and of those in the database that ./quarry.toml names.

    The latest comes first; ``on_damaged`` gets the errors of records that cannot be read.
    """
    statuses = []
    for folder in (*_list_folders(on_damaged), *_list_cluster(on_damaged)):
        try:
            statuses.append(read_job_status(folder))
        except LedgerError as error:
            on_damaged(error)
    return sorted(statuses, key=lambda status: status.started_at, reverse=True)


def _list_folders(on_damaged: Callable[[QuarryError], None]) -> Iterator[JobPlace]:
    for path in list_registered():
        # A folder without a job: its table was refused, or its state was deleted.
        try:
            found = open_existing(path)
        except InputError:
            continue
        except LedgerError as error:  # the database of a job is away
            on_damaged(error)
        else:
            yield found


def _list_cluster(on_damaged: Callable[[QuarryError], None]) -> Iterator[JobPlace]:
    """Yield the jobs in the database of ./quarry.toml, without those of this user's folders here."""
    if not Path("quarry.toml").is_file():
        return
    # Imported here: what shows a job needs no settings, which take time to load.
    from dicom_quarry.jobs.cluster.opening import list_places

    registered = {out.resolve() for out in list_registered()}
    try:
        yield from (place for place in list_places() if place.out not in registered)
    except (InputError, LedgerError) as error:
        on_damaged(error)


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job and the process that runs it; ``is_compared``: the workers compare its files, and do no more."""

    folder: JobPlace
    holder: Holder
    is_compared: bool = False

    @property
    def process(self) -> int:
        """The ID of the process."""
        return self.holder.process

    def stop(self, *, cancel: bool = False) -> None:
        """Stop the job after the studies being transferred; ``cancel`` cancels these transfers.

        Returns at once. Raises InputError where the process belongs to another user.
        """
        self.folder.request_stop(self.holder, cancel=cancel)

    def wait(self) -> None:
        """Wait until the process has released the job, and its workers have nothing in work."""
        while self.folder.find_stoppable() in (self.holder, Holder(0, WORKERS)):
            time.sleep(_POLL_INTERVAL)


def find_running_job(out: Path) -> RunningJob | None:
    """Find the running job in a folder; raises InputError if it has no job, or a lock of doubtful origin."""
    folder = open_existing(out)
    holder = folder.find_stoppable()
    return RunningJob(folder, holder, is_compared=folder.holder() is None) if holder else None


def find_running_jobs(on_doubtful: Callable[[QuarryError], None]) -> list[RunningJob]:
    """Find this user's running jobs; ``on_doubtful`` gets the errors of jobs that get no signal."""
    running = []
    for folder in _list_folders(on_doubtful):
        try:
            holder = folder.find_stoppable()
        except (InputError, LedgerError) as error:
            on_doubtful(error)
            continue
        if holder and not holder.host:  # a job that was continued elsewhere is not of this computer
            running.append(RunningJob(folder, holder))
    return running
