"""Atomic files: a reader, or a crash, finds the old content or the new content, and nothing in between."""

from __future__ import annotations

import errno
import gzip
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TextIO

from dicom_quarry.system.file_systems import sync_directory
from dicom_quarry.system.locks import try_lock
from dicom_quarry.system.permissions import PRIVATE, Permissions

_SUFFIX = ".part"


@contextmanager
def atomic_write(
    path: Path, permissions: Permissions = PRIVATE, *, durable: bool = True
) -> Iterator[IO[bytes]]:
    """Write a temporary file in the same folder, and rename it to ``path`` at the end. Raises OSError.

    After an error the old file is left as it was. ``durable``: content and name are on the disk when the
    context ends; without, a power cut may leave the old file or an empty one.
    """
    _remove_left_overs(path)
    fd, temp_path = _make_temp_file(path)
    lock = os.dup(fd)  # keeps the lock until the file has its name
    try:
        with os.fdopen(fd, "wb") as stream:
            yield stream
            stream.flush()
            permissions.apply_to_file(stream.fileno())
            if durable:
                os.fsync(stream.fileno())
        replace_file(temp_path, path, durable=durable)
    finally:
        temp_path.unlink(missing_ok=True)
        os.close(lock)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Make a private folder next to ``path`` for parts of that file; it is removed with the context.

    One that a killed process left is removed by the next write of the file. Raises OSError.
    """
    _remove_left_overs(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent) as name:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(OSError):  # a file system without locks
                try_lock(fd)
            yield Path(name)
        finally:
            os.close(fd)


def _make_temp_file(path: Path) -> tuple[int, Path]:
    """Create a temporary file, and lock it, which shows other processes that it is in use."""
    while True:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent)
        try:
            is_locked = try_lock(fd)
        except OSError:
            return fd, Path(name)  # a file system without locks, where nothing is removed
        if is_locked and os.fstat(fd).st_nlink:
            return fd, Path(name)
        os.close(fd)  # another process took it for left over before it was locked


def _remove_left_overs(path: Path) -> None:
    """Remove the temporary files and folders of this name that a killed process of this user left."""
    prefix = f".{path.name}."
    with suppress(OSError), os.scandir(path.parent) as entries:
        found = [one.name for one in entries if one.name.startswith(prefix) and one.name.endswith(_SUFFIX)]
        for name in found:
            with suppress(OSError):
                _remove_if_unlocked(path.with_name(name))


def _remove_if_unlocked(temp_path: Path) -> None:
    fd = os.open(temp_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if found.st_uid == os.geteuid() and try_lock(fd):
            if stat.S_ISDIR(found.st_mode):
                shutil.rmtree(temp_path)
            else:
                temp_path.unlink()
    finally:
        os.close(fd)


@contextmanager
def atomic_write_text(
    path: Path, permissions: Permissions = PRIVATE, *, durable: bool = True
) -> Iterator[TextIO]:
    """Write UTF-8 text as ``atomic_write`` does, gzipped if the name ends in ``.gz``; same text, same bytes.

    There is no byte order mark: it would become part of the first header for every script that reads the file
    as plain UTF-8. The price is that Excel needs the choice "UTF-8" when it imports letters beyond ASCII.
    """
    with atomic_write(path, permissions, durable=durable) as raw:
        # The name and the time in a gzip header would differ from run to run: both are left out.
        packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else raw
        text = io.TextIOWrapper(packed, "utf-8", newline="")
        try:
            yield text
        finally:
            text.detach()
            if packed is not raw:
                packed.close()


def replace_file(temp_path: Path, path: Path, *, durable: bool = True) -> None:
    """Rename a finished file to ``path``, over any file of that name. Raises OSError.

    The content has to be on the disk already; ``durable`` makes the name so.
    """
    temp_path.replace(path)
    if durable:
        try:
            sync_directory(path.parent)
        except OSError as error:
            # Older kernels cannot sync a directory of an SMB share; the file itself is durable there.
            if error.errno != errno.EINVAL:
                raise
