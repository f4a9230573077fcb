"""The state that all jobs of a host share: slots and numbers, in a folder that all users can write.

A slot is a locked file; the kernel releases it when its process ends. The limits bind the users of Quarry.
They do not protect from a program of a user's own, which can query the archive without them, or hold a lock
and so keep the jobs of others waiting: a message then names the file and the process.

No open and no lock blocks: every wait is a sleep of the job's own, which ends with its shutdown.
"""

from __future__ import annotations

import math
import os
import stat
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from dicom_quarry.errors import OperatorActionRequired, StartError
from dicom_quarry.scheduling.shared_state import (
    Clock,
    KeptSlot,
    Numbers,
    ProcessState,
    SharedState,
    Sleep,
    Slot,
)
from dicom_quarry.system.locks import find_holder, try_lock
from dicom_quarry.system.ownership import describe_kind
from dicom_quarry.system.processes import process_owner, user_name

#: Seconds between two attempts at a slot.
_POLL_INTERVAL = 0.1

T = TypeVar("T")

#: Used if the site's folder cannot be. The name is fixed, as TMPDIR may differ from user to user.
FALLBACK_FOLDER = Path("/tmp/.quarry-jobs")

#: The size of a number in a file, and the most numbers in one.
_NUMBER_SIZE = 8
_MAX_NUMBERS = 16

#: Tries for the lock on numbers, and seconds between two.
_LOCK_TRIES = 600
_LOCK_INTERVAL = 0.05

#: Seconds for which the holder of a slot is remembered.
_HOLDER_SECONDS = 5.0


class HostState:
    """A folder on a local disk, created for all users if it does not exist. Raises StartError.

    ``sleep`` is the wait for numbers that another process changes. All methods raise OperatorActionRequired
    for a file that cannot be used: another user may have put something else there.
    """

    def __init__(
        self,
        path: Path,
        sleep: Sleep = time.sleep,
        clock: Clock = Clock(),  # noqa: B008 (frozen)
    ) -> None:
        self.clock = clock
        self._path = path
        self._sleep = sleep
        self._holders: dict[str, tuple[float, str]] = {}
        try:
            _create_folder(path)
        except OSError as error:
            raise StartError(
                f"{path}, the folder of the limits that all jobs of this computer share, cannot be used "
                f"({error.strerror}). Its administrator can create it with  install -d -m 1777 {path}"
            ) from error

    @contextmanager
    def slot(self, pool: str, limit: int, sleep: Sleep) -> Iterator[Slot]:
        """Hold one of ``limit`` slots of a pool; sleep until one is free."""
        # Fairness: a waiting job holds the pool's queue lock, so one that releases a slot cannot take it
        # again at once.
        with self._queue_lock(f"{pool}.queue", sleep):
            handle = self._lock_any([f"{pool}.{number}" for number in range(limit)], sleep)
        try:
            yield KeptSlot()
        finally:
            os.close(handle)

    def update(self, name: str, compute: Callable[[Numbers], tuple[Numbers, T]]) -> T:
        """Replace the numbers under a name by the first result of ``compute``; return the second."""
        path = self._path / name
        handle = _open_file(path)
        try:
            self._lock_numbers(handle, path)
            values, result = compute(_read_numbers(handle, path))
            os.pwrite(handle, struct.pack(f"<{len(values)}d", *values), 0)
            return result
        except OSError as error:
            raise _unusable(path, f"cannot be written ({error.strerror})") from error
        finally:
            os.close(handle)

    def read(self, name: str) -> Numbers:
        """Return the numbers under a name; makes no file, and waits for no lock: one write is all of them."""
        path = self._path / name
        if not path.exists():
            return ()
        handle = _open_file(path)
        try:
            return _read_numbers(handle, path)
        finally:
            os.close(handle)

    def describe_holder(self, pool: str) -> str:
        """Return the process that keeps others from a pool, as far as the kernel shows it, and the file."""
        now = time.monotonic()
        seen_at, text = self._holders.get(pool, (float("-inf"), ""))
        if now - seen_at < _HOLDER_SECONDS:
            return text
        path = self._path / f"{pool}.0"
        handle = _open_file(path)
        try:
            text = f"{path} is held by {_describe_process(find_holder(handle))}"
        finally:
            os.close(handle)
        self._holders[pool] = now, text
        return text

    def _lock_numbers(self, handle: int, path: Path) -> None:
        """Lock numbers; another job has them for a moment only."""
        for _ in range(_LOCK_TRIES):
            if try_lock(handle):
                return
            self._sleep(_LOCK_INTERVAL)
        holder = _describe_process(find_holder(handle))
        seconds = round(_LOCK_TRIES * _LOCK_INTERVAL)
        raise _unusable(path, f"has been locked for {seconds} s by {holder}")

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


