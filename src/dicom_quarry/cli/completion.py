"""Values that a shell completes with the Tab key: archives, transports, job folders.

An error here would print a traceback into the line that the user types, so anything that cannot be read has
no completions.
"""

from __future__ import annotations

from pathlib import Path

from dicom_quarry.errors import QuarryError


def complete_archive(incomplete: str) -> list[str]:
    """Return the names of the archives in quarry.toml; behind a comma, those that are not given yet."""
    from dicom_quarry import api

    given, comma, _ = incomplete.rpartition(",")
    try:
        names = api.configured_archives()
    except (QuarryError, OSError):
        return []
    return [f"{given}{comma}{name}" for name in names if name not in given.split(",")]


def complete_transport(incomplete: str) -> list[str]:  # noqa: ARG001 (typer's signature)
    """Return the names of the transports."""
    return ["auto", "move", "get", "wado"]


def complete_job(incomplete: str) -> list[str]:
    """Return the folders of jobs: those that begin as typed, else this user's jobs on this computer."""
    try:
        near = [path for path in Path().glob(f"{incomplete}*") if (path / ".quarry").is_dir()]
    except (NotImplementedError, ValueError, OSError):  # an absolute path, or one that cannot be a pattern
        near = []
    if near:
        return [str(path) for path in near]
    from dicom_quarry import api

    try:
        return [str(path) for path in api.registered_folders()]
    except OSError:
        return []
