"""The job that a command is about where it names no folder; the choice is always shown."""

from __future__ import annotations

import shlex
from pathlib import Path

from dicom_quarry import api
from dicom_quarry.cli.console import err
from dicom_quarry.errors import InputError


def choose_folder(given: Path | None, *, changes_job: bool = False) -> Path:
    """Return the folder that was given; else that of quarry.toml, of the current folder, or of the last job.

    ``changes_job``: the last job is not taken, as another one may be meant. Raises InputError if there is no
    job.
    """
    if given is not None:
        return given
    found = api.find_default_job()
    if found is None:
        raise InputError(
            "Which job? Give its folder (its --to): you have started none on this computer, or their folders "
            "are gone"
        )
    if changes_job and found.is_last:
        raise InputError(f"Which job? Give its folder. The last one is {quote_path(found.folder)}")
    err.print(f"job: {found.folder} ({found.reason})")
    return found.folder


def quote_path(path: Path) -> str:
    """Return a path as it is typed at a shell."""
    return shlex.quote(str(path))


def resume_command(label: str) -> str:
    """Return the command that continues a job."""
    return f"quarry resume {shlex.quote(label)}"
