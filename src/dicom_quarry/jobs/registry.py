"""The registry of this user's jobs: their folders, for ``quarry list``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dicom_quarry.system.atomic_file import atomic_write_text
from dicom_quarry.system.permissions import make_private_folder


def register(out: Path) -> None:
    """Add a job's folder. Without a writable home folder nothing is registered, and the job still runs."""
    with suppress(OSError):
        entry = _entry(out)
        make_state_folder(entry.parent)
        with atomic_write_text(entry) as file:
            json.dump({"out": str(out.resolve())}, file)


def state_home() -> Path:
    """Return the folder of Quarry's data about this user (XDG base directories)."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "quarry"


def make_state_folder(path: Path) -> None:
    """Make a folder below :func:`state_home` for this user alone; raise OSError.

    Folders above it that earlier versions let other users list are closed. One that others may write to
    stays as it is, for the checks that refuse it.
    """
    make_private_folder(path)
    root = state_home()
    for folder in {root, *path.parents}:
        if folder.is_relative_to(root):
            found = folder.stat()
            if found.st_uid == os.geteuid() and found.st_mode & 0o055 and not found.st_mode & 0o022:
                folder.chmod(0o700)


def list_registered() -> Iterator[Path]:
    """Yield the folders of this user's jobs; remove the entries of deleted ones."""
    for entry in sorted(_registry_folder().glob("*.json")):
        with suppress(OSError, ValueError, KeyError):
            out = Path(json.loads(entry.read_text(encoding="utf-8"))["out"])
            if out.is_dir():
                yield out
            else:  # a folder on a disk that is not mounted raises, and stays registered
                entry.unlink()


def last_registered() -> Iterator[Path]:
    """Yield the folders of this user's jobs, that of the latest run first."""
    started = {}
    for out in list_registered():
        with suppress(OSError):
            started[out] = _entry(out).stat().st_mtime_ns
    yield from sorted(started, key=started.__getitem__, reverse=True)


def job_key(out: Path) -> str:
    """Return the name of a folder in the registry, and in the addresses of web pages: 16 hex digits."""
    path = str(out.resolve())
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def find_registered(key: str) -> Path | None:
    """Return the folder of this user's job with a key, None if there is none."""
    return next((out for out in list_registered() if job_key(out) == key), None)


def _entry(out: Path) -> Path:
    return _registry_folder() / f"{job_key(out)}.json"


def _registry_folder() -> Path:
    return state_home() / "jobs"
