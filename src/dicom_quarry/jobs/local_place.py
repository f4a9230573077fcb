"""A job in a folder: its record is a SQLite file in the state folder, next to its lock and its progress."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dicom_quarry.config.command_sources import reject_foreign_commands
from dicom_quarry.errors import InputError, StartError
from dicom_quarry.jobs.audit_log import AUDIT_NAME, AuditFile, AuditLog, read_audit_file
from dicom_quarry.jobs.checkpoint_store import CheckpointFiles, CheckpointStore, writable_folder
from dicom_quarry.jobs.folder import JobFolder, reject_network_file_system, require_own_state
from dicom_quarry.jobs.place import Holder, JobPlace, OnFull, do_nothing
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import has_job
from dicom_quarry.system.atomic_file import atomic_write_text
from dicom_quarry.system.locks import FileLock, LockHeld, inspect_lock, read_lock_owner
from dicom_quarry.system.permissions import make_private_folder
from dicom_quarry.system.processes import user_name
from dicom_quarry.system.text_safety import escape_text

#: The file in the output folder that contains the path of the state folder.
_POINTER = "state-folder"

#: Seconds to wait for the lock: ``quarry status`` holds it for a moment.
_LOCK_TIMEOUT = 1.0

#: Seconds between two signals: two at once are delivered as one.
_BETWEEN_SIGNALS = 0.2

#: Limit in bytes on a progress file, which another user may have written.
_MAX_PROGRESS = 1 << 20


class LocalPlace(JobPlace):
    """The folder of a job whose record is in SQLite."""

    @property
    def name(self) -> None:
        """The job has no name: it is named by its folder."""
        return

    @property
    def ledger(self) -> Path:
        """The SQLite file."""
        return self.state / "ledger.db"

    @property
    def audit(self) -> Path:
        """The audit log."""
        return self.state / AUDIT_NAME

    @property
    def progress(self) -> Path:
        """The progress of the running job, for ``quarry status``."""
        return self.state / "progress.json"

    @property
    def _lock_path(self) -> Path:
        return self.state / "lock"

    @contextmanager
    def lock(self, *, runs_job: bool = True, on_stop: Callable[[], object] = do_nothing) -> Iterator[None]:  # noqa: ARG002 - a request to stop is a signal
        """Hold the folder's lock; raise StartError if another process has it. A crash releases it."""
        lock = FileLock(self._lock_path)
        try:
            lock.acquire(_LOCK_TIMEOUT)
        except LockHeld as error:
            raise StartError(
                f"another quarry (process {error.owner or 'unknown'}) is already working on {self.out}"
                + (f": see its progress with  quarry status {self.out}" if runs_job else "")
            ) from None
        try:
            lock.record_owner()
            yield
        finally:
            lock.release()

    def named_lock(self, name: str) -> FileLock:
        """Return a lock by the name of a file in the state folder."""
        return FileLock(self.state / f"{name}.lock")

    def holder(self) -> Holder | None:
        """Return the process that has the lock."""
        owner = read_lock_owner(self._lock_path)
        return Holder(owner) if owner else None

    def find_stoppable(self) -> Holder | None:
        """Return the process that runs the job now, for a signal; None if none does.

        Raises InputError if the process of the lock is not the one that has it: another user may have written
        it.
        """
        owner = inspect_lock(self._lock_path)
        if owner is None:
            return None
        if not owner.is_confirmed:
            raise InputError(
                f"{self.out}: its lock names the process {owner.process}, which is not a process of the "
                f"lock's owner ({user_name(owner.user)}), so it gets no signal. If the job runs in a "
                "container or on another computer, stop it there"
            )
        return Holder(owner.process)

    def request_stop(self, holder: Holder, *, cancel: bool) -> None:
        """Send SIGTERM, twice to cancel; raise InputError where the process belongs to another user."""
        try:
            os.kill(holder.process, signal.SIGTERM)
            if cancel:
                time.sleep(_BETWEEN_SIGNALS)
                os.kill(holder.process, signal.SIGTERM)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise InputError(
                f"{self.out}: process {holder.process} belongs to another user, who has to stop this job"
            ) from error

    def write_progress(self, values: Mapping[str, object]) -> None:
        """Write the progress file."""
        # Written every second, and useless after a power cut: it need not be durable.
        with atomic_write_text(self.progress, durable=False) as file:
            json.dump({"process": os.getpid(), "time": time.time(), **values}, file)

    def remove_progress(self) -> None:
        """Remove the progress file."""
        self.progress.unlink(missing_ok=True)

    def read_progress(self) -> object:
        """Read the progress file, which another user may have written."""
        try:
            fd = os.open(self.progress, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as file:
                return json.loads(file.read(_MAX_PROGRESS))
        except (OSError, ValueError, RecursionError):
            return None

    def was_left(self) -> bool:
        """Return True if there is a progress file: a process that ends removes it."""
        return self.progress.is_file()

    def open_audit_log(
        self,
        ledger: Ledger,  # noqa: ARG002 - it is a file
        protocol: str = "",
        on_full: OnFull | None = None,
    ) -> AuditLog:
        """Open audit.csv for appending."""
        return AuditFile(self.audit, protocol, on_full)

    def read_audit(self) -> Iterator[dict[str, str]]:
        """Read audit.csv."""
        return read_audit_file(self.audit)

    def open_checkpoint(self, name: str) -> CheckpointStore:
        """Return files in the state folder."""
        return CheckpointFiles(writable_folder(self), name)

    def export_audit(self) -> None:
        """Do nothing: audit.csv is the log."""

    def require_folder(self) -> None:
        """Do nothing: the record is in the folder."""

    def prepare_record(self, ledger: Ledger) -> None:
        """Do nothing: the files are made when they are written."""

    def signs(self) -> tuple[object, ...]:
        """Return the process of the job, and the times of the files."""
        log = self.ledger.with_name(f"{self.ledger.name}-wal")
        owner = read_lock_owner(self._lock_path)
        return (owner, *map(_modified_at, (self.progress, self.ledger, log)))

    def has_changed_since(self, time_ns: int) -> bool:
        """Compare with the times of the SQLite file and its log, in which alone the last writes may be."""
        log = self.ledger.with_name(f"{self.ledger.name}-wal")
        written = [one.stat() for one in (self.ledger, log) if one.is_file()]
        return not all(time_ns > one.st_mtime_ns for one in written if one.st_size)

    def reject_commands(self, settings: Mapping[str, object], *, trust_owner: bool) -> None:
        """Raise ConfigError for settings with a command, if another user could have written the files."""
        for path in (self.state, self.ledger):
            reject_foreign_commands(settings, path, path.stat(), trust_owner=trust_owner)

    def settings_of_place(self) -> dict[str, object]:
        """Return the output folder alone: the state folder is found again, also where it was moved."""
        return {"to": self.out, "state": None}


def _modified_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def open_local(out: Path, *, check_owner: bool = False, trust_owner: bool = False) -> LocalPlace:
    """Return the place of the job in the output folder ``out``; raise InputError if there is none.

    ``check_owner``: the job will be written to, so that NotOwned is raised for a folder of another user,
    unless ``trust_owner``.
    """
    known = _read_state_pointer(out)
    folder = LocalPlace(out, known or out / ".quarry")
    if check_owner:
        require_own_state(folder, trust_owner=trust_owner)
    if known is not None and not known.is_dir():
        raise InputError(_describe_missing_state(folder))
    if not folder.ledger.is_file() or not has_job(folder.ledger):
        raise InputError(
            f"{out} holds no job: nothing was extracted to this folder, or its state folder was moved"
        )
    return folder


def has_record(out: Path) -> bool:
    """Return True if a folder has, or names, the SQLite record of a job."""
    return any((out / ".quarry" / name).exists() for name in ("ledger.db", _POINTER))


def create_local(out: Path, state: Path | None, *, trust_owner: bool = False) -> LocalPlace:
    """Create the folders of a job, or return those of an earlier run.

    ``state`` is the state folder that the user gave. Raises InputError if the state would be on a network
    file system, in another folder than in the earlier run, or in the state folder of another job; NotOwned,
    before anything is read or written there, if it is a folder of another user, unless ``trust_owner``.
    """
    hidden = out / ".quarry"
    reject_unreadable_name(out.absolute())
    require_own_state(JobFolder(out, hidden), trust_owner=trust_owner)
    known = _read_state_pointer(out)
    if known is not None and state is not None and state.resolve() != known:
        raise InputError(f"this job keeps its state in {known}: leave --state out, or give that folder")
    folder = LocalPlace(out, (known or state or hidden).resolve())
    if known is not None and not known.is_dir():
        raise InputError(_describe_missing_state(folder))
    elsewhere = folder.state != hidden.resolve()
    if known is None and elsewhere and (hidden / "ledger.db").exists():
        raise InputError(f"this job keeps its state in {hidden}: leave --state out")
    if known is None and elsewhere and folder.ledger.exists():
        raise InputError(f"{folder.state} has the state of another job: give another folder with --state")
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (hidden, folder.state, folder.incoming):
            make_private_folder(path)
        require_own_state(folder, trust_owner=trust_owner)
        reject_network_file_system(folder.state, "with --state DIR; the images may stay where they are")
        if known is None and elsewhere:
            _write_state_pointer(hidden, folder.state)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be used: {error.strerror}") from error
    return folder


def reject_unreadable_name(out: Path) -> None:
    """Raise InputError for a path that is not text: reports, messages and settings could not name it."""
    try:
        str(out).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"the name of the folder {escape_text(str(out), limit=300)} is not text in the encoding of this "
            "system: rename it, or give another folder"
        ) from None


def _describe_missing_state(folder: JobFolder) -> str:
    """Return the message about a state folder that is missing; a second record would contradict the first."""
    return (
        f"the job in {folder.out} keeps its record in {folder.state}, which does not exist here (the path is "
        f"in {folder.out / '.quarry' / _POINTER}). Mount that disk, or use the computer that has it"
    )


def _read_state_pointer(out: Path) -> Path | None:
    """Return the state folder of a job that was started with ``--state``, None for any other job."""
    pointer = out / ".quarry" / _POINTER
    try:
        return Path(pointer.read_text(encoding="utf-8").rstrip("\n")) if pointer.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{pointer} cannot be read ({error}): it should have the path of the job's state folder"
        ) from None


def _write_state_pointer(hidden: Path, state: Path) -> None:
    """Record the path of the state folder."""
    with atomic_write_text(hidden / _POINTER) as file:
        file.write(f"{state}\n")
