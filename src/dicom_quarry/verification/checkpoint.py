"""Where a long look at a job is, and what it has found so far: small files that survive a kill.

Kept in the state folder, beside the ledger and out of its way: a job may run meanwhile. Where nothing can be
written there, as on a read-only copy, it is kept for this user elsewhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from dicom_quarry.errors import StartError
from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.jobs.registry import state_home

#: A look that nobody went on with for so many seconds begins anew: the files may have changed since.
AGE = 7 * 86_400.0

#: Seconds between two writes.
_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class Mark:
    """All tasks up to ``task`` were looked at: ``done`` things of ``size`` bytes, ``found`` of them odd."""

    task: int = 0
    done: int = 0
    size: int = 0
    found: int = 0


class Bookmark:
    """The bookmark of one kind of look; a context, in which nobody else has it. Raises StartError then.

    ``manner`` is what has to be the same for a look to be gone on with; what was added to it then comes back
    with it. ``since`` is the POSIX time at which that look was left; None where this is a new one.
    """

    def __init__(self, folder: JobFolder, name: str, manner: Mapping[str, Any], *, restart: bool) -> None:
        self._name = name
        self._out = folder.out
        self.manner = dict(manner)
        self.folder = _writable(folder)
        self._restart = restart
        self._written = 0.0
        self._length = 0
        self.mark = Mark()
        self.since: float | None = None

    def __enter__(self) -> Self:
        self._lock = os.open(self._path(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StartError(f"another quarry verify is looking at {self._out}: wait for its end") from None
        if not self._restart:
            self._take_up()
        self._found = _private(self._path(".found"), os.O_APPEND)
        self._found.truncate(self._length)
        return self

    def __exit__(self, *_: object) -> None:
        if self._path(".found").exists():
            self._write()
        self._found.close()
        os.close(self._lock)

    def add(self, finding: Mapping[str, Any]) -> None:
        """Something to be told at the end; kept with the next mark."""
        self._found.write(json.dumps(finding).encode() + b"\n")

    def keep(self, mark: Mark) -> None:
        """The look has come so far. What is added afterwards is of the next mark."""
        self.mark = mark
        self._found.flush()
        self._length = self._found.tell()
        if time.monotonic() - self._written >= _EVERY:
            self._write()

    def findings(self) -> Iterator[dict[str, Any]]:
        """What was added, also before an interruption, in its order."""
        self._found.flush()
        with self._path(".found").open("rb") as lines:
            for line in lines:
                yield json.loads(line)

    def finish(self) -> None:
        """The look has come to its end: the next one begins anew."""
        for suffix in (".json", ".found"):
            self._path(suffix).unlink(missing_ok=True)

    def _take_up(self) -> None:
        try:
            kept = json.loads(self._path(".json").read_text(encoding="utf-8"))
            mark, length, written = Mark(**kept["mark"]), int(kept["length"]), float(kept["time"])
            whole = self._path(".found").stat().st_size >= length
            manner = dict(kept["manner"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return  # none, or nothing that this version can go on with
        same = manner | self.manner == manner
        if same and whole and mark.task and 0 <= time.time() - written < AGE:
            self.mark, self._length, self.since, self.manner = mark, length, written, manner

    def _write(self) -> None:
        """The findings before the mark that counts them: a power cut must not leave a mark without them."""
        os.fsync(self._found.fileno())
        kept = {"manner": self.manner, "mark": asdict(self.mark), "length": self._length, "time": time.time()}
        part = self._path(".part")
        with _private(part, os.O_TRUNC) as file:
            file.write(json.dumps(kept).encode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path(".json"))
        self._written = time.monotonic()

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{self._name}{suffix}"


def _private(path: Path, flags: int) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o600), "wb")


def _writable(folder: JobFolder) -> Path:
    """The state folder, or one of this user's where nothing can be written to that."""
    if os.access(folder.state, os.W_OK):
        return folder.state
    name = hashlib.sha256(os.fsencode(folder.out.resolve())).hexdigest()[:16]
    place = state_home() / "looks" / name
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place
