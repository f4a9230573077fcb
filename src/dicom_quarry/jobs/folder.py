"""The folders of a job, the lock on them, and the file systems that they may not be on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.errors import InputError, StartError
from dicom_quarry.jobs.internal_errors import is_internal, log_internal
from dicom_quarry.jobs.registry import register
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import has_job
from dicom_quarry.system.atomic_file import atomic_write_text
from dicom_quarry.system.file_systems import file_system_type
from dicom_quarry.system.locks import FileLock, LockHeld, inspect_lock, read_lock_owner
from dicom_quarry.system.log_limit import SafeFileHandler
from dicom_quarry.system.ownership import open_own_file, require_own_folder
from dicom_quarry.system.permissions import Permissions, make_private_folder
from dicom_quarry.system.processes import user_name
from dicom_quarry.system.text_safety import escape_text

#: File systems on which SQLite's locks and shared memory are unreliable (sqlite.org/wal.html).
_NETWORK_TYPES = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "lustre",
    "gpfs",
    "beegfs",
    "pvfs2",
    "orangefs",
    "panfs",
    "coda",
    "davfs",
    "glusterfs",
    "virtiofs",
    "vboxsf",
}

#: FUSE file systems on a local disk; the data of any other may be remote (``fuse.sshfs``, ``fuse.s3fs``).
_LOCAL_FUSE_TYPES = {
    "fuse.bindfs",
    "fuse.encfs",
    "fuse.exfat",
    "fuse.fuse-overlayfs",
    "fuse.gocryptfs",
    "fuse.mergerfs",
    "fuse.ntfs-3g",
}

#: The file in the output folder that contains the path of the state folder.
_POINTER = "state-folder"

#: Folder below the output folder for images whose patient ID or accession differs from the expected one. It
#: is a reserved name, so no value of an image makes it.
MISMATCH_DIR = "mismatch"

#: Seconds to wait for the lock: ``quarry status`` holds it for a moment.
_LOCK_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The folders of a job: ``out`` is the root of the DICOM tree, ``state`` has the ledger and the logs."""

    out: Path
    state: Path

    @property
    def ledger(self) -> Path:
        """The SQLite file."""
        return self.state / "ledger.db"

    @property
    def log(self) -> Path:
        """The job's log, without patient identifiers."""
        return self.state / "quarry.log"

    @property
    def output_log(self) -> Path:
        """The terminal output of a job in the background."""
        return self.state / "output.log"

    @property
    def audit(self) -> Path:
        """The audit log."""
        return self.state / "audit.csv"

    @property
    def progress(self) -> Path:
        """The progress of the running job, for ``quarry status``."""
        return self.state / "progress.json"

    @property
    def incoming(self) -> Path:
        """The folder of instances without a final name yet, on the same file system as the tree."""
        return self.out / ".quarry" / "incoming"


def open_existing(out: Path, *, check_owner: bool = False, trust_owner: bool = False) -> JobFolder:
    """Return the folders of the job in the output folder ``out``; raise InputError if there is none.

    ``check_owner``: the job will be written to, so that NotOwned is raised for a folder of another user,
    unless ``trust_owner``.
    """
    known = _read_state_pointer(out)
    folder = JobFolder(out, known or out / ".quarry")
    if check_owner:
        require_own_state(folder, trust_owner=trust_owner)
    if known is not None and not known.is_dir():
        raise InputError(_describe_missing_state(folder))
    if not folder.ledger.is_file() or not has_job(folder.ledger):
        raise InputError(
            f"{out} holds no job: nothing was extracted to this folder, or its state folder was moved"
        )
    return folder


def open_or_create(out: Path, state: Path | None, *, trust_owner: bool = False) -> JobFolder:
    """Create the folders of a job, or return those of an earlier run.

    ``state`` is the state folder that the user gave. Raises InputError if the state would be on a network
    file system, in another folder than in the earlier run, or in the state folder of another job; NotOwned,
    before anything is read or written there, if it is a folder of another user, unless ``trust_owner``.
    """
    hidden = out / ".quarry"
    _reject_unreadable_name(out.absolute())
    require_own_state(JobFolder(out, hidden), trust_owner=trust_owner)
    known = _read_state_pointer(out)
    if known is not None and state is not None and state.resolve() != known:
        raise InputError(f"this job keeps its state in {known}: leave --state out, or give that folder")
    folder = JobFolder(out, (known or state or hidden).resolve())
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


