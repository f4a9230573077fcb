"""Locks on files (flock), between processes and threads. The kernel releases a lock when its process ends."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dicom_quarry.errors import QuarryError
from dicom_quarry.system.ownership import open_own_file
from dicom_quarry.system.processes import process_runs_as

#: Seconds between two attempts at a lock that another process has.
_POLL_INTERVAL = 0.02


class LockHeld(QuarryError):
    """Another process has the lock; ``owner`` is its process ID, None if it did not record one."""

    def __init__(self, path: Path, owner: int | None) -> None:
        super().__init__(f"{path} is locked by another process")
        self.owner = owner


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Lock an open file without waiting; return False if another process has it. Closing the file unlocks it.

    A shared lock excludes exclusive ones only.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(fd: int) -> Iterator[None]:
    """Wait for an exclusive lock on an open file, and hold it while the context lasts. Raises OSError."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


class FileLock:
    """An exclusive lock by the name of a file, which is created if needed, readable by its owner only.

    As a context manager it waits for the lock as long as it takes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self, timeout: float | None = None) -> None:
        """Wait up to ``timeout`` seconds for the lock, None for ever; raise LockHeld then.

        Raises NotOwned for a file of another user, and OSError.
        """
        fd = open_own_file(self._path, os.O_RDWR | os.O_CREAT)
        try:
            if timeout is None:
                fcntl.flock(fd, fcntl.LOCK_EX)
            elif not _lock_within(fd, timeout):
                raise LockHeld(self._path, _read_owner(fd))
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def record_owner(self) -> None:
        """Write this process's ID into the file, for ``read_lock_owner``. Raises OSError."""
        assert self._fd is not None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back, if this has it."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


@dataclass(frozen=True, slots=True)
class LockOwner:
    """The process ID in a lock that is held, and the user that the file belongs to.

    ``is_confirmed``: the process has the lock, or is at least a process of that user. Otherwise the number
    may have been written to have another process ended.
    """

    process: int
    user: int
    is_confirmed: bool


def read_lock_owner(path: Path) -> int | None:
    """Return the ID of the process that has the lock; None if the lock is free, or the owner not recorded."""
    owner = inspect_lock(path)
    return owner.process if owner else None


def inspect_lock(path: Path) -> LockOwner | None:
    """Return the recorded owner of a lock; None if the lock is free, or the owner not recorded.

    The lock is held for a moment to find out, shared, so that several readers do not exclude each other.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or try_lock(fd, shared=True):
            return None
        process = _read_owner(fd)
        if not process:
            return None
        is_confirmed = find_holder(fd) == process or process_runs_as(process, found.st_uid)
        return LockOwner(process, found.st_uid, is_confirmed)
    finally:
        os.close(fd)


def find_holder(fd: int) -> int | None:
    """Return the process that has a lock on an open file, as the kernel knows it; None if it does not tell.

    The kernel names no process of another container, and no process on another computer.
    """
    found = os.fstat(fd)
    name = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        # "1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF"; a line with "->" is a process that waits
        if len(words) >= 6 and words[1] == "FLOCK" and words[5] == name:
            return int(words[4]) if words[4].isdigit() and int(words[4]) > 0 else None
    return None


def _lock_within(fd: int, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not try_lock(fd):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_INTERVAL)
    return True


def _read_owner(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    return int(text) if text.isascii() and text.isdigit() else None
