"""The folders of instances that are being received: one for each worker, below a common one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dicom_quarry.store.recovery import PART_SUFFIX


@contextmanager
def open_incoming(incoming: Path, worker: str, is_gone: Callable[[str], bool]) -> Iterator[Path]:
    """Make the folder of a worker, and remove those of workers that are gone, with what is in them.

    A worker that lives keeps its files in flight while another starts. At the end the folder is removed,
    unless something is in it.
    """
    _remove_left_over(incoming, worker, is_gone)
    own = incoming / _name_of(worker)
    own.mkdir(mode=0o700, exist_ok=True)
    try:
        yield own
    finally:
        with suppress(OSError):
            own.rmdir()


def _name_of(worker: str) -> str:
    return worker.replace("/", "~")


def _remove_left_over(incoming: Path, worker: str, is_gone: Callable[[str], bool]) -> None:
    """Remove the files that a crash left; those directly below are of a version that had one folder."""
    with suppress(OSError):
        for entry in sorted(incoming.iterdir()):
            if entry.is_symlink():
                continue
            if entry.suffix == PART_SUFFIX and is_gone(""):
                entry.unlink()
            elif entry.is_dir() and (entry.name == _name_of(worker) or is_gone(entry.name.replace("~", "/"))):
                _remove_parts(entry)


def _remove_parts(folder: Path) -> None:
    """Remove the files in flight of a folder, and the folder unless the user has put something there."""
    with suppress(OSError):
        for left_over in folder.glob(f"*{PART_SUFFIX}"):
            left_over.unlink()
        folder.rmdir()
