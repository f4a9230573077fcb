"""A job as a place: a folder with its record in SQLite, or a name with its record in a database.

A place has the folder of the images. The rest of a job that is not in the ledger is reached through it
alone: the lock, the progress, requests to stop, the audit log, and named locks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from dicom_quarry.errors import LocalProtocolError
from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.ledger.location import LedgerLocation

if TYPE_CHECKING:
    from dicom_quarry.cohort.exclusion_list import ExclusionList
    from dicom_quarry.jobs.audit_log import AuditLog
    from dicom_quarry.jobs.checkpoint_store import CheckpointStore
    from dicom_quarry.jobs.cluster.file_check import FileCheck, FileCheckState
    from dicom_quarry.ledger.ledger import Ledger

#: The audit log's callback for a full disk, see AuditLog.
OnFull = Callable[[str], None]


#: The host of a holder that is not one process.
WORKERS = "the workers of the database"


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that runs a job; ``host`` is empty where it is a process of this computer.

    It is ``WORKERS`` where the workers of a database do.
    """

    process: int
    host: str = ""

    def __str__(self) -> str:
        if self.host == WORKERS:
            return WORKERS
        return f"process {self.process}" + (f" on {self.host}" if self.host else "")


class NamedLock(Protocol):
    """A lock of a job, for one kind of work; as a context manager it waits for as long as it takes."""

    def acquire(self, timeout: float | None = None) -> None:
        """Wait up to ``timeout`` seconds for the lock, None for ever; raise LockHeld then."""

    def release(self) -> None:
        """Give the lock back, if this has it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def do_nothing() -> None:
    """Be the callback of a run that cannot be stopped."""


class JobPlace(JobFolder, ABC):
    """The folder of a job's images, and the place of its record."""

    @property
    @abstractmethod
    def name(self) -> str | None:
        """The name of a job in a database, None for one in a folder."""

    @property
    def label(self) -> str:
        """The job as a user names it in a command."""
        return str(self.out) if self.name is None else f"job:{self.name}"

    @property
    @abstractmethod
    def ledger(self) -> LedgerLocation:
        """The location of the ledger."""

    @abstractmethod
    def lock(
        self, *, runs_job: bool = True, on_stop: Callable[[], object] = do_nothing
    ) -> AbstractContextManager[None]:
        """Hold the job's lock; raise StartError if another process has it. A crash releases it.

        ``runs_job``: the process with the lock runs a job, whose status can be read. ``on_stop`` is called
        for a request to stop that comes by the record: once to finish the studies being transferred, twice
        to cancel them.
        """

    @abstractmethod
    def named_lock(self, name: str) -> NamedLock:
        """Return the job's lock for one kind of work, such as a release."""

    @abstractmethod
    def holder(self) -> Holder | None:
        """Return the process that runs the job now, None if none does."""

    @abstractmethod
    def find_stoppable(self) -> Holder | None:
        """Return the process that runs the job now, for ``request_stop``; None if none does.

        Raises InputError if the process of the lock is not the one that has it.
        """

    @abstractmethod
    def request_stop(self, holder: Holder, *, cancel: bool) -> None:
        """Have the process finish the studies being transferred and end, or ``cancel`` them; returns at once.

        Raises InputError where this user may not do that.
        """

    def find_gone_workers(self) -> Callable[[str], bool]:
        """Return the function that is True for the identity of a worker that works no more.

        Called under the lock: without workers of a database any other worker of the job was killed.
        """
        return lambda _: True

    def has_workers(self, command: str = "") -> bool:  # noqa: ARG002 - there are none
        """Return True if workers give signs of life that can do the work of the job.

        With a ``command``: that define a command of this name.
        """
        return False

    def describe_missing_worker(self) -> str:
        """Return what a job of the workers waits for while none of them works on it; empty if one may."""
        return ""

    def find_refusals(self, since: float) -> Mapping[str, str]:  # noqa: ARG002 - there are no workers
        """Return the archives that no worker can use before a person has acted, each with the reasons.

        Each worker has tried it after ``since``, a time of the database: a person may have acted before.
        """
        return {}

    def take_back(self, details: str) -> None:
        """Take the job from the workers, who finish what they have begun; ``details`` are recorded."""

    def list_roots(self) -> list[str]:
        """Return the folders below which workers that give signs of life may write."""
        return []

    def is_with_workers(self) -> bool:
        """Return True while the workers have the job, or finish studies of it."""
        return False

    def goes_on(self) -> bool:
        """Return True while the workers have the job, and begin studies of it."""
        return False

    def hand_over(self, details: str, *, is_changed: bool, command: str) -> float:  # noqa: ARG002 - none are
        """Give the job, which this process has locked, to the workers; ``details`` are recorded.

        ``is_changed``: its settings, table or exclusion lists are others than when they had it before.
        ``command`` is the name of the command that they run for complete studies, or empty. Returns the time
        of the database.
        """
        raise LocalProtocolError("a job in a folder has no workers")

    def note_action(self, action: str, details: str) -> None:
        """Record who did this to the job, where others than its users do: see the audit log for the rest."""

    @abstractmethod
    def write_progress(self, values: Mapping[str, object]) -> None:
        """Publish the progress of the running job for ``quarry status``; raise OSError."""

    @abstractmethod
    def remove_progress(self) -> None:
        """Remove the progress of the ended run."""

    @abstractmethod
    def read_progress(self) -> object:
        """Return the progress as it was decoded from JSON, None if there is none or it is damaged."""

    @abstractmethod
    def was_left(self) -> bool:
        """Return True if the last process ended without removing its progress; called while none runs."""

    @abstractmethod
    def open_audit_log(self, ledger: Ledger, protocol: str = "", on_full: OnFull | None = None) -> AuditLog:
        """Open the audit log for appending; raise LedgerError."""

    @abstractmethod
    def read_audit(self) -> Iterator[dict[str, str]]:
        """Yield the records of the audit log, without empty cells; raise LedgerError."""

    @abstractmethod
    def open_checkpoint(self, name: str) -> CheckpointStore:
        """Return the place where a kind of verification keeps its position."""

    def open_file_check(self, *, restart: bool) -> FileCheck | None:  # noqa: ARG002 - there are no workers
        """Return the comparison of the files by workers, None if this process has to compare them.

        ``restart``: what they do now, or have found, does not count.
        """
        return None

    def read_file_check(self) -> FileCheckState | None:
        """Return how far the workers' comparison of the files is, None if there is none."""
        return None

    def forget_file_check(self) -> None:
        """Show what the workers have found to no user any more: the damage is mended."""

    @abstractmethod
    def export_audit(self) -> None:
        """Write audit.csv in the state folder, if the log is elsewhere."""

    def with_reports_in(self, folder: Path) -> Self:
        """Return the job with another folder for its reports, and for the copy of an audit log in a table."""
        return replace(self, out=folder, state=self.state if self.name is None else folder)

    @abstractmethod
    def require_folder(self) -> None:
        """Raise InputError if the folder of the images is not on this computer."""

    @abstractmethod
    def prepare_record(self, ledger: Ledger) -> None:
        """Make what the job has beside its ledger; called under the lock."""

    def record_exclusions(self, ledger: Ledger, exclusions: ExclusionList) -> None:
        """Record the exclusion lists of a run, if other computers work on the job."""

    def recorded_exclusions(self, files: Sequence[Path]) -> Mapping[str, frozenset[str]] | None:  # noqa: ARG002
        """Return the identifiers of the job's own lists where the record has them, and not ``files``.

        None where the files are read.
        """
        return None

    @abstractmethod
    def signs(self) -> tuple[object, ...]:
        """Return what changes when the status does, at little cost."""

    @abstractmethod
    def has_changed_since(self, time_ns: int) -> bool:
        """Return True if the record may have changed since a POSIX time in nanoseconds."""

    @abstractmethod
    def reject_commands(self, settings: Mapping[str, object], *, trust_owner: bool) -> None:
        """Raise ConfigError for settings with a command, if another user could have written the record."""

    @abstractmethod
    def settings_of_place(self) -> dict[str, object]:
        """Return the settings that name this place, for another run of the job."""