def require_own_state(folder: JobFolder, *, trust_owner: bool) -> None:
    """Raise NotOwned if another user made the job's hidden folder or its state, or may write there.

    Folders that do not exist are accepted. Raises InputError for one that cannot be opened.
    """
    for path in dict.fromkeys((folder.out / ".quarry", folder.state, folder.incoming)):
        try:
            require_own_folder(path, trust_owner=trust_owner)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InputError(f"{path} cannot be used: {error.strerror}") from error


def _reject_unreadable_name(out: Path) -> None:
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


def apply_access(out: Path, access: Permissions) -> None:
    """Give the output folder the permissions of the settings; the state in it stays private.

    Raises InputError if the file system, or the folder's owner, does not allow it.
    """
    if access.is_private:
        return
    try:
        fd = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            access.apply_to_folder(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise InputError(
            f"{out} cannot get the permissions of --file-mode and --group ({error.strerror}): leave these "
            "options out, or use a folder on another file system"
        ) from error


def reject_network_file_system(state: Path, remedy: str) -> None:
    """Raise InputError, with the remedy, if a folder is on a network file system."""
    kind = file_system_type(state)
    if kind in _NETWORK_TYPES or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE_TYPES):
        raise InputError(
            f"{state} is on a network file system ({kind}), where the job's record could be damaged: "
            f"keep the record on a local disk {remedy}"
        )


@contextmanager
def job_lock(folder: JobFolder, *, runs_job: bool = True) -> Iterator[None]:
    """Hold the folder's lock; raise StartError if another process has it. A crash releases it.

    ``runs_job``: the process with the lock runs a job, whose status can be read.
    """
    lock = FileLock(_lock_path(folder))
    try:
        lock.acquire(_LOCK_TIMEOUT)
    except LockHeld as error:
        raise StartError(
            f"another quarry (process {error.owner or 'unknown'}) is already working on {folder.out}"
            + (f": see its progress with  quarry status {folder.out}" if runs_job else "")
        ) from None
    try:
        lock.record_owner()
        yield
    finally:
        lock.release()


def lock_owner(folder: JobFolder) -> int | None:
    """Return the ID of the process that runs the job now, None if none does."""
    return read_lock_owner(_lock_path(folder))


def confirmed_lock_owner(folder: JobFolder) -> int | None:
    """Return the ID of the process that runs the job now, for a signal; None if none does.

    Raises InputError if the process of the lock is not the one that has it: another user may have written it.
    """
    owner = inspect_lock(_lock_path(folder))
    if owner is None:
        return None
    if not owner.is_confirmed:
        raise InputError(
            f"{folder.out}: its lock names the process {owner.process}, which is not a process of the lock's "
            f"owner ({user_name(owner.user)}), so it gets no signal. If the job runs in a container or on "
            "another computer, stop it there"
        )
    return owner.process


def _lock_path(folder: JobFolder) -> Path:
    return folder.state / "lock"


def open_log_file(path: Path) -> SafeFileHandler:
    """Open a log for appending, readable by its owner only. Raises NotOwned for a file of another user."""
    fd = open_own_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if os.fstat(fd).st_uid == os.geteuid():
        os.fchmod(fd, 0o600)
    return SafeFileHandler(os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace"))


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write Quarry's log to a file, readable by its owner only, while the context lasts.

    The trace of an internal error that ends the context is logged.
    """
    handler = open_log_file(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("dicom_quarry")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    except Exception as error:
        if is_internal(error):
            log_internal(error, path)
        raise
    finally:
        root.removeHandler(handler)
        handler.close()


@contextmanager
def open_for_run(
    folder: JobFolder, *, prepare: Callable[[], object] = lambda: None, is_plan: bool = False
) -> Iterator[Ledger]:
    """Open a job's record for one run: lock the folder, log to it, register the job, open the ledger.

    ``prepare`` runs under the lock, before the ledger is opened, and may replace the ledger. A plan is not
    registered. Raises StartError while another process has the folder, and LedgerError.
    """
    with job_lock(folder, runs_job=not is_plan), logging_to(folder.log):
        if not is_plan:
            register(folder.out)
        prepare()
        with closing(Ledger(folder.ledger)) as ledger:
            yield ledger
