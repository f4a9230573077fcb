"""The directories below a store's root. No link is followed; names are made durable on request.

With permissions for a group colleagues may write below the root, and could replace a directory by a link at
any moment. So files get their names relative to an open directory, opened from the root step by step.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias

from dicom_quarry.errors import InstanceRefused, OutOfSpace
from dicom_quarry.store.grouped_sync import GroupedSync
from dicom_quarry.system.file_systems import sync_directory
from dicom_quarry.system.permissions import PRIVATE, Permissions

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MAX_CACHED: Final = 8192
#: Directories that can be made at the same time.
_LOCK_COUNT: Final = 16
_PROCESSING_FAILURE: Final = 0x0110  # PS3.7 C.5.3

#: Directories by name, each with those below it.
_Tree: TypeAlias = "dict[str, _Tree]"


def rejection_of(error: OSError) -> InstanceRefused:
    """Make the refusal of an instance from a disk error; it names no path, since the sender gets the text."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace("there is no space left on the disk")
    return InstanceRefused(f"the disk failed: {error.strerror}", status=_PROCESSING_FAILURE)


class _OpenDirectory:
    """A directory that stays open until the object goes."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd
        self._identity = _identify(os.fstat(fd))

    def __del__(self) -> None:
        os.close(self.fd)

    def is_there(self) -> bool:
        """Return True if the directory is still at its path."""
        try:
            return _identify(os.stat(self.path)) == self._identity  # noqa: PTH116 - a Path costs more than the call
        except OSError:
            return False


def _identify(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class Directories:
    """Makes directories below ``root`` with the permissions ``access``, and caches their names."""

    def __init__(self, root: Path, access: Permissions = PRIVATE) -> None:
        self.root: Final = os.path.realpath(root)
        Path(self.root).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.access: Final = access
        self._created: set[str] = set()
        self._create_locks: Final = tuple(threading.Lock() for _ in range(_LOCK_COUNT))
        self._synced: set[PurePosixPath] = set()
        self._threads = threading.local()
        self._names = GroupedSync(self._sync_names)

    def create(self, directory: PurePosixPath) -> str:
        """Make a directory if it is missing; return its path.

        Raises OSError, also if a link or a file has its name.
        """
        path = f"{self.root}/{directory}"
        if path not in self._created:
            # Instances of a new series arrive at the same time: one thread makes the directory, the others
            # wait.
            with self._create_locks[hash(path) % _LOCK_COUNT]:
                if path not in self._created:
                    os.close(self.open(directory, create=True))
                    if len(self._created) >= _MAX_CACHED:
                        self._created.clear()
                    self._created.add(path)
        return path

    def enter(self, directory: PurePosixPath) -> int:
        """Return an open directory, which is made if it is missing. Raises OSError.

        Each thread keeps its last one open, until it enters another: an association has the instances of a
        series one after the other.
        Not where others may write, and could exchange it for a link to itself.
        """
        kept: _OpenDirectory | None = getattr(self._threads, "directory", None)
        path = f"{self.root}/{directory}"
        if kept is None or not self.access.is_private or kept.path != path or not kept.is_there():
            kept = self._threads.directory = _OpenDirectory(path, self._open_or_create(directory))
        return kept.fd

    def _open_or_create(self, directory: PurePosixPath) -> int:
        self.create(directory)
        try:
            return self.open(directory)
        except FileNotFoundError:  # removed meanwhile
            self.invalidate(directory)
            self.create(directory)
            return self.open(directory)

    def unlink(self, path: PurePosixPath) -> None:
        """Remove a file, if it exists. Raises OSError."""
        try:
            fd = self.open(path.parent)
        except FileNotFoundError:
            return
        try:
            os.unlink(path.name, dir_fd=fd)
        except FileNotFoundError:
            pass
        finally:
            os.close(fd)

    def invalidate(self, directory: PurePosixPath) -> None:
        """Forget a directory that was found missing, so that it is made again, and its name made durable."""
        self._created.discard(f"{self.root}/{directory}")
        self._synced.discard(directory)

    def open(self, directory: PurePosixPath, *, create: bool = False) -> int:
        """Open a directory level by level, without following a link. Raises OSError."""
        fd = os.open(self.root, _DIRECTORY)
        try:
            for name in directory.parts:
                if create:
                    _mkdir(name, fd)
                below = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = below
                if create and not self.access.is_private:
                    self.access.apply_to_folder(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def sync(self, directories: Iterable[PurePosixPath]) -> None:
        """Make the names in these directories and in their parents durable. Raises OSError."""
        tree: _Tree = {}
        for directory in directories:
            at = tree
            for name in directory.parts:
                at = at.setdefault(name, {})
        self._sync_tree(os.open(self.root, _DIRECTORY), tree)

    def _sync_tree(self, fd: int, tree: _Tree) -> None:
        """Sync each directory of a tree once; closes ``fd``."""
        try:
            sync_directory(fd)
            for name, below in tree.items():
                self._sync_tree(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd), below)
        finally:
            os.close(fd)

    def sync_with_parents(self, directory: PurePosixPath) -> None:
        """Make the names in this directory durable, the first time in its parents too. Raises OSError.

        Threads that sync at once share a commit of the file system's journal.
        """
        kept: _OpenDirectory | None = getattr(self._threads, "directory", None)
        if directory in self._synced and kept is not None and kept.path == f"{self.root}/{directory}":
            sync_directory(kept.fd)
        else:
            self._names.sync([directory])

    def _sync_names(self, directories: Iterable[PurePosixPath]) -> dict[PurePosixPath, OSError]:
        failures = {}
        for directory in directories:
            try:
                self._sync_name(directory)
            except OSError as error:
                failures[directory] = error
        return failures

    def _sync_name(self, directory: PurePosixPath) -> None:
        if directory in self._synced:
            self._sync_tree(self.open(directory), {})
            return
        self.sync([directory])
        if len(self._synced) >= _MAX_CACHED:
            self._synced.clear()
        self._synced.add(directory)


def _mkdir(name: str, fd: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=fd)
    except FileExistsError:
        pass
