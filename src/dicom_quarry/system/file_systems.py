"""File systems: the type and the free space of the one that a folder is on, and durable names in a folder."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")


def sync_directory(directory: Path | int) -> None:
    """Make the names in a directory durable: new, renamed and removed ones. Raises OSError.

    ``directory`` is its path, or a descriptor, which stays open.
    """
    if isinstance(directory, int):
        os.fsync(directory)
        return
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_bytes(path: Path) -> int:
    """Return how many bytes this user may still write to the file system of ``path``. Raises OSError."""
    return shutil.disk_usage(path).free


def file_system_type(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the type of the file system that a folder is on, such as ``ext4`` or ``nfs4``; empty if unknown.

    The mount table is read here and not with psutil, which costs every job some 30 ms at its start.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    target = path.resolve()
    best, kind = -1, ""
    for line in lines:
        _, point, type_, *_ = line.split(" ")
        # Blanks and backslashes are written as octal numbers (proc(5), fstab(5)).
        mount = Path(_OCTAL.sub(lambda found: chr(int(found[1], 8)), point))
        # Of two mounts on one point the later hides the earlier.
        if (target == mount or mount in target.parents) and len(mount.parts) >= best:
            best, kind = len(mount.parts), type_
    return kind
