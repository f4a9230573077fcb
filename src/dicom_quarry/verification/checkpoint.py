"""The position and the findings of a long verification, which survive a kill."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from dicom_quarry.errors import StartError
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.system.locks import LockHeld

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
        self._label = folder.label
        self.parameters = dict(parameters)
        self._store = folder.open_checkpoint(name)
        self.folder = self._store.folder
        self._restart = restart
        self._written_at = 0.0
        self._length = 0
        self._is_finished = False
        self.position = Position()
        self.interrupted_at: float | None = None

    def __enter__(self) -> Self:
        try:
            self._store.acquire()
        except LockHeld:
            raise StartError(f"another quarry verify is checking {self._label}: wait until it ends") from None
        if not self._restart:
            self._load()
        self._store.begin(self._length)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_finished:
            self._write()
        self._store.close()

    def add_finding(self, finding: Mapping[str, Any]) -> None:
        """Add a finding for the end; it is durable with the next saved position."""
        self._store.add(finding)

    def save(self, position: Position) -> None:
        """Save the position, with the findings added so far; writes at most once a second."""
        self.position = position
        self._length = self._store.length()
        if time.monotonic() - self._written_at >= _WRITE_INTERVAL:
            self._write()

    def findings(self) -> Iterator[dict[str, Any]]:
        """Yield the findings in their order, with those from before an interruption."""
        return self._store.findings()

    def finish(self) -> None:
        """Remove the checkpoint: the verification is complete, and the next one starts over."""
        self._is_finished = True
        self._store.remove()

    def _load(self) -> None:
        data = self._store.load()
        try:
            position, length, written = Position(**data["position"]), int(data["length"]), float(data["time"])
            is_intact = self._store.has_findings(length)
            parameters = dict(data["parameters"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # missing, or of a version that this one cannot read
        has_same_parameters = parameters | self.parameters == parameters
        if has_same_parameters and is_intact and position.task_id and 0 <= time.time() - written < MAX_AGE:
            self.position, self._length, self.interrupted_at, self.parameters = (
                position,
                length,
                written,
                parameters,
            )

    def _write(self) -> None:
        data = {
            "parameters": self.parameters,
            "position": asdict(self.position),
            "length": self._length,
            "time": time.time(),
        }
        self._store.save(data)
        self._written_at = time.monotonic()
