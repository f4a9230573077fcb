"""Compares every recorded file with the disk, byte for byte; needs no archive.

The record is that of the job, or a manifest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.stored_files import FileTotals, StoredFile
from dicom_quarry.ledger.views import DamagedView
from dicom_quarry.store.hash_worker import Batch, Problems
from dicom_quarry.verification.checkpoint import Checkpoint, Position
from dicom_quarry.verification.file_records import FileRecords, open_file_records
from dicom_quarry.verification.hash_pool import HashPool, default_threads
from dicom_quarry.verification.sampling import Sample, max_undetected_damage
from dicom_quarry.verification.unrecorded_files import UnrecordedFiles

#: Most files and bytes of a batch: large enough for little overhead, small enough to keep all processes busy.
_BATCH_FILES, _BATCH_BYTES = 250, 64 << 20

#: The codes of damage to a recorded file.
DAMAGE_CODES = frozenset({"missing", "size", "content", "unreadable"})
#: Those that a comparison of sizes finds, and so finds mended.
SIZE_CODES = frozenset({"missing", "size"})


@dataclass(frozen=True, slots=True)
class FileResult:
    """The result for one file; ``problem`` is empty if the file is as recorded."""

    file: StoredFile
    problem: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """Options: ``quick`` compares sizes only; ``sample_share`` selects a share of the files by ``seed``.

    ``manifest`` is compared with instead of the job's record.
    """

    quick: bool = False
    sample_share: float | None = None
    seed: str | None = None
    threads: int | None = None
    restart: bool = False
    manifest: Path | None = None

    @property
    def is_full(self) -> bool:
        """True if every byte of every file is compared."""
        return not self.quick and self.sample_share is None


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """The progress at one moment: files done, of the total; sizes are the recorded ones."""

    done: FileTotals
    total: FileTotals
    files_per_second: float
    bytes_per_second: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class VerifySummary:
    """The result of a verification.

    ``uncompared`` files were recorded while it ran. ``released`` files are elsewhere and were not compared.
    ``max_undetected_damage`` is for a sample without damage: the most files that may be damaged.
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
    """Some files of a page; ``last_task_id`` is the last task of the page in its last batch, else 0."""

    files: list[StoredFile]
    last_task_id: int


def verify(
    folder: JobPlace,
    *,
    quick: bool = False,
    threads: int | None = None,
    manifest: Path | None = None,
    on_progress: Callable[[VerifyProgress], None] = lambda _: None,
) -> Iterator[FileResult]:
    """Compare every recorded file by size and SHA-256, or only by size if ``quick``.

    ``manifest`` is compared with instead of the job's record.
    """
    with closing(open_file_records(folder, manifest)) as records:
        pages, files, size = records.files(), 0, 0
        meter = _VerifyMeter(records, Position(0, 0, 0, 0), None)
        for part, problems in _compare_files(folder, pages, quick=quick, sample=None, threads=threads):
            for index, file in enumerate(part.files):
                code, problem = problems.get(index, ("", ""))
                yield FileResult(file, problem, code)
            files, size = files + len(part.files), size + sum(file.size for file in part.files)
            on_progress(meter.progress(files, size))


class VerificationRun:
    """A verification of a job's files that can be interrupted and resumed; a context.

    Raises StartError while another verification of the job runs.
    """

    def __init__(self, folder: JobPlace, options: VerifyOptions) -> None:
        self.folder = folder
        self._options = options
        parameters: dict[str, Any] = {"quick": options.quick, "sample_share": options.sample_share}
        if options.seed is not None:
            parameters["seed"] = options.seed
        if options.manifest is not None:
            found = options.manifest.stat()
            parameters["manifest"] = [str(options.manifest.absolute()), found.st_size, found.st_mtime_ns]
        self._checkpoint = Checkpoint(folder, "verify", parameters, restart=options.restart)
        self.sample: Sample | None = None

    def __enter__(self) -> Self:
        self._records = open_file_records(self.folder, self._options.manifest)
        try:
            self._checkpoint.__enter__()
        except BaseException:
            self._records.close()
            raise
        if self._options.sample_share is not None:
            sample = Sample.draw(self._options.sample_share)
            self.sample = Sample(sample.share, self._checkpoint.parameters.setdefault("seed", sample.seed))
        return self

    def __exit__(self, *error: object) -> None:
        self._checkpoint.__exit__(*error)
        self._records.close()

    @property
    def manifest(self) -> Path | None:
        """The manifest that the files are compared with; None for the job's record."""
        return self._options.manifest

    @property
    def totals(self) -> FileTotals:
        """The files on record."""
        return self._records.totals()

    @property
    def interrupted_at(self) -> float | None:
        """The POSIX time at which a resumed verification was interrupted; None for a new one."""
        return self._checkpoint.interrupted_at

    @property
    def files_done(self) -> int:
        """The number of files that were compared and need not be compared again."""
        return self._checkpoint.position.done

    @property
    def writable_folder(self) -> Path:
        """The state folder; for a read-only copy of a job, a folder of this user."""
        return self._checkpoint.folder

    def run(
        self, on_finding: Callable[[FileResult], None], on_progress: Callable[[VerifyProgress], None]
    ) -> VerifySummary:
        """Compare the remaining files; report each damaged one, and the progress after each batch."""
        start, unrecorded = self._checkpoint.position, UnrecordedFiles(self.folder.out)
        pages = self._records.files(after=start.task_id)
        meter = _VerifyMeter(self._records, start, self._options.sample_share)
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
            # Files that were compared before an interruption are recorded files, too.
            for _, page in self._records.files(last=start.task_id):
                unrecorded.add_recorded(page)
        for finding in self._checkpoint.findings():
            if finding["code"] == "missing":
                unrecorded.add_missing(finding["file"][0])
        number = 0
        for path in unrecorded.find(self._records):
            number += 1
            self._record_finding(
                FileResult(StoredFile(path, 0, b"", 0, "", "", ""), "is not in the record", "stray"),
                on_finding,
            )
        return number

    def _summarize(self, files: int, size: int, damaged: int, unrecorded: int) -> VerifySummary:
        recorded = self._records.totals().files
        return VerifySummary(
            files=files,
            size=size,
            damaged=damaged,
            unrecorded=unrecorded,
            uncompared=0 if self.sample else max(0, recorded - files),
            released=self._records.totals(released=True).files,
            max_undetected_damage=max_undetected_damage(files, recorded)
            if self.sample and not damaged
            else 0,
        )

    def damaged_views(self) -> Iterator[DamagedView]:
        """Yield the findings for a report file."""
        for finding in self._checkpoint.findings():
            path, size, digest, task_id, study_uid, series_uid, sop_uid = finding["file"]
            rows = self._records.rows_of(task_id) if task_id else ()
            yield DamagedView(
                rows, path, study_uid, series_uid, sop_uid, finding["code"], finding["problem"], size, digest
            )

    def finish(self) -> None:
        """Remove the checkpoint once the results are reported: the next verification starts over."""
        self._checkpoint.finish()


def _compare_files(
    folder: JobPlace,
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
    """Measures the rate since the start of this run, and the time left at that rate."""

    def __init__(self, records: FileRecords, start: Position, sample_share: float | None) -> None:
        recorded = records.totals()
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
