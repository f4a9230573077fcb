"""Files that get their final names later: left by a crash, or accepted from the mismatch folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

from dicom_quarry.errors import InstanceRefused
from dicom_quarry.store.directories import Directories
from dicom_quarry.store.file_placement import SERIES_UID, SOP_UID, STUDY_UID, FilePlacer, PlacedFile, TempFile
from dicom_quarry.store.non_patient import is_non_patient, non_patient_path
from dicom_quarry.store.part10 import Part10File, is_uid, read_part10
from dicom_quarry.store.path_template import PathTemplate
from dicom_quarry.system.permissions import Permissions
from dicom_quarry.wire.header_scan import SCAN_TO_END

PART_SUFFIX: Final = ".part"
#: Bytes of the preamble and the prefix of a DICOM file (PS3.10 7.1).
_HEAD_SIZE: Final = 132
_DAMAGED_SUFFIX: Final = ".damaged"
_UIDS: Final = (STUDY_UID, SERIES_UID, SOP_UID)


def recover(
    incoming: Path, directories: Directories, template: PathTemplate, *, takes_non_patient: bool = False
) -> Iterator[PurePosixPath | None]:
    """Give each whole left-over instance its name; yield its path, or None for a damaged file.

    A receiver that cannot fetch again calls this before it receives. A damaged file is renamed. The sender
    got no acknowledgement of these instances: if it sends one again, the store finds that it is there.
    ``takes_non_patient``: objects that belong to no patient are stored, too.
    """
    placer = FilePlacer(directories, sync_existing=True)
    for left_over in sorted(incoming.glob(f"*{PART_SUFFIX}")):
        path = None
        with suppress(OSError, InstanceRefused):
            path = _place_left_over(
                left_over, placer, template, directories.access, takes_non_patient=takes_non_patient
            )
        if path is None:
            left_over.rename(left_over.with_suffix(_DAMAGED_SUFFIX))
        else:
            directories.sync_with_parents(path.parent)
            left_over.unlink(missing_ok=True)
        yield path


def _place_left_over(
    left_over: Path,
    placer: FilePlacer,
    template: PathTemplate,
    access: Permissions,
    *,
    takes_non_patient: bool,
) -> PurePosixPath | None:
    file = _read_file(left_over, template.tags | {SCAN_TO_END}, access, takes_non_patient=takes_non_patient)
    if file is None:
        return None
    if takes_non_patient and is_non_patient(file.sop_class):
        path = non_patient_path(file.sop_class, file.header[SOP_UID])
    else:
        path = template.render(file.header)
    return placer.place(_temp_file(left_over, file), path).path


def may_be_torn(path: Path, study_uid: str) -> bool:
    """Return True for an instance of a study, and for a file that begins with zeros, or is empty.

    Of a file that was written and not synced, a power cut may leave any part, and zeros for the rest.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if file := read_part10(fd, {STUDY_UID}):
            return file.header.get(STUDY_UID) == study_uid
        return not os.pread(fd, _HEAD_SIZE, 0).strip(b"\0")
    finally:
        os.close(fd)


def relocate(
    path: PurePosixPath, subdirectory: str, placer: FilePlacer, directories: Directories
) -> PlacedFile:
    """Move a file out of ``subdirectory`` to its usual place. Raises OSError and InstanceRefused."""
    folder = directories.open(path.parent)
    try:
        file = _read_file(path.name, (), directories.access, dir_fd=folder)
        if file is None:
            raise FileNotFoundError(2, "it is not a DICOM file any more")
        placed = placer.place(_temp_file(path.name, file, folder), path.relative_to(subdirectory))
        with suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=folder)
    finally:
        os.close(folder)
    _remove_empty(directories, path.parent)
    return placed


def _remove_empty(directories: Directories, directory: PurePosixPath) -> None:
    """Remove a directory and its parents below the root, up to the first that is not empty."""
    with suppress(OSError):
        for folder in (directory, *directory.parents[:-1]):
            Path(directories.root, folder).rmdir()
            directories.invalidate(folder)


def _read_file(
    path: Path | str,
    tags: frozenset[int] | tuple[()],
    access: Permissions,
    *,
    takes_non_patient: bool = False,
    dir_fd: int | None = None,
) -> Part10File | None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        if not access.is_private:
            access.apply_to_file(fd)
        file = read_part10(fd, {*tags, *_UIDS})
        os.fsync(fd)
    finally:
        os.close(fd)
    if file is None:
        return None
    required = (SOP_UID,) if takes_non_patient and is_non_patient(file.sop_class) else _UIDS
    return file if all(is_uid(file.header.get(tag, "")) for tag in required) else None


def _temp_file(path: Path | str, file: Part10File, dir_fd: int | None = None) -> TempFile:
    return TempFile(str(path), file.offset, file.size, file.header[SOP_UID], file.transfer_syntax, dir_fd)
