"""File systems: the type, the free space and the names of the one that a folder is on; durable names."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import unicodedata
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


def distinguishes_names(folder: Path) -> bool:
    """Return True if different names are different files in a folder. Raises OSError.

    Some file systems ignore case, in ASCII or in all letters, or the Unicode form. A file is created to find
    out, and removed: a mount table does not show the properties of a server, or of a single folder.
    """
    with tempfile.TemporaryDirectory(prefix=".quarry-names-", dir=folder) as place:
        # One letter of each kind: small, with an accent, and one with a compatible form.
        name = "name-a\u00e9\uff11"
        try:
            Path(place, name).touch(exist_ok=False)
        except (OSError, UnicodeError):
            return False  # a disk that has no such letters
        others = (
            name.replace("name-a", "NAME-A"),
            name.upper(),
            name.replace("\u00e9", "\u00c9"),
            unicodedata.normalize("NFD", name),
            unicodedata.normalize("NFKC", name),
        )
        return not any(os.path.lexists(f"{place}/{other}") for other in others)


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
