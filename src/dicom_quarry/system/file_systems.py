"""File systems: the type, the free space and the names of the one that a folder is on; durable names."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
import unicodedata
from pathlib import Path
from typing import Final

#: What link(2) fails with where there are no hard links.
LINK_UNSUPPORTED: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})

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


def has_hard_links(folder: Path) -> bool:
    """Return True if a file in a folder can have a second name, as exFAT has none. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix=".quarry-links-", dir=folder) as place:
        first = Path(place, "first")
        first.touch()
        try:
            os.link(first, Path(place, "second"))
        except OSError as error:
            if error.errno not in LINK_UNSUPPORTED:
                raise
            return False
        return True


def describe_missing_links(folder: Path) -> str:
    """Return why several processes cannot store instances in a folder without hard links."""
    kind = file_system_type(folder)
    return (
        f"the disk of {folder}{f' ({kind})' if kind else ''} has no hard links, without which one worker "
        "could replace a file of another: use a disk that has them, such as ext4, XFS or NFS"
    )


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


#: File systems on which syncfs writes all bytes and names, and reports every failure since the last call.
_SYNCED_WHOLE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs"})

#: Before this version of Linux syncfs reports no failures (syncfs(2)).
_FIRST_LINUX_WITH_ERRORS = (5, 8)


def can_sync_whole(folder: Path) -> bool:
    """Return True if ``sync_file_system`` makes files below a folder durable, and reports all failures.

    Network file systems, overlays and FUSE do not promise it.
    """
    if sys.platform != "linux" or file_system_type(folder) not in _SYNCED_WHOLE:
        return False
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= _FIRST_LINUX_WITH_ERRORS


def sync_file_system(fd: int) -> None:
    """Make all that was written to the file system of an open directory durable. Raises OSError.

    A failure of any program's file since ``fd`` was opened counts, once.
    """
    import ctypes  # here, as most commands write no images

    if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def unwritten_bytes(memory: Path = Path("/proc/meminfo")) -> int | None:
    """Return the bytes of all files of this computer that wait to be written to a disk; None if unknown."""
    try:
        text = memory.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.findall(r"^(?:Dirty|Writeback): +(\d+) kB$", text, re.MULTILINE)
    return sum(map(int, found)) * 1024 if found else None


def writing_session(folder: Path, boot: Path = Path("/proc/sys/kernel/random/boot_id")) -> tuple[str, str]:
    """Return the identities of this computer's run since its start, and of the file system of a folder.

    While both are the same, bytes that were written there are there, synced or not. The first is empty where
    the system does not give it. Raises OSError.
    """
    try:
        session = boot.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        session = ""
    return session, f"{folder.stat().st_dev:x}-{os.statvfs(folder).f_fsid:x}"
