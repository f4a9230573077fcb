"""The durable part of a long verification: a document, and findings that are only appended.

For a job in a folder they are small files in the state folder, next to the ledger, so that a job can run
meanwhile. For a read-only copy of a job they are in a folder of this user.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.jobs.registry import make_state_folder, state_home
from dicom_quarry.system.atomic_file import atomic_write_text
from dicom_quarry.system.locks import FileLock
from dicom_quarry.system.ownership import is_own_folder, open_own_file


class CheckpointStore(Protocol):
    """The place of one kind of verification; ``folder`` is one that this user may write other results to."""

    folder: Path

    def acquire(self) -> None:
        """Take the lock of this kind of verification; raise LockHeld if another process has it."""

    def load(self) -> Any:
        """Return the document as it was decoded from JSON, None if there is none."""

    def has_findings(self, length: int) -> bool:
        """Return True if there are findings up to a length of :meth:`length`."""

    def begin(self, length: int) -> None:
        """Remove the findings beyond a length, and let further ones be added."""

    def add(self, finding: Mapping[str, Any]) -> None:
        """Add a finding; it is durable with the next saved document."""

    def length(self) -> int:
        """Return the length of the findings so far."""

    def save(self, document: Mapping[str, Any]) -> None:
        """Make the findings durable, and then the document that counts them."""

    def findings(self) -> Iterator[dict[str, Any]]:
        """Yield the findings in their order."""

    def remove(self) -> None:
        """Remove document and findings."""

    def close(self) -> None:
        """Release the lock, and what is open."""


class CheckpointFiles:
    """A document and findings in files by the name of the verification."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._name = name
        self._lock = FileLock(self._path(".lock"))

    def acquire(self) -> None:
        """Lock a file."""
        self._lock.acquire(timeout=0)

    def load(self) -> Any:
        """Read the document."""
        try:
            return json.loads(self._path(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def has_findings(self, length: int) -> bool:
        """Compare the size of the file."""
        try:
            return self._path(".findings").stat().st_size >= length
        except OSError:
            return False

    def begin(self, length: int) -> None:
        """Open the file of the findings, and cut it off."""
        path = self._path(".findings")
        self._file = os.fdopen(open_own_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "wb")
        self._file.truncate(length)

    def add(self, finding: Mapping[str, Any]) -> None:
        """Write a line."""
        self._file.write(json.dumps(finding).encode() + b"\n")

    def length(self) -> int:
        """Return the size of the file."""
        self._file.flush()
        return self._file.tell()

    def save(self, document: Mapping[str, Any]) -> None:
        """Sync the findings, then write the document, so that a power cut loses none."""
        os.fsync(self._file.fileno())
        with atomic_write_text(self._path(".json")) as file:
            json.dump(document, file)

    def findings(self) -> Iterator[dict[str, Any]]:
        """Read the lines."""
        self._file.flush()
        with self._path(".findings").open("rb") as lines:
            for line in lines:
                yield json.loads(line)

    def remove(self) -> None:
        """Delete the files."""
        for suffix in (".json", ".findings"):
            self._path(suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, and release the lock."""
        self._file.close()
        self._lock.release()

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{self._name}{suffix}"


def writable_folder(folder: JobFolder) -> Path:
    """Return the state folder, or a folder of this user if the state folder is read-only or another's."""
    if os.access(folder.state, os.W_OK) and is_own_folder(folder.state):
        return folder.state
    return own_folder(folder.out)


def own_folder(out: Path) -> Path:
    """Return, and make, a folder of this user for what belongs to a job that is another's."""
    name = hashlib.sha256(os.fsencode(out.resolve())).hexdigest()[:16]
    fallback = state_home() / "checkpoints" / name
    make_state_folder(fallback)
    return fallback
