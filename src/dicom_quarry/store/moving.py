"""Files that are moved out of the tree, and the folders that they leave empty."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from dicom_quarry.store.directories import Directories


def move_file(root: Path, path: PurePosixPath, target_root: Path) -> None:
    """Move a file below ``root`` to the same path below ``target_root``; no link is followed.

    A file that was moved there before stays: the name gets a number. Raises OSError.
    """
    target = Path(Directories(target_root).create(path.parent), path.name)
    folder = Directories(root).open(path.parent)
    try:
        free_path = next(one for one in _candidate_paths(target) if not one.exists())
        os.rename(path.name, free_path, src_dir_fd=folder)
    finally:
        os.close(folder)


def _candidate_paths(path: Path) -> Iterator[Path]:
    """Yield paths for a file, with a number if a file of the same name was moved there before."""
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}~{number}")
        number += 1


def remove_empty_folders(root: Path, folders: Iterable[Path]) -> None:
    """Remove these folders and their parents, up to the first that is not empty."""
    for folder in folders:
        with suppress(OSError):
            for each in (folder, *folder.parents):
                if each == root:
                    break
                each.rmdir()
