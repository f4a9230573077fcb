"""Offline, and any time later: is every file that was recorded still there, byte for byte?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.jobs.instance_paths import load_path_function
from dicom_quarry.ledger.stored_files import FileTotals, StoredFile, StoredFilesReader
from dicom_quarry.ledger.views import DamagedView
from dicom_quarry.store.hash_worker import Batch, Problems
from dicom_quarry.verification.checkpoint import Checkpoint, Position
from dicom_quarry.verification.hash_pool import HashPool, default_threads
from dicom_quarry.verification.sampling import Sample, max_undetected_damage
from dicom_quarry.verification.unrecorded_files import UnrecordedFiles

#: Files of a batch, and their bytes: enough to be worth a message, few enough to share among processes.
_BATCH_FILES, _BATCH_BYTES = 250, 64 << 20

#: What can be wrong with a file that was recorded, by code.
DAMAGE_CODES = frozenset({"missing", "size", "content", "unreadable"})


@dataclass(frozen=True, slots=True)
class FileResult:
    """A recorded file as it is found now; ``problem`` is empty where it is as it was."""

    file: StoredFile
    problem: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How to look: at sizes alone if ``quick``; at a random ``share`` of the files, drawn by ``seed``."""

    quick: bool = False
    sample_share: float | None = None
    seed: str | None = None
    threads: int | None = None
    restart: bool = False

    @property
    def is_full(self) -> bool:
        """Every byte of every file is compared."""
        return not self.quick and self.sample_share is None


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """Verify at one moment: what it has looked at, of how much; sizes as they were recorded."""

    done: FileTotals
    total: FileTotals
    files_per_second: float
    bytes_per_second: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class VerifySummary:
    """What a look at all the files came to. ``uncompared`` were recorded while it went on; those of studies
    that were ``released`` are elsewhere.

    ``may_be_damaged``: of a sample without damage, the most files that may be damaged all the same.
    """

    files: int
    size: int
    damaged: int
    unrecorded: int
    uncompared: int
    released: int = 0
    max_undetected_damage: int = 0


@dataclass(frozen=True, slots=True)
class FileBatch:
    """Some files of a page; ``last`` is the task with which the page ends, in its last part, else 0."""

    files: list[StoredFile]
    last_task_id: int


def verify(folder: JobFolder, *, quick: bool = False, threads: int | None = None) -> Iterator[FileResult]:
    """Look at every recorded file: its size and SHA-256, or its size alone if ``quick``."""
    with closing(StoredFilesReader(folder.ledger)) as reader:
        pages = reader.files(load_path_function(reader))
        for part, problems in _compare_files(folder, pages, quick=quick, sample=None, threads=threads):
            for index, file in enumerate(part.files):
                code, problem = problems.get(index, ("", ""))
                yield FileResult(file, problem, code)


