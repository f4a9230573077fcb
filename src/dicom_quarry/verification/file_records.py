"""Records of files that a verification compares with: those of a job's ledger, or those of a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from dicom_quarry.jobs.instance_paths import load_path_function
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.stored_files import FileTotals, StoredFile, StoredFilesReader
from dicom_quarry.verification.manifest import ManifestRecords


class FileRecords(Protocol):
    """Records of stored files, in pages with rising numbers."""

    def files(
        self, *, after: int = 0, last: int | None = None, released: bool = False
    ) -> Iterator[tuple[int, list[StoredFile]]]:
        """Yield pages, each with its number: those after ``after`` up to ``last``.

        Files of released studies are included if ``released``.
        """

    def totals(self, *, released: bool = False) -> FileTotals:
        """Return the totals of unreleased studies, or of the ``released`` ones."""

    def rows_of(self, task_id: int) -> tuple[int, ...]:
        """Return the rows of the user's table that request a task."""

    def unfinished_folders(self) -> frozenset[str]:
        """Return the folders of unfinished tasks."""

    def close(self) -> None:
        """Close what was opened."""


class _LedgerRecords:
    """The records of a job's ledger; the number of a page is its last task."""

    def __init__(self, ledger: LedgerLocation) -> None:
        reader = StoredFilesReader(ledger)
        try:
            self._path_of = load_path_function(reader)
        except BaseException:
            reader.close()
            raise
        self.totals, self.rows_of, self.close = reader.totals, reader.rows_of, reader.close
        self.unfinished_folders, self._files = reader.unfinished_folders, reader.files

    def files(
        self, *, after: int = 0, last: int | None = None, released: bool = False
    ) -> Iterator[tuple[int, list[StoredFile]]]:
        return self._files(self._path_of, after=after, last=last, released=released)


def open_file_records(folder: JobPlace, manifest: Path | None) -> FileRecords:
    """Open the records of a job, or of ``manifest``. Raises LedgerError, and InputError for a manifest."""
    return _LedgerRecords(folder.ledger) if manifest is None else ManifestRecords(manifest)