def usable_folder(shared_folder: Path) -> Path:
    """Return the site's folder, or the fallback where that cannot be used; raise StartError."""
    try:
        HostState(shared_folder)
    except StartError:
        HostState(FALLBACK_FOLDER)
        return FALLBACK_FOLDER
    return shared_folder


def open_host_state(shared_folder: Path, sleep: Sleep, *, is_required: bool) -> SharedState:
    """Return the state of this host; ``is_required``: it has limits that must not be lost. Raises StartError.

    Where there are none, a job goes on without the state of others if no folder can be used.
    """
    if is_required:
        return HostState(shared_folder, sleep)
    try:
        return HostState(usable_folder(shared_folder), sleep)
    except StartError:
        return ProcessState()


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


def _read_numbers(handle: int, path: Path) -> Numbers:
    """Return the numbers of a file, none if it is damaged; raises OperatorActionRequired."""
    data = os.pread(handle, _MAX_NUMBERS * _NUMBER_SIZE, 0)
    count, rest = divmod(len(data), _NUMBER_SIZE)
    numbers: Numbers = () if rest else struct.unpack(f"<{count}d", data)
    if not all(map(math.isfinite, numbers)):
        raise _unusable(path, "has no number that Quarry wrote")
    return numbers


def _open_file(path: Path) -> int:
    """Open a file of the folder, and create it if necessary; raise OperatorActionRequired."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            handle = os.open(path, flags)
        except FileNotFoundError:
            _create_file(path)
            handle = os.open(path, flags)
    except OSError as error:
        raise _unusable(path, _describe_kind(path) or f"cannot be opened ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _unusable(path, _describe_kind(path) or "is not a file")
    return handle


def _describe_kind(path: Path) -> str:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return ""
    return "" if stat.S_ISREG(mode) else f"is {describe_kind(mode)}"


def _unusable(path: Path, problem: str) -> OperatorActionRequired:
    """Return the error that names a file, its owner, and the action of the administrator."""
    try:
        owner = f" It belongs to the user {user_name(path.lstat().st_uid)}."
    except OSError:
        owner = ""
    return OperatorActionRequired(
        f"{path}, a file of the limits that all jobs of this computer share, {problem}.{owner} The "
        f"administrator of this computer can end that process, or remove the file with  rm -r {path}"
    )


def _describe_process(pid: int | None) -> str:
    owner = process_owner(pid) if pid else None
    return f"process {pid} of the user {owner}" if owner else "a process that the system does not show"


def _create_file(path: Path) -> None:
    """Create a file that every user may open, with its final permissions from the first moment.

    O_CREAT with the final name does not work: in a folder with the sticky bit the kernel refuses it for files
    of others (fs.protected_regular), and the first user's umask would exclude the others.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temp_path = Path(name)
    try:
        os.fchmod(handle, 0o666)
        os.link(temp_path, path)
    except FileExistsError:
        pass  # another process created it first
    finally:
        os.close(handle)
        temp_path.unlink()