class Verification:
    """One look at a job's files that can be interrupted and gone on with; a context.

    Raises StartError where another one is at it. ``since``: when the look that is gone on with was left.
    """

    def __init__(self, folder: JobFolder, options: VerifyOptions) -> None:
        self.folder = folder
        self._options = options
        parameters: dict[str, Any] = {"quick": options.quick, "sample_share": options.sample_share}
        if options.seed is not None:
            parameters["seed"] = options.seed
        self._checkpoint = Checkpoint(folder, "verify", parameters, restart=options.restart)
        self.sample: Sample | None = None

    def __enter__(self) -> Self:
        self._reader = StoredFilesReader(self.folder.ledger)
        try:
            self._path_of = load_path_function(self._reader)
            self._checkpoint.__enter__()
        except BaseException:
            self._reader.close()
            raise
        if self._options.sample_share is not None:
            sample = Sample.draw(self._options.sample_share)
            self.sample = Sample(sample.share, self._checkpoint.parameters.setdefault("seed", sample.seed))
        return self

    def __exit__(self, *error: object) -> None:
        self._checkpoint.__exit__(*error)
        self._reader.close()

    @property
    def interrupted_at(self) -> float | None:
        """When the look that is gone on with was left; None where this is a new one."""
        return self._checkpoint.interrupted_at

    @property
    def files_done(self) -> int:
        """How many files were compared, as far as the next look need not compare them again."""
        return self._checkpoint.position.done

    @property
    def writable_folder(self) -> Path:
        """A folder that can be written to: that of the state, unless this is a read-only copy."""
        return self._checkpoint.folder

    def run(
        self, on_finding: Callable[[FileResult], None], on_progress: Callable[[VerifyProgress], None]
    ) -> VerifySummary:
        """Look at what was not looked at yet; ``found`` hears of every damaged file, ``tick`` of the pace."""
        start, unrecorded = self._checkpoint.position, UnrecordedFiles(self.folder.out)
        pages = self._reader.files(self._path_of, after=start.task_id)
        meter = _VerifyMeter(self._reader, start, self._options.sample_share)
        options = self._options
        parts = _compare_files(
            self.folder, pages, quick=options.quick, sample=self.sample, threads=options.threads
        )
        files, size, damaged = start.done, start.size, start.findings
        for part, problems in parts:
            files, size = files + len(part.files), size + sum(file.size for file in part.files)
            damaged += len(problems)
            unrecorded.add_recorded(part.files)
            for index, (code, problem) in problems.items():
                self._record_finding(FileResult(part.files[index], problem, code), on_finding)
            if part.last_task_id:
                self._checkpoint.save(Position(part.last_task_id, files, size, damaged))
            on_progress(meter.progress(files, size))
        unrecorded_count = 0 if self.sample else self._find_unrecorded(unrecorded, start, on_finding)
        return self._summarize(files, size, damaged, unrecorded_count)

    def _record_finding(self, result: FileResult, on_finding: Callable[[FileResult], None]) -> None:
        file = result.file
        file_values = [file.path, file.size, file.digest.hex(), *file[3:]]
        self._checkpoint.add_finding({"file": file_values, "code": result.code, "problem": result.problem})
        on_finding(result)

    def _find_unrecorded(
        self, unrecorded: UnrecordedFiles, start: Position, on_finding: Callable[[FileResult], None]
    ) -> int:
        if start.task_id:
            # What an earlier run has looked at belongs here, too.
            for _, page in self._reader.files(self._path_of, last=start.task_id):
                unrecorded.add_recorded(page)
        for finding in self._checkpoint.findings():
            if finding["code"] == "missing":
                unrecorded.add_missing(finding["file"][0])
        number = 0
        for path in unrecorded.find(self._reader, self._path_of):
            number += 1
            self._record_finding(
                FileResult(StoredFile(path, 0, b"", 0, "", "", ""), "is not in the record", "stray"),
                on_finding,
            )
        return number

    def _summarize(self, files: int, size: int, damaged: int, unrecorded: int) -> VerifySummary:
        recorded = self._reader.totals().files
        return VerifySummary(
            files=files,
            size=size,
            damaged=damaged,
            unrecorded=unrecorded,
            uncompared=0 if self.sample else max(0, recorded - files),
            released=self._reader.totals(released=True).files,
            max_undetected_damage=max_undetected_damage(files, recorded)
            if self.sample and not damaged
            else 0,
        )

    def damaged_views(self) -> Iterator[DamagedView]:
        """What was found, for a report file."""
        for finding in self._checkpoint.findings():
            path, size, digest, task_id, study_uid, series_uid, sop_uid = finding["file"]
            rows = self._reader.rows_of(task_id) if task_id else ()
            yield DamagedView(
                rows, path, study_uid, series_uid, sop_uid, finding["code"], finding["problem"], size, digest
            )

    def finish(self) -> None:
        """The results are where they belong: the next look begins anew."""
        self._checkpoint.finish()


def _compare_files(
    folder: JobFolder,
    pages: Iterator[tuple[int, list[StoredFile]]],
    *,
    quick: bool,
    sample: Sample | None,
    threads: int | None,
) -> Iterator[tuple[FileBatch, Problems]]:
    root = os.fspath(folder.out)

    def build_batch(part: FileBatch) -> Batch:
        return root, quick, [file[:3] for file in part.files]

    with HashPool(threads or default_threads()) as pool:
        yield from pool.compare(_split_into_batches(pages, sample), build_batch)


def _split_into_batches(
    pages: Iterator[tuple[int, list[StoredFile]]], sample: Sample | None
) -> Iterator[FileBatch]:
    for last, page in pages:
        files: list[StoredFile] = []
        size = 0
        for file in page if sample is None else [file for file in page if file.sop_uid in sample]:
            if files and (len(files) >= _BATCH_FILES or size + file.size > _BATCH_BYTES):
                yield FileBatch(files, 0)
                files, size = [], 0
            files.append(file)
            size += file.size
        yield FileBatch(files, last)


class _VerifyMeter:
    """The pace since the start of this run, and what is left at that pace."""

    def __init__(self, reader: StoredFilesReader, start: Position, sample_share: float | None) -> None:
        recorded = reader.totals()
        fraction = 1.0 if sample_share is None else sample_share
        self._total = FileTotals(round(recorded.files * fraction), round(recorded.size * fraction))
        self._start = start
        self._started_at = time.monotonic()

    def progress(self, files: int, size: int) -> VerifyProgress:
        seconds = max(time.monotonic() - self._started_at, 0.001)
        rate = (files - self._start.done) / seconds
        bytes_rate = (size - self._start.size) / seconds
        left = max(0, self._total.size - size) / bytes_rate if bytes_rate else None
        return VerifyProgress(FileTotals(files, size), self._total, rate, bytes_rate, left)
