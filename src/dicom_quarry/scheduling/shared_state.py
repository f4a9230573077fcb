"""State that all jobs of a host share: semaphores and counters, in a folder that all users can write.

A semaphore's slot is a locked file; the kernel releases it when its process ends. The limits bind the users
of Quarry. They do not protect from a program of a user's own, which can query the archive without them.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_quarry.errors import StartError
from dicom_quarry.system.locks import locked, try_lock

#: Seconds between two attempts at a slot.
_POLL_INTERVAL = 0.1

#: Sleeps for so many seconds; raises Stopped when a shutdown is requested.
Sleep = Callable[[float], None]

_NUMBER = struct.Struct("<d")


class HostState:
    """A folder on a local disk, created for all users if it does not exist. Raises StartError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            _create_folder(path)
        except OSError as error:
            raise StartError(
                f"{path}, the folder of the limits that all jobs of this computer share, cannot be used "
                f"({error.strerror}). Its administrator can create it with  install -d -m 1777 {path}"
            ) from error

    @contextmanager
    def semaphore(self, pool: str, limit: int, sleep: Sleep) -> Iterator[None]:
        """Hold one of ``limit`` slots of a pool; sleep until one is free."""
        # Fairness: a waiting job holds the pool's queue lock, so one that releases a slot cannot take it
        # again at once.
        with self._queue_lock(f"{pool}.queue", sleep):
            handle = self._lock_any([f"{pool}.{number}" for number in range(limit)], sleep)
        try:
            yield
        finally:
            os.close(handle)

    def update(self, name: str, compute: Callable[[float], tuple[float, float]]) -> float:
        """Replace a number (0 at first) by the first result of ``compute``; return the second."""
        handle = _open_file(self._path / name)
        try:
            with locked(handle):
                before = os.pread(handle, _NUMBER.size, 0)
                new_value, result = compute(_NUMBER.unpack(before)[0] if len(before) == _NUMBER.size else 0.0)
                os.pwrite(handle, _NUMBER.pack(new_value), 0)
                return result
        finally:
            os.close(handle)

    @contextmanager
    def _queue_lock(self, name: str, sleep: Sleep) -> Iterator[None]:
        handle = self._lock_any([name], sleep)
        try:
            yield
        finally:
            os.close(handle)

    def _lock_any(self, names: list[str], sleep: Sleep) -> int:
        while True:
            for name in names:
                handle = self._try_lock(name)
                if handle is not None:
                    return handle
            sleep(_POLL_INTERVAL)

    def _try_lock(self, name: str) -> int | None:
        handle = _open_file(self._path / name)
        if try_lock(handle):
            return handle
        os.close(handle)
        return None


class LocalCounters:
    """Counters shared by the threads of one job only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, float] = {}

    def update(self, name: str, compute: Callable[[float], tuple[float, float]]) -> float:
        """Replace a number (0 at first) by the first result of ``compute``; return the second."""
        with self._lock:
            self._values[name], result = compute(self._values.get(name, 0.0))
            return result


def _create_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(20, "it is not a folder") from None
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "this user may not write there") from None
    else:
        path.chmod(0o1777)


def _open_file(path: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        _create_file(path)
        return os.open(path, flags)


def _create_file(path: Path) -> None:
    """Create a file that every user may open, with its final permissions from the first moment.

    O_CREAT with the final name does not work: in a folder with the sticky bit the kernel refuses it for files
    of others (fs.protected_regular), and the first user's umask would exclude the others.
    """
    temp_path = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    handle = os.open(temp_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        os.fchmod(handle, 0o666)
        os.link(temp_path, path)
    except FileExistsError:
        pass  # another process created it first
    finally:
        os.close(handle)
        temp_path.unlink()
