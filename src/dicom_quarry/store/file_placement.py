"""Final names for finished files. An existing file is never replaced.

The final name is a hard link, which fails if the name exists, so that no other process is overwritten either.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from dicom_quarry.errors import InstanceRefused
from dicom_quarry.model import StoreResult
from dicom_quarry.store import safe_names
from dicom_quarry.store.directories import Directories
from dicom_quarry.store.part10 import Part10File, compute_digest, has_same_bytes, read_part10
from dicom_quarry.system.file_systems import LINK_UNSUPPORTED

#: Attributes of a receipt, and those that jobs and path patterns use most.
SOP_UID: Final = 0x00080018
ACCESSION: Final = 0x00080050
PATIENT_ID: Final = 0x00100020
OTHER_PATIENT_IDS: Final = 0x00101000
STUDY_UID: Final = 0x0020000D
SERIES_UID: Final = 0x0020000E
IDENTIFIERS: Final = frozenset(
    {0x00080005, SOP_UID, ACCESSION, PATIENT_ID, OTHER_PATIENT_IDS, STUDY_UID, SERIES_UID}
)

_MAX_VERSIONS: Final = 100


@dataclass(frozen=True, slots=True)
class TempFile:
    """A finished temporary file; its dataset begins at ``offset``.

    ``path`` is relative to the open directory ``dir_fd``, if there is one.
    """

    path: str
    offset: int
    size: int
    sop_uid: str
    transfer_syntax: str
    dir_fd: int | None = None


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """The place of a new file, or of an ``existing`` file that makes it unnecessary, with its digest."""

    path: PurePosixPath
    result: StoreResult
    existing: Part10File | None = None
    existing_digest: bytes = b""


class FilePlacer:
    """Gives files their final names below one root.

    With ``sync_existing`` a file that makes a new one unnecessary is made durable, as it may not be yet.
    """

    def __init__(self, directories: Directories, *, sync_existing: bool) -> None:
        self._directories = directories
        self._sync_existing = sync_existing
        self._rename_lock = threading.Lock()

    def place(self, temp_file: TempFile, path: PurePosixPath) -> PlacedFile:
        """Give the file its name, or find that the instance is there. Raises OSError and InstanceRefused.

        If another instance has the name, the new one gets its SOP Instance UID as a suffix. If the same
        instance is there with other content, the new one gets a number as a suffix.
        """
        try:
            return self._place_in(self._directories.enter(path.parent), temp_file, path)
        except FileNotFoundError:  # the directory was removed meanwhile
            self._directories.invalidate(path.parent)
        return self._place_in(self._directories.enter(path.parent), temp_file, path)

    def _place_in(self, folder: int, temp_file: TempFile, path: PurePosixPath) -> PlacedFile:
        base, number, result = path.name, 1, StoreResult.STORED
        while number < _MAX_VERSIONS:
            place = path
            if number > 1 or base != path.name:
                place = path.with_name(base if number == 1 else safe_names.add_suffix(base, str(number)))
            if self._link(temp_file, place.name, folder):
                return PlacedFile(place, result)
            with _open_if_regular(place.name, folder) as fd:
                found = read_part10(fd, IDENTIFIERS) if fd is not None else None
                if fd is not None and found and found.header.get(SOP_UID) == temp_file.sop_uid:
                    if match := _compare(temp_file, fd, found):
                        return PlacedFile(place, match, found, self._sync_and_digest(fd))
                    result = StoreResult.CONFLICT
                elif base == path.name:
                    base, number = safe_names.add_suffix(base, safe_names.distinct(temp_file.sop_uid)), 0
            number += 1
        raise InstanceRefused("too many versions of this instance are stored already", status=0x0110)

    def _link(self, temp_file: TempFile, name: str, folder: int) -> bool:
        try:
            os.link(temp_file.path, name, src_dir_fd=temp_file.dir_fd, dst_dir_fd=folder)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in LINK_UNSUPPORTED:
                raise
            return self._rename(temp_file, name, folder)
        os.unlink(temp_file.path, dir_fd=temp_file.dir_fd)
        return True

    def _rename(self, temp_file: TempFile, name: str, folder: int) -> bool:
        """Rename where there are no hard links, as on exFAT; safe only among threads of this process."""
        with self._rename_lock:
            try:
                os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                os.rename(temp_file.path, name, src_dir_fd=temp_file.dir_fd, dst_dir_fd=folder)
                return True
        return False

    def _sync_and_digest(self, fd: int) -> bytes:
        """Return the digest of an existing file, synced if it has to be."""
        if self._sync_existing:
            os.fsync(fd)
        return compute_digest(fd)


@contextmanager
def _open_if_regular(path: str, dir_fd: int | None) -> Iterator[int | None]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        yield None  # a link, a socket, unreadable: no instance of ours, but the name is taken
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _compare(temp_file: TempFile, fd: int, found: Part10File) -> StoreResult | None:
    """Compare with a file of the same SOP Instance UID; None if both must be kept."""
    if found.transfer_syntax != temp_file.transfer_syntax:
        return StoreResult.OTHER_ENCODING
    if found.size - found.offset != temp_file.size - temp_file.offset:
        return None
    with _open_if_regular(temp_file.path, temp_file.dir_fd) as mine:
        same = mine is not None and has_same_bytes(fd, found.offset, mine, temp_file.offset)
    return StoreResult.IDENTICAL if same else None
