"""Finds files in the output folder that are not in the record.

Recorded files are counted by folder. Names are compared only in folders with another number of files, so that
the memory grows with the number of folders, not of files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dicom_quarry.ledger.stored_files import StoredFile
from dicom_quarry.verification.file_records import FileRecords

#: Quarry's own folder in the tree.
_QUARRY_FOLDER = ".quarry"


class UnrecordedFiles:
    """Collects the recorded files, then searches the output folder."""

    def __init__(self, root: Path, on_folder: Callable[[], object] = lambda: None) -> None:
        """Prepare for a search; ``on_folder`` is called for each folder, and may end it by an exception."""
        self._root = os.fspath(root)
        self._on_folder = on_folder
        self._recorded_counts: Counter[str] = Counter()
        self._folders_with_missing: set[str] = set()

    def add_recorded(self, files: Iterable[StoredFile]) -> None:
        """Add recorded files."""
        self._recorded_counts.update(file.path.rpartition("/")[0] for file in files)

    def add_missing_of(self, findings: Iterable[Mapping[str, Any]]) -> None:
        """Add the missing files of findings: with an unrecorded one the number would be right."""
        missing = (finding["file"][0] for finding in findings if finding["code"] == "missing")
        self._folders_with_missing.update(path.rpartition("/")[0] for path in missing)

    def find(self, records: FileRecords) -> Iterator[str]:
        """Yield every unrecorded file, relative to the root; skips the folders of unfinished tasks."""
        busy = records.unfinished_folders()
        suspect = {
            folder: names
            for folder, names in self._walk()
            if folder not in busy
            and (folder in self._folders_with_missing or len(names) != self._recorded_counts[folder])
        }
        if not suspect:
            return
        # A crash may have left files of a released study; they are recorded.
        for _, page in records.files(released=True):
            for file in page:
                folder, _, name = file.path.rpartition("/")
                if folder in suspect:
                    suspect[folder].discard(name)
        # Folders of tasks that started meanwhile.
        busy = records.unfinished_folders()
        for folder, names in sorted(suspect.items()):
            if folder not in busy:
                yield from sorted(_printable(f"{folder}/{name}" if folder else name) for name in names)

    def _walk(self) -> Iterator[tuple[str, set[str]]]:
        """Yield every folder with the names of its files."""
        todo = [""]
        while todo:
            folder = todo.pop()
            self._on_folder()
            names = set()
            try:
                with os.scandir(f"{self._root}/{folder}") as entries:
                    for entry in entries:
                        if not entry.is_dir(follow_symlinks=False):
                            names.add(entry.name)
                        elif folder or entry.name != _QUARRY_FOLDER:
                            todo.append(f"{folder}/{entry.name}" if folder else entry.name)
            except OSError:
                continue  # unreadable; its recorded files are reported as unreadable
            yield folder, names if folder else {name for name in names if self._is_dicom(name)}

    def _is_dicom(self, name: str) -> bool:
        """Return True for a DICOM file (PS3.10 7.1); the top folder also has reports and other files."""
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
    """Escape the bytes of a name that is not valid text."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
