"""The queue for a port: the jobs of this host that have or want it, of all users, first come, first served.

A job registers an entry: a file in a folder that all users can write, named by the port and a number that
grows with time. The job keeps the file locked, so the entry of a job that was killed is stale.

Another user could write anything there. Only the owner of a file is trusted, as the kernel gives it. Texts
are made printable and cut; a process is shown only if it belongs to that owner.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.errors import PortInUse, StartError
from dicom_quarry.model import AE
from dicom_quarry.scheduling.host_state import usable_folder
from dicom_quarry.system.durations import format_duration
from dicom_quarry.system.locks import try_lock
from dicom_quarry.system.processes import process_runs_as, user_name
from dicom_quarry.system.shutdown import Shutdown
from dicom_quarry.system.text_safety import escape_text

_ENTRY_NAME = re.compile(r"port\.(\d{1,5})\.(\d{1,20})", re.ASCII)
_ENTRY_SIZE = 2048
_MAX_TEXT = 300
_YEAR = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class PortEntry:
    """A job that has a port or, if ``queued``, wants it.

    ``host`` is the address that it listens on, empty for all; ``folder`` its output folder. ``process`` is
    None if it cannot be verified, ``seconds_left`` if there is no estimate.
    """

    number: int
    host: str
    folder: str
    process: int | None
    user: str
    queued: bool
    seconds_left: float | None = None


@dataclass(slots=True)
class OwnPortEntry:
    """The entry of this process, which can update it."""

    number: int
    _handle: int
    _values: dict[str, object]

    def update(self, *, queued: bool | None = None, seconds_left: float | None = None) -> None:
        """Write the state of the job, and the estimate of the seconds that it needs."""
        self._values["seconds_left"] = seconds_left
        if queued is not None:
            self._values["queued"] = queued
        text = json.dumps(self._values, ensure_ascii=False).encode("utf-8", "replace")
        os.pwrite(self._handle, text.ljust(_ENTRY_SIZE), 0)


class PortRegistry:
    """The entries for one port. Raises StartError if no folder for them can be used."""

    def __init__(self, shared_folder: Path, port: int) -> None:
        self._folder = usable_folder(shared_folder)
        self._port = port

    @contextmanager
    def register(self, host: str, folder: Path, *, queued: bool) -> Iterator[OwnPortEntry]:
        """Register this job while the context lasts."""
        handle, name = tempfile.mkstemp(prefix=".port.", dir=self._folder)
        temp_path = Path(name)
        try:
            # Locked while no other user can open it, so that none can have the lock.
            try_lock(handle)
            os.fchmod(handle, 0o644)
            values = {"host": host, "folder": str(folder.resolve())[:_MAX_TEXT], "process": os.getpid()}
            own_entry = OwnPortEntry(0, handle, values)
            own_entry.update(queued=queued)
            # Named only now: other jobs would take an entry that is not locked for stale.
            own_entry.number = self._link(temp_path)
            try:
                yield own_entry
            finally:
                self._path(own_entry.number).unlink(missing_ok=True)
        finally:
            temp_path.unlink(missing_ok=True)
            os.close(handle)

    def active(self) -> list[PortEntry]:
        """Return the entries for the port whose jobs run, in order."""
        found = [entry for port, _, entry in self._entries() if entry and port == self._port]
        return sorted(found, key=lambda entry: entry.number)

    def remove_stale(self) -> None:
        """Remove the entries of killed jobs, also for other ports, except those of other users."""
        for _, path, entry in self._entries():
            if entry is None:
                with suppress(OSError):
                    path.unlink()

    def _entries(self) -> Iterator[tuple[int, Path, PortEntry | None]]:
        for path in self._folder.iterdir():
            name = _ENTRY_NAME.fullmatch(path.name)
            if name:
                with suppress(OSError):
                    yield int(name[1]), path, _read_entry(path, int(name[2]))

    def _link(self, temp_path: Path) -> int:
        while True:
            number = time.monotonic_ns()  # the same clock in all processes, and never set
            try:
                os.link(temp_path, self._path(number))
            except FileExistsError:
                continue
            temp_path.unlink()
            return number

    def _path(self, number: int) -> Path:
        return self._folder / f"port.{self._port}.{number}"


def _read_entry(path: Path, number: int) -> PortEntry | None:
    """Read an entry; return None if it is stale. Raises OSError for anything else than a file."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("not a file")
        if try_lock(handle, shared=True):
            return None
        return _parse_entry(os.pread(handle, _ENTRY_SIZE, 0), number, found.st_uid)
    finally:
        os.close(handle)


