"""The options of a verification, its progress and its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.stored_files import FileTotals, StoredFile
from dicom_quarry.ledger.views import DamagedView
from dicom_quarry.verification.file_records import FileRecords
from dicom_quarry.verification.sampling import Sample, max_undetected_damage


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
    """The progress at one moment: files done, of the total; sizes are the recorded ones.

    ``waiting_for`` is the reason of a wait, or empty.
    """

    done: FileTotals
    total: FileTotals
    files_per_second: float
    bytes_per_second: float
    seconds_left: float | None
    waiting_for: str = ""


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


class OpenVerification(Protocol):
    """A verification of a job's files that can be interrupted and resumed; a context.

    ``folder`` is the job, ``manifest`` what its files are compared with, None for its record. ``sample`` is
    None where all files are compared.
    """

    folder: JobPlace
    sample: Sample | None

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    @property
    def manifest(self) -> Path | None:
        """The manifest that the files are compared with; None for the job's record."""

    @property
    def totals(self) -> FileTotals:
        """The files on record."""

    @property
    def interrupted_at(self) -> float | None:
        """The POSIX time at which a resumed verification was interrupted; None for a new one."""

    @property
    def files_done(self) -> int:
        """The number of files that were compared and need not be compared again."""

    @property
    def list_folder(self) -> Path:
        """The folder for the list of damaged files; one of this user's where the job's is read-only."""

    @property
    def may_record(self) -> bool:
        """True if what was found belongs into the record of the job."""

    @property
    def is_with_workers(self) -> bool:
        """True if the workers of a database compare the files, also when this process ends."""

    @property
    def remark(self) -> str:
        """A sentence about who compares the files, or empty."""

    def run(
        self, on_finding: Callable[[FileResult], None], on_progress: Callable[[VerifyProgress], None]
    ) -> VerifySummary | None:
        """Compare the files that are left; report each damaged one, and the progress.

        Returns None if it was stopped from elsewhere.
        """

    def damaged_views(self) -> Iterator[DamagedView]:
        """Yield the findings for a report file."""

    def finish(self) -> None:
        """Called once the findings are reported: the next verification starts over."""


def sample_of(parameters: Mapping[str, Any]) -> Sample | None:
    """Return the sample of a verification's parameters, None for all files."""
    share = parameters["sample_share"]
    return None if share is None else Sample(share, parameters["seed"])


def to_finding(result: FileResult) -> dict[str, object]:
    """Return a result for the list of findings, which is JSON."""
    file = result.file
    values = [file.path, file.size, file.digest.hex(), *file[3:]]
    return {"file": values, "code": result.code, "problem": result.problem}


def to_result(finding: Mapping[str, Any]) -> FileResult:
    """Return the result of a finding."""
    path, size, digest, *rest = finding["file"]
    return FileResult(
        StoredFile(path, size, bytes.fromhex(digest), *rest), finding["problem"], finding["code"]
    )


def unrecorded_file(path: str) -> FileResult:
    """Return the result for a file in the folder that is not in the record."""
    return FileResult(StoredFile(path, 0, b"", 0, "", "", ""), "is not in the record", "stray")


def make_views(records: FileRecords, findings: Iterator[Mapping[str, Any]]) -> Iterator[DamagedView]:
    """Yield findings for a report file."""
    for finding in findings:
        path, size, digest, task_id, study_uid, series_uid, sop_uid = finding["file"]
        rows = records.rows_of(task_id) if task_id else ()
        yield DamagedView(
            rows, path, study_uid, series_uid, sop_uid, finding["code"], finding["problem"], size, digest
        )


def summarize(
    records: FileRecords, done: FileTotals, damaged: int, unrecorded: int, *, is_sample: bool
) -> VerifySummary:
    """Return the result, with what the record has now."""
    recorded = records.totals().files
    return VerifySummary(
        files=done.files,
        size=done.size,
        damaged=damaged,
        unrecorded=unrecorded,
        uncompared=0 if is_sample else max(0, recorded - done.files),
        released=records.totals(released=True).files,
        max_undetected_damage=max_undetected_damage(done.files, recorded) if is_sample and not damaged else 0,
    )


class VerifyMeter:
    """Measures the rate since the start of this run, and the time left at that rate."""

    def __init__(self, records: FileRecords, start: FileTotals, sample_share: float | None) -> None:
        recorded = records.totals()
        fraction = 1.0 if sample_share is None else sample_share
        self._total = FileTotals(round(recorded.files * fraction), round(recorded.size * fraction))
        self._start = start
        self._started_at = time.monotonic()

    def progress(self, done: FileTotals, waiting_for: str = "") -> VerifyProgress:
        """Return the progress after so many files, and what is waited for."""
        seconds = max(time.monotonic() - self._started_at, 0.001)
        rate = (done.files - self._start.files) / seconds
        bytes_rate = (done.size - self._start.size) / seconds
        left = max(0, self._total.size - done.size) / bytes_rate if bytes_rate else None
        return VerifyProgress(done, self._total, rate, bytes_rate, left, waiting_for)
