"""Makes stored files durable together: their bytes, their names, and the names of their directories.

Two methods, measured on ext4 with two cores (milliseconds on the clock, and of processor time):

=====================  ===============  =================  ==============  =============================
files                  one after other  8 threads          syncfs          with 60 MB/s of another program
=====================  ===============  =================  ==============  =============================
5 of 9 kB              13.0 (0)         2.7 (4)            0.5 (0)         threads 44, syncfs 39
100 of 9 kB            71 (14)          17 (10)            3.5 (2)         threads 64, syncfs 60
1,000 of 9 kB          815 (142)        225 (104)          28 (4)          (300) threads 90, syncfs 60
5 of 0.5 MB            8.4 (2)          6.3 (0)            3.0 (0)         threads 5, syncfs 112
50 of 0.5 MB           92 (12)          35 (10)            28 (2)          threads 45, syncfs 54
500 of 0.5 MB          1,574 (124)      325 (74)           262 (4)         (200) threads 185, syncfs 172
=====================  ===============  =================  ==============  =============================

The rule: syncfs, where the file system promises it, unless much more waits for the disks of this computer
than these files can explain. It would write that, too, so each file is then synced by itself, in threads.
Studies that end while one is synced are served together by the next pass.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Final
from weakref import finalize

from dicom_quarry.store.directories import Directories
from dicom_quarry.store.grouped_sync import GroupedSync
from dicom_quarry.system.file_systems import can_sync_whole, sync_file_system, unwritten_bytes

#: Bytes of the whole computer that may wait for its disks while syncfs is used.
_MAX_UNWRITTEN: Final = 256 << 20

_THREADS: Final = 8
#: Files that one thread syncs sooner than others could start.
_FEW_FILES: Final = 2


class FileSync:
    """Makes files below the root of ``directories`` durable; any thread may call it."""

    def __init__(self, directories: Directories) -> None:
        self._directories = directories
        # Open from the start: syncfs reports the failures since then.
        self._root: Final = os.open(directories.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finalize(self, os.close, self._root)
        self._syncs_whole = can_sync_whole(Path(directories.root))
        self._pool: Final = ThreadPoolExecutor(_THREADS, thread_name_prefix="sync")  # threads come with use
        self.group: Final = GroupedSync(self._sync)

    def sync(self, paths: Iterable[PurePosixPath]) -> None:
        """Make these files durable, with their names up to the root. Raises OSError.

        After a failure the bytes in the system's cache are not those on the disk: the caller removes the
        files. A second sync would succeed, and prove nothing.
        """
        self.group.sync(paths)

    def _sync(self, paths: Iterable[PurePosixPath]) -> dict[PurePosixPath, OSError]:
        if self._syncs_whole and (unwritten_bytes() or 0) <= _MAX_UNWRITTEN:
            sync_file_system(self._root)
            return {}
        return self._sync_each(paths)

    def _sync_each(self, paths: Iterable[PurePosixPath]) -> dict[PurePosixPath, OSError]:
        """Sync file by file, then their directories; return the failures of files. Raises OSError."""
        names = defaultdict[PurePosixPath, list[str]](list)
        for path in paths:
            names[path.parent].append(path.name)
        failures = {}
        for directory, files in names.items():
            fd = self._directories.open(directory)
            try:
                failures.update({directory / name: error for name, error in self._sync_files(fd, files)})
            finally:
                os.close(fd)
        self._directories.sync(names)
        return failures

    def _sync_files(self, directory: int, names: Sequence[str]) -> list[tuple[str, OSError]]:
        """Sync files of one directory; return the failures by name."""
        if len(names) <= _FEW_FILES:
            errors = [_sync_file(directory, name) for name in names]
        else:
            errors = list(self._pool.map(lambda name: _sync_file(directory, name), names))
        return [(name, error) for name, error in zip(names, errors, strict=True) if error is not None]


def _sync_file(directory: int, name: str) -> OSError | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            getattr(os, "fdatasync", os.fsync)(fd)
        finally:
            os.close(fd)
    except OSError as error:
        return error
    return None
