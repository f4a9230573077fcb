"""The folders of a job: where its state is, who holds it, and which file systems will not do."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.errors import InputError, StartError
from dicom_quarry.ledger.reader import has_job
from dicom_quarry.system.atomic_file import atomic_write_text
from dicom_quarry.system.file_systems import file_system_type
from dicom_quarry.system.locks import FileLock, LockHeld, read_lock_owner
from dicom_quarry.system.permissions import Permissions

#: File systems over which SQLite's locks and shared memory cannot be trusted (sqlite.org/wal.html).
_NETWORK = {
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

#: FUSE file systems that are on a local disk; any other may be anywhere (``fuse.sshfs``, ``fuse.s3fs``).
_LOCAL_FUSE = {
    "fuse.bindfs",
    "fuse.encfs",
    "fuse.exfat",
    "fuse.fuse-overlayfs",
    "fuse.gocryptfs",
    "fuse.mergerfs",
    "fuse.ntfs-3g",
}

#: The file in the output folder that says where the state is.
_POINTER = "state-folder"

#: Seconds in which ``quarry status``, which looks at the lock for a moment, lets go of it.
_LOCK_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class JobFolder:
    """``out`` is the DICOM tree's root; ``state`` holds the ledger and the log, on a local disk."""

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
        """What a job in the background says, as it would on a terminal that is not one."""
        return self.state / "output.log"

    @property
    def audit(self) -> Path:
        """Who took what, and when."""
        return self.state / "audit.csv"

    @property
    def progress(self) -> Path:
        """What the running job says of itself, for ``quarry status``."""
        return self.state / "progress.json"

    @property
    def incoming(self) -> Path:
        """Where instances are written before they get their names: on the same file system as the tree."""
        return self.out / ".quarry" / "incoming"


def open_existing(out: Path) -> JobFolder:
    """The job that was started with ``--to out``; raises InputError if there is none."""
    known = _read_state_pointer(out)
    folder = JobFolder(out, known or out / ".quarry")
    if known is not None and not known.is_dir():
        raise InputError(_describe_missing_state(folder))
    if not folder.ledger.is_file() or not has_job(folder.ledger):
        raise InputError(
            f"{out} holds no job: nothing was extracted to this folder, or its state was moved away"
        )
    return folder


def open_or_create(out: Path, state: Path | None) -> JobFolder:
    """Make the folders of a job, or find those of an earlier run.

    Raises InputError if the state would be on a network file system, elsewhere than in the earlier run, or
    where another job has its own.
    """
    hidden = out / ".quarry"
    known = _read_state_pointer(out)
    if known is not None and state is not None and state.resolve() != known:
        raise InputError(f"this job keeps its state in {known}; leave --state out, or name that folder")
    folder = JobFolder(out, (known or state or hidden).resolve())
    if known is not None and not known.is_dir():
        raise InputError(_describe_missing_state(folder))
    elsewhere = folder.state != hidden.resolve()
    if known is None and elsewhere and (hidden / "ledger.db").exists():
        raise InputError(f"this job keeps its state in {hidden}; leave --state out")
    if known is None and elsewhere and folder.ledger.exists():
        raise InputError(f"{folder.state} has the state of another job: name another folder with --state")
    try:
        for path in (out, hidden, folder.state, folder.incoming):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        reject_network_file_system(folder.state, "with --state DIR; the images may stay where they are")
        if known is None and elsewhere:
            _write_state_pointer(hidden, folder.state)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be used: {error.strerror}") from error
    return folder


def _describe_missing_state(folder: JobFolder) -> str:
    """What to say of a record that is elsewhere, and not there: no other may be begun beside the images."""
    return (
        f"the job in {folder.out} keeps its record in {folder.state}, which is not there: mount that disk, "
        f"or work on the computer that has it ({folder.out / '.quarry' / _POINTER} says where it is)"
    )


def _read_state_pointer(out: Path) -> Path | None:
    """Where the state of a job is that was started with ``--state``."""
    pointer = out / ".quarry" / _POINTER
    return Path(pointer.read_text(encoding="utf-8").rstrip("\n")) if pointer.is_file() else None


def _write_state_pointer(hidden: Path, state: Path) -> None:
    """Remember where the state is; whole or not at all, as a crash may come at any moment."""
    with atomic_write_text(hidden / _POINTER) as file:
        file.write(f"{state}\n")


def apply_access(out: Path, access: Permissions) -> None:
    """Let colleagues enter the folder of a job; the state in it stays for its owner alone.

    Raises InputError where the file system, or the folder's owner, does not allow it.
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
            f"{out} cannot be given the mode and group that --file-mode and --group ask for "
            f"({error.strerror}): leave them out, or take a folder on another file system"
        ) from error


def reject_network_file_system(state: Path, remedy: str) -> None:
    """Raises InputError for a folder on a network file system, with the remedy."""
    kind = file_system_type(state)
    if kind in _NETWORK or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE):
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
            + (f": watch it with  quarry status {folder.out}" if runs_job else "")
        ) from None
    try:
        lock.record_owner()
        yield
    finally:
        lock.release()


def lock_owner(folder: JobFolder) -> int | None:
    """Return the ID of the process that runs the job now, None if none does."""
    return read_lock_owner(_lock_path(folder))


def _lock_path(folder: JobFolder) -> Path:
    return folder.state / "lock"


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Quarry's log goes to a file in the state folder for as long as this lasts."""
    handler = logging.FileHandler(path, encoding="utf-8")
    path.chmod(0o600)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("dicom_quarry")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
