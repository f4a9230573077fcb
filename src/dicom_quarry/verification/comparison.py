"""Compares pages of recorded files with the disk, in several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.stored_files import FileTotals, StoredFile
from dicom_quarry.store.hash_worker import Batch
from dicom_quarry.verification.hash_pool import HashPool, default_threads
from dicom_quarry.verification.results import FileResult
from dicom_quarry.verification.sampling import Sample

#: Most files and bytes of a batch: large enough for little overhead, small enough to keep all processes busy.
_BATCH_FILES, _BATCH_BYTES = 250, 64 << 20


@dataclass(frozen=True, slots=True)
class _FileBatch:
    """Some files of a page; ``last_task_id`` is the last task of the page in its last batch, else 0."""

    files: list[StoredFile]
    last_task_id: int


@dataclass(frozen=True, slots=True)
class ComparedBatch:
    """Some files that were compared, and the codes and problems of those that are not as recorded, by index.

    ``last_task_id`` is the last study that was compared wholly with this batch, else 0.
    """

    files: list[StoredFile]
    problems: dict[int, tuple[str, str]]
    last_task_id: int

    @property
    def totals(self) -> FileTotals:
        """The number of files, and their recorded bytes."""
        return FileTotals(len(self.files), sum(file.size for file in self.files))

    def results(self) -> Iterator[FileResult]:
        """Yield the result of every file."""
        for index, file in enumerate(self.files):
            code, problem = self.problems.get(index, ("", ""))
            yield FileResult(file, problem, code)

    def damaged(self) -> Iterator[FileResult]:
        """Yield the results of the files that are not as recorded."""
        for index, (code, problem) in self.problems.items():
            yield FileResult(self.files[index], problem, code)


def compare_files(
    folder: JobPlace,
    pages: Iterator[tuple[int, list[StoredFile]]],
    *,
    quick: bool,
    sample: Sample | None = None,
    threads: int | None = None,
) -> Iterator[ComparedBatch]:
    """Compare pages of files with the disk, in their order; ``quick`` compares sizes, ``sample`` a part.

    ``threads`` is the number of processes, by default that of the processors. Raises StartError.
    """
    root = os.fspath(folder.out)

    def build_batch(part: _FileBatch) -> Batch:
        return root, quick, [file[:3] for file in part.files]

    with HashPool(threads or default_threads()) as pool:
        for part, problems in pool.compare(_split_into_batches(pages, sample), build_batch):
            yield ComparedBatch(part.files, problems, part.last_task_id)


def _split_into_batches(
    pages: Iterator[tuple[int, list[StoredFile]]], sample: Sample | None
) -> Iterator[_FileBatch]:
    for last, page in pages:
        files: list[StoredFile] = []
        size = 0
        for file in page if sample is None else [file for file in page if file.sop_uid in sample]:
            if files and (len(files) >= _BATCH_FILES or size + file.size > _BATCH_BYTES):
                yield _FileBatch(files, 0)
                files, size = [], 0
            files.append(file)
            size += file.size
        yield _FileBatch(files, last)
