"""Where this user's jobs are, so that they can be found without knowing their folders."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dicom_quarry.system.atomic_file import atomic_write_text


def register(out: Path) -> None:
    """Remember a job's folder. A job must not fail for want of a home: then it is not remembered."""
    path = str(out.resolve())
    name = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    with suppress(OSError):
        folder = _registry_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_write_text(folder / f"{name}.json") as file:
            json.dump({"out": path}, file)


def state_home() -> Path:
    """What Quarry remembers for this user, beside the jobs themselves."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "quarry"


def list_registered() -> Iterator[Path]:
    """The folders of this user's jobs; those that are gone are forgotten."""
    for entry in sorted(_registry_folder().glob("*.json")):
        with suppress(OSError, ValueError, KeyError):
            out = Path(json.loads(entry.read_text(encoding="utf-8"))["out"])
            if out.is_dir():
                yield out
            else:  # what cannot be looked at raises: it may be there tomorrow
                entry.unlink()


def _registry_folder() -> Path:
    return state_home() / "jobs"
