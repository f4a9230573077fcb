"""Files that get their names later: left half-way by a crash, or kept apart until a person decided."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

from dicom_quarry.errors import Refused
from dicom_quarry.store.directories import Directories
from dicom_quarry.store.file_placement import SERIES_UID, SOP_UID, STUDY_UID, Newcomer, Placed, Placing
from dicom_quarry.store.part10 import Part10, is_uid, read_part10
from dicom_quarry.store.path_template import Template
from dicom_quarry.system.permissions import Access
from dicom_quarry.wire.header_scan import WHOLE

PART: Final = ".part"
_DAMAGED: Final = ".damaged"
_UIDS: Final = (STUDY_UID, SERIES_UID, SOP_UID)


def recover(incoming: Path, directories: Directories, template: Template) -> Iterator[PurePosixPath | None]:
    """Give every left-over instance that is whole its name; None for each that is not, which is set aside.

    For a receiver that cannot have it sent again, before it receives. The sender was told nothing of these:
    it may send them once more, and they will be known.
    """
    placing = Placing(directories, durable=True)
    for left_over in sorted(incoming.glob(f"*{PART}")):
        path = None
        with suppress(OSError, Refused):
            path = _recover(left_over, placing, template, directories.access)
        if path is None:
            left_over.rename(left_over.with_suffix(_DAMAGED))
        else:
            directories.anchor(path.parent)
            left_over.unlink(missing_ok=True)
        yield path


def _recover(left_over: Path, placing: Placing, template: Template, access: Access) -> PurePosixPath | None:
    file = _read(left_over, template.tags | {WHOLE}, access)
    if file is None:
        return None
    return placing.place(_newcomer(left_over, file), template.render(file.header)).path


def bring_in(path: PurePosixPath, apart: str, placing: Placing, directories: Directories) -> Placed:
    """Move a file out of the folder ``apart`` to where it belongs. Raises OSError, Refused."""
    old = Path(directories.root, path)
    file = _read(old, (), directories.access)
    if file is None:
        raise FileNotFoundError(2, "it is no DICOM file any more")
    placed = placing.place(_newcomer(old, file), path.relative_to(apart))
    old.unlink(missing_ok=True)
    _remove_empty(directories, path.parent)
    return placed


def _remove_empty(directories: Directories, directory: PurePosixPath) -> None:
    """Remove a folder and those above it, below the root, as far as nothing is in them."""
    with suppress(OSError):
        for folder in (directory, *directory.parents[:-1]):
            Path(directories.root, folder).rmdir()
            directories.forget(folder)


def _read(path: Path, tags: frozenset[int] | tuple[()], access: Access) -> Part10 | None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not access.is_private:
            access.give_file(fd)
        file = read_part10(fd, {*tags, *_UIDS})
        os.fsync(fd)
    finally:
        os.close(fd)
    named = file is not None and all(is_uid(file.header.get(tag, "")) for tag in _UIDS)
    return file if named else None


def _newcomer(path: Path, file: Part10) -> Newcomer:
    return Newcomer(str(path), file.offset, file.size, file.header[SOP_UID], file.transfer_syntax)
