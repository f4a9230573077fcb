"""The folders of a job: where its state is, who holds it, and which file systems will not do."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.errors import InputError, StartError
from dicom_quarry.ledger.reading import was_begun

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
    "fuse.sshfs",
}


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
    def progress(self) -> Path:
        """What the running job says of itself, for ``quarry status``."""
        return self.state / "progress.json"

    @property
    def incoming(self) -> Path:
        """Where instances are written before they get their names: on the same file system as the tree."""
        return self.out / ".quarry" / "incoming"


def existing(out: Path) -> JobFolder:
    """The job that was started with ``--to out``; raises InputError if there is none."""
    hidden = out / ".quarry"
    pointer = hidden / "state-folder"
    state = Path(pointer.read_text(encoding="utf-8").strip()) if pointer.is_file() else hidden
    folder = JobFolder(out, state)
    if not folder.ledger.is_file() or not was_begun(folder.ledger):
        raise InputError(
            f"{out} holds no job: nothing was extracted to this folder, or its state was moved away"
        )
    return folder


def prepare(out: Path, state: Path | None) -> JobFolder:
    """Make the folders of a job, or find those of an earlier run.

    Raises InputError if the state would be on a network file system, or elsewhere than in the earlier run.
    """
    hidden = out / ".quarry"
    pointer = hidden / "state-folder"
    if pointer.is_file():
        known = Path(pointer.read_text(encoding="utf-8").strip())
        if state is not None and state.resolve() != known:
            raise InputError(f"this job keeps its state in {known}; leave --state out, or name that folder")
        state = known
    folder = JobFolder(out, (state or hidden).resolve())
    try:
        for path in (out, hidden, folder.state, folder.incoming):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.state != hidden.resolve() and not pointer.is_file():
            if (hidden / "ledger.db").exists():
                raise InputError(f"this job keeps its state in {hidden}; leave --state out")
            pointer.write_text(f"{folder.state}\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{error.filename} cannot be used: {error.strerror}") from error
    kind = file_system(folder.state)
    if kind in _NETWORK:
        raise InputError(
            f"{folder.state} is on a network file system ({kind}), where the job's record could be damaged: "
            "keep the record on a local disk with --state DIR; the images may stay where they are"
        )
    return folder


def file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The file system that a folder is on, such as ``ext4`` or ``nfs4``; empty where it cannot be told."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    target = path.resolve()
    best, kind = -1, ""
    for line in lines:
        _, point, type_, *_ = line.split(" ")
        mount = Path(point.encode().decode("unicode_escape"))
        # Of two mounts on one point the later hides the earlier.
        if (target == mount or mount in target.parents) and len(mount.parts) >= best:
            best, kind = len(mount.parts), type_
    return kind


@contextmanager
def held(folder: JobFolder) -> Iterator[None]:
    """Hold the job alone; raises StartError if another process runs it. A crash lets go by itself."""
    handle = os.open(folder.state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            raise StartError(
                f"another quarry (process {holder or 'unknown'}) is already working on {folder.out}: "
                f"watch it with  quarry status {folder.out}"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def holder(folder: JobFolder) -> int | None:
    """The process that runs the job now, None if nobody does."""
    try:
        handle = os.open(folder.state / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(handle)
    return None
