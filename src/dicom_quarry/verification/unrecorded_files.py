"""Files in the tree that nobody recorded: whose they are is for a person to say.

What is recorded is counted by folder; only where the disk has another number are names compared. So the
memory that this takes is that of the folders, not of the files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from dicom_quarry.ledger.reader import Derive
from dicom_quarry.ledger.stored_files import StoredFile, StoredReader

#: Quarry's own folder in the tree.
_OWN = ".quarry"


class Strays:
    """Learns what is recorded, then looks through the tree."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._recorded: Counter[str] = Counter()
        self._lacking: set[str] = set()

    def recorded(self, files: Iterable[StoredFile]) -> None:
        """These belong here."""
        self._recorded.update(file.path.rpartition("/")[0] for file in files)

    def missing(self, path: str) -> None:
        """This one is recorded and not here: another may be in its place, so that the number is right."""
        self._lacking.add(path.rpartition("/")[0])

    def find(self, reader: StoredReader, derive: Derive) -> Iterator[str]:
        """Every file that is not recorded, relative to the root. Where a job is at work nothing is said."""
        busy = reader.being_filled()
        suspect = {
            folder: names
            for folder, names in self._tree()
            if folder not in busy and (folder in self._lacking or len(names) != self._recorded[folder])
        }
        if not suspect:
            return
        # What a crash has left of a released study is known, too.
        for _, page in reader.files(derive, released=True):
            for file in page:
                folder, _, name = file.path.rpartition("/")
                if folder in suspect:
                    suspect[folder].discard(name)
        # What has begun to arrive meanwhile is noted by now.
        busy = reader.being_filled()
        for folder, names in sorted(suspect.items()):
            if folder not in busy:
                yield from sorted(_shown(f"{folder}/{name}" if folder else name) for name in names)

    def _tree(self) -> Iterator[tuple[str, set[str]]]:
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
                        elif folder or entry.name != _OWN:
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


def _shown(path: str) -> str:
    """A name that somebody else gave may be no text at all: then its bytes stand for it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