def _parse_entry(data: bytes, number: int, owner: int) -> PortEntry:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    values = values if isinstance(values, dict) else {}
    host, folder, seconds_left = values.get("host"), values.get("folder"), values.get("seconds_left")
    return PortEntry(
        number=number,
        host=escape_text(host, limit=64) if isinstance(host, str) else "",
        folder=escape_text(folder, limit=_MAX_TEXT) if isinstance(folder, str) else "an unknown folder",
        process=_verify_process(values.get("process"), owner),
        user=user_name(owner),
        queued=values.get("queued") is True,
        seconds_left=seconds_left
        if isinstance(seconds_left, int | float) and 0 <= seconds_left < _YEAR
        else None,
    )


def _verify_process(pid: object, owner: int) -> int | None:
    return pid if isinstance(pid, int) and pid > 0 and process_runs_as(pid, owner) else None


#: Seconds between two checks of the queue.
_POLL_INTERVAL = 0.25

#: Seconds that the port of a job that has just ended may take to become free.
_RELEASE_TIMEOUT = 2.0


class PortQueue:
    """Acquires a port for a job; ``shared_folder`` has the entries of all jobs of this host.

    ``queue``: wait while another job has the port; ``on_wait`` gets the reason, several times a second.
    """

    def __init__(
        self,
        local: AE,
        out: Path,
        shared_folder: Path,
        shutdown: Shutdown,
        *,
        queue: bool,
        on_wait: Callable[[str], None],
    ) -> None:
        self._local = local
        self._out = out
        self._shared_folder = shared_folder
        self._shutdown = shutdown
        self._queue = queue
        self._on_wait = on_wait
        self._registry: PortRegistry | None = None
        self._own_entry: OwnPortEntry | None = None

    @contextmanager
    def acquire(self, listen: Callable[[], None]) -> Iterator[None]:
        """Acquire the port with ``listen``, and show other jobs who has it while the context lasts.

        Raises StartError, and Stopped if a shutdown is requested while the job is queued.
        """
        with ExitStack() as stack:
            try:
                self._registry = PortRegistry(self._shared_folder, self._local.port)
                self._registry.remove_stale()
                registration = self._registry.register(self._local.host, self._out, queued=self._queue)
                self._own_entry = stack.enter_context(registration)
            except (StartError, OSError):
                # Without an entry the job can run, but not queue.
                if self._queue:
                    raise
            if self._queue:
                self._acquire_in_turn(listen)
            else:
                self._acquire_now(listen)
            try:
                yield
            finally:
                self._own_entry = None

    def update_time_left(self, seconds_left: float | None) -> None:
        """Show the queued jobs how many seconds this job still needs."""
        if self._own_entry is not None:
            self._own_entry.update(seconds_left=seconds_left)

    def _acquire_now(self, listen: Callable[[], None]) -> None:
        try:
            listen()
        except PortInUse as error:
            owner = _find_owner(self._competing_entries())
            if owner is None:
                raise
            raise StartError(
                f"port {self._local.port} is held by another job, {_describe(owner)}: "
                "start with --queue to run after it, or receive on another port"
            ) from error

    def _acquire_in_turn(self, listen: Callable[[], None]) -> None:
        assert self._own_entry is not None
        unknown_owner_since = None
        while True:
            others = self._competing_entries()
            earlier = sum(one.queued and one.number < self._own_entry.number for one in others)
            owner = _find_owner(
                [one for one in others if not one.queued or one.number < self._own_entry.number]
            )
            if not earlier:
                try:
                    listen()
                except PortInUse:
                    unknown_owner_since = None if owner else unknown_owner_since or time.monotonic()
                    if unknown_owner_since and time.monotonic() - unknown_owner_since > _RELEASE_TIMEOUT:
                        raise
                else:
                    self._own_entry.update(queued=False)
                    return
            self._on_wait(self._describe_wait(owner, earlier))
            self._shutdown.wait_unless_stopping(_POLL_INTERVAL)

    def _competing_entries(self) -> list[PortEntry]:
        """Return the entries of running jobs whose address conflicts with that of this job."""
        if self._registry is None:
            return []
        own_number = self._own_entry.number if self._own_entry else 0
        hosts = {self._local.host, ""}
        return [
            one
            for one in self._registry.active()
            if one.number != own_number and (one.host in hosts or not self._local.host)
        ]

    def _describe_wait(self, owner: PortEntry | None, earlier: int) -> str:
        text = f"port {self._local.port}"
        if owner is not None:
            text += f", held by the job {_describe(owner)}"
        if earlier > 1 or (earlier and owner and not owner.queued):
            text += f"; queued before this one: {earlier}"
        return text


def _find_owner(candidates: list[PortEntry]) -> PortEntry | None:
    """Return the job that has the port; one that was queued may not have updated its entry yet."""
    return min(candidates, key=lambda one: (one.queued, one.number), default=None)


def _describe(entry: PortEntry) -> str:
    process = f", process {entry.process}" if entry.process else ""
    left = f", {format_duration(entry.seconds_left)} left" if entry.seconds_left is not None else ""
    return f"{entry.folder} (user {entry.user}{process}{left})"
