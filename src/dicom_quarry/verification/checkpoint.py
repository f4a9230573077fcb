"""The position and the findings of a long verification, in small files that survive a kill.

The files are in the state folder next to the ledger, so that a job can run meanwhile. For a read-only copy
of a job they are in a folder of this user.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from dicom_quarry.errors import StartError
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.jobs.registry import make_state_folder, state_home
from dicom_quarry.system.atomic_file import atomic_write_text
from dicom_quarry.system.locks import FileLock, LockHeld
from dicom_quarry.system.ownership import is_own_folder, open_own_file

#: Seconds after which a checkpoint is not used any more: the files may have changed since.
MAX_AGE = 7 * 86_400.0

#: Seconds between two writes.
_WRITE_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class Position:
    """The position after a task: ``done`` items of ``size`` bytes were checked, with ``findings``."""

    task_id: int = 0
    done: int = 0
    size: int = 0
    findings: int = 0


class Checkpoint:
    """The checkpoint of one kind of verification; a context that holds its lock. Raises StartError.

    A verification is resumed only with the same ``parameters``; further parameters that it had are restored.
    ``interrupted_at`` is the POSIX time of the interruption; None for a new verification.
    """

    def __init__(self, folder: JobPlace, name: str, parameters: Mapping[str, Any], *, restart: bool) -> None:
        self._name = name
        self._out = folder.out
        self.parameters = dict(parameters)
        self.folder = _writable_folder(folder)
        self._restart = restart
        self._written_at = 0.0
        self._findings_length = 0
        self.position = Position()
        self.interrupted_at: float | None = None

    def __enter__(self) -> Self:
        self._lock = FileLock(self._path(".lock"))
        try:
            self._lock.acquire(timeout=0)
        except LockHeld:
            raise StartError(f"another quarry verify is checking {self._out}: wait until it ends") from None
        if not self._restart:
            self._load()
        self._findings_file = _open_findings(self._path(".findings"))
        self._findings_file.truncate(self._findings_length)
        return self

    def __exit__(self, *_: object) -> None:
        if self._path(".findings").exists():
            self._write()
        self._findings_file.close()
        self._lock.release()

    def add_finding(self, finding: Mapping[str, Any]) -> None:
        """Add a finding for the end; it is durable with the next saved position."""
        self._findings_file.write(json.dumps(finding).encode() + b"\n")

    def save(self, position: Position) -> None:
        """Save the position, with the findings added so far; writes at most once a second."""
        self.position = position
        self._findings_file.flush()
        self._findings_length = self._findings_file.tell()
        if time.monotonic() - self._written_at >= _WRITE_INTERVAL:
            self._write()

    def findings(self) -> Iterator[dict[str, Any]]:
        """Yield the findings in their order, with those from before an interruption."""
        self._findings_file.flush()
        with self._path(".findings").open("rb") as lines:
            for line in lines:
                yield json.loads(line)

    def finish(self) -> None:
        """Remove the checkpoint: the verification is complete, and the next one starts over."""
        for suffix in (".json", ".findings"):
            self._path(suffix).unlink(missing_ok=True)

    def _load(self) -> None:
        try:
            data = json.loads(self._path(".json").read_text(encoding="utf-8"))
            position, length, written = Position(**data["position"]), int(data["length"]), float(data["time"])
            is_intact = self._path(".findings").stat().st_size >= length
            parameters = dict(data["parameters"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return  # missing, or of a version that this one cannot read
        has_same_parameters = parameters | self.parameters == parameters
        if has_same_parameters and is_intact and position.task_id and 0 <= time.time() - written < MAX_AGE:
            self.position, self._findings_length, self.interrupted_at, self.parameters = (
                position,
                length,
                written,
                parameters,
            )

    def _write(self) -> None:
        """Write the findings, then the position that counts them, so that a power cut loses none."""
        os.fsync(self._findings_file.fileno())
        data = {
            "parameters": self.parameters,
            "position": asdict(self.position),
            "length": self._findings_length,
            "time": time.time(),
        }
        with atomic_write_text(self._path(".json")) as file:
            json.dump(data, file)
        self._written_at = time.monotonic()

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{self._name}{suffix}"


def _open_findings(path: Path) -> BinaryIO:
    return os.fdopen(open_own_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "wb")


def _writable_folder(folder: JobPlace) -> Path:
    """Return the state folder, or a folder of this user if the state folder is read-only or another's."""
    if os.access(folder.state, os.W_OK) and is_own_folder(folder.state):
        return folder.state
    name = hashlib.sha256(os.fsencode(folder.out.resolve())).hexdigest()[:16]
    fallback = state_home() / "checkpoints" / name
    make_state_folder(fallback)
    return fallback
