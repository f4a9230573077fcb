"""Files in the tree that nobody recorded: whose they are is for a person to say.

What is recorded is counted by folder; only where the disk has another number are names compared. So the
memory that this takes is that of the folders, not of the files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from dicom_quarry.ledger.reader import PathFunction
from dicom_quarry.ledger.stored_files import StoredFile, StoredFilesReader

#: Quarry's own folder in the tree.
_QUARRY_FOLDER = ".quarry"


class UnrecordedFiles:
    """Learns what is recorded, then looks through the tree."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._recorded_counts: Counter[str] = Counter()
        self._folders_with_missing: set[str] = set()

    def add_recorded(self, files: Iterable[StoredFile]) -> None:
        """These belong here."""
        self._recorded_counts.update(file.path.rpartition("/")[0] for file in files)

    def add_missing(self, path: str) -> None:
        """This one is recorded and not here: another may be in its place, so that the number is right."""
        self._folders_with_missing.add(path.rpartition("/")[0])

    def find(self, reader: StoredFilesReader, path_of: PathFunction) -> Iterator[str]:
        """Every file that is not recorded, relative to the root. Where a job is at work nothing is said."""
        busy = reader.unfinished_folders()
        suspect = {
            folder: names
            for folder, names in self._walk()
            if folder not in busy
            and (folder in self._folders_with_missing or len(names) != self._recorded_counts[folder])
        }
        if not suspect:
            return
        # What a crash has left of a released study is known, too.
        for _, page in reader.files(path_of, released=True):
            for file in page:
                folder, _, name = file.path.rpartition("/")
                if folder in suspect:
                    suspect[folder].discard(name)
        # What has begun to arrive meanwhile is noted by now.
        busy = reader.unfinished_folders()
        for folder, names in sorted(suspect.items()):
            if folder not in busy:
                yield from sorted(_printable(f"{folder}/{name}" if folder else name) for name in names)

    def _walk(self) -> Iterator[tuple[str, set[str]]]:
        """Every folder with the names in it that are no folders."""
        todo = [""]
        while todo:
            folder = todo.pop()
            names = set()
            try:
                with os.scandir(f"{self._root}/{folder}") as entries:
                    for entry in entries:
                        if not entry.is_dir(follow_symlinks=False):
                            names.add(entry.name)
                        elif folder or entry.name != _QUARRY_FOLDER:
                            todo.append(f"{folder}/{entry.name}" if folder else entry.name)
            except OSError:
                continue  # unreadable: its recorded files were told of as such
            yield folder, names if folder else {name for name in names if self._is_dicom(name)}

    def _is_dicom(self, name: str) -> bool:
        """In the top folder are reports and whatever the user put there: only images count (PS3.10 7.1)."""
        try:
            fd = os.open(f"{self._root}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            return os.pread(fd, 132, 0)[128:] == b"DICM"
        except OSError:
            return False
        finally:
            os.close(fd)


def _printable(path: str) -> str:
    """A name that somebody else gave may be no text at all: then its bytes stand for it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
