"""Which jobs of this host want a port, whoever runs them, in the order in which they came.

A ticket is a file in a folder that all users may write. Its name has the port and the moment at which it was
drawn, and it is locked (flock) for as long as its job lives: the ticket of a job that was killed is void.

Another user could have written anything there. Of a file its owner is believed, which the kernel tells, and
nothing else: texts are made printable and cut, and a process is only named if it belongs to that owner.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.cohort.cell_values import visible
from dicom_quarry.errors import StartError
from dicom_quarry.scheduling.shared_state import SharedFolder

#: Where the shared folder of the site cannot be used. The name is fixed: TMPDIR may differ from user to user.
_ELSEWHERE = Path("/tmp/.quarry-jobs")

_NAME = re.compile(r"port\.(\d{1,5})\.(\d{1,20})", re.ASCII)
_SIZE = 2048
_SHOWN = 300
_YEAR = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """A job that has a port or, ``queued``, wants it. ``host`` is the address it listens on, empty for all.

    ``process`` is None where it cannot be told for sure, ``seconds_left`` where the job does not know.
    """

    number: int
    host: str
    folder: str
    process: int | None
    user: str
    queued: bool
    seconds_left: float | None = None


@dataclass(slots=True)
class OwnTicket:
    """A ticket of this process; what it says can be changed."""

    number: int
    _handle: int
    _said: dict[str, object]

    def tell(self, *, queued: bool | None = None, seconds_left: float | None = None) -> None:
        """Whether the job still waits, and how long it will need."""
        self._said["seconds_left"] = seconds_left
        if queued is not None:
            self._said["queued"] = queued
        text = json.dumps(self._said, ensure_ascii=False).encode("utf-8", "replace")
        os.pwrite(self._handle, text.ljust(_SIZE), 0)


class Tickets:
    """The tickets for one port. Raises StartError if there is no folder for them."""

    def __init__(self, shared: Path, port: int) -> None:
        self._folder = _usable(shared)
        self._port = port

    @contextmanager
    def drawn(self, host: str, folder: Path, *, queued: bool) -> Iterator[OwnTicket]:
        """Hold a ticket for as long as this lasts."""
        handle, beside = tempfile.mkstemp(prefix=".port.", dir=self._folder)
        try:
            os.fchmod(handle, 0o644)
            fcntl.flock(handle, fcntl.LOCK_EX)
            where = str(folder.resolve())[:_SHOWN]
            mine = OwnTicket(0, handle, {"host": host, "folder": where, "process": os.getpid()})
            mine.tell(queued=queued)
            # It gets its name only now, so that nobody takes it for void.
            mine.number = self._linked(Path(beside))
            try:
                yield mine
            finally:
                self._path(mine.number).unlink(missing_ok=True)
        finally:
            Path(beside).unlink(missing_ok=True)
            os.close(handle)

    def living(self) -> list[Ticket]:
        """Every ticket for the port whose job lives, in order."""
        found = [ticket for port, _, ticket in self._all() if ticket and port == self._port]
        return sorted(found, key=lambda ticket: ticket.number)

    def sweep(self) -> None:
        """Remove what killed jobs have left, also at other ports, as far as it is ours to remove."""
        for _, path, ticket in self._all():
            if ticket is None:
                with suppress(OSError):
                    path.unlink()

    def _all(self) -> Iterator[tuple[int, Path, Ticket | None]]:
        for path in self._folder.iterdir():
            name = _NAME.fullmatch(path.name)
            if name:
                with suppress(OSError):
                    yield int(name[1]), path, _read(path, int(name[2]))

    def _linked(self, beside: Path) -> int:
        while True:
            number = time.monotonic_ns()  # one clock for all processes, and it is never set
            try:
                os.link(beside, self._path(number))
            except FileExistsError:
                continue
            beside.unlink()
            return number

    def _path(self, number: int) -> Path:
        return self._folder / f"port.{self._port}.{number}"


def _usable(shared: Path) -> Path:
    try:
        SharedFolder(shared)
    except StartError:
        SharedFolder(_ELSEWHERE)
        return _ELSEWHERE
    return shared


def _read(path: Path, number: int) -> Ticket | None:
    """A ticket, None if it is void. Raises OSError for what is none."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("not a file")
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _parsed(os.pread(handle, _SIZE, 0), number, found.st_uid)
        return None
    finally:
        os.close(handle)


def _parsed(data: bytes, number: int, owner: int) -> Ticket:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        said = None
    said = said if isinstance(said, dict) else {}
    host, folder, left = said.get("host"), said.get("folder"), said.get("seconds_left")
    return Ticket(
        number=number,
        host=visible(host, limit=64) if isinstance(host, str) else "",
        folder=visible(folder, limit=_SHOWN) if isinstance(folder, str) else "an unknown folder",
        process=_process(said.get("process"), owner),
        user=_user(owner),
        queued=said.get("queued") is True,
        seconds_left=left if isinstance(left, int | float) and 0 <= left < _YEAR else None,
    )


def _process(said: object, owner: int) -> int | None:
    if isinstance(said, int) and said > 0:
        with suppress(OSError, ValueError):
            return said if Path(f"/proc/{said}").stat().st_uid == owner else None
    return None


def _user(owner: int) -> str:
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:
        return str(owner)
