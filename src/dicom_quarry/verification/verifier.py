"""Compares every recorded file with the disk, byte for byte; needs no archive.

The record is that of the job, or a manifest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.stored_files import FileTotals
from dicom_quarry.ledger.views import DamagedView
from dicom_quarry.verification.checkpoint import Checkpoint, Position
from dicom_quarry.verification.comparison import compare_files
from dicom_quarry.verification.file_records import open_file_records
from dicom_quarry.verification.results import (
    FileResult,
    VerifyMeter,
    VerifyOptions,
    VerifyProgress,
    VerifySummary,
    make_views,
    summarize,
    to_finding,
    unrecorded_file,
)
from dicom_quarry.verification.sampling import Sample
from dicom_quarry.verification.unrecorded_files import UnrecordedFiles


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
        done = FileTotals(0, 0)
        meter = VerifyMeter(records, done, None)
        for batch in compare_files(folder, records.files(), quick=quick, threads=threads):
            yield from batch.results()
            done += batch.totals
            on_progress(meter.progress(done))


class VerificationRun:
    """A verification by this process; see :class:`results.OpenVerification`.

    Raises StartError while another verification of the job runs.
    """

    #: It ends with this process.
    is_with_workers = False
    remark = ""

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
    def list_folder(self) -> Path:
        """The folder of the job; for a read-only copy, a folder of this user."""
        return self.folder.out if os.access(self.folder.out, os.W_OK) else self._checkpoint.folder

    @property
    def may_record(self) -> bool:
        """True for a comparison with the record of a job that this user may change."""
        return self.manifest is None and self._checkpoint.folder == self.folder.state

    def run(
        self, on_finding: Callable[[FileResult], None], on_progress: Callable[[VerifyProgress], None]
    ) -> VerifySummary:
        """Compare the remaining files; report each damaged one, and the progress after each batch."""
        start, unrecorded = self._checkpoint.position, UnrecordedFiles(self.folder.out)
        pages = self._records.files(after=start.task_id)
        done, damaged = FileTotals(start.done, start.size), start.findings
        meter = VerifyMeter(self._records, done, self._options.sample_share)
        options = self._options
        batches = compare_files(
            self.folder, pages, quick=options.quick, sample=self.sample, threads=options.threads
        )
        for batch in batches:
            done += batch.totals
            damaged += len(batch.problems)
            unrecorded.add_recorded(batch.files)
            for result in batch.damaged():
                self._record_finding(result, on_finding)
            if batch.last_task_id:
                self._checkpoint.save(Position(batch.last_task_id, done.files, done.size, damaged))
            on_progress(meter.progress(done))
        unrecorded_count = 0 if self.sample else self._find_unrecorded(unrecorded, start, on_finding)
        return summarize(self._records, done, damaged, unrecorded_count, is_sample=self.sample is not None)

    def _record_finding(self, result: FileResult, on_finding: Callable[[FileResult], None]) -> None:
        self._checkpoint.add_finding(to_finding(result))
        on_finding(result)

    def _find_unrecorded(
        self, unrecorded: UnrecordedFiles, start: Position, on_finding: Callable[[FileResult], None]
    ) -> int:
        if start.task_id:
            # Files that were compared before an interruption are recorded files, too.
            for _, page in self._records.files(last=start.task_id):
                unrecorded.add_recorded(page)
        unrecorded.add_missing_of(self._checkpoint.findings())
        number = 0
        for path in unrecorded.find(self._records):
            number += 1
            self._record_finding(unrecorded_file(path), on_finding)
        return number

    def damaged_views(self) -> Iterator[DamagedView]:
        """Yield the findings for a report file."""
        return make_views(self._records, self._checkpoint.findings())

    def finish(self) -> None:
        """Remove the checkpoint once the results are reported: the next verification starts over."""
        self._checkpoint.finish()
