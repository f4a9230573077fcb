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
from dicom_quarry.jobs.instance_paths import derive_of
from dicom_quarry.ledger.stored_files import Amount, StoredFile, StoredReader
from dicom_quarry.ledger.views import DamagedView
from dicom_quarry.store.hash_worker import Batch, Problems
from dicom_quarry.verification.checkpoint import Bookmark, Mark
from dicom_quarry.verification.hash_pool import Checkers, default_threads
from dicom_quarry.verification.sampling import Sample, at_most_damaged
from dicom_quarry.verification.unrecorded_files import Strays

#: Files of a batch, and their bytes: enough to be worth a message, few enough to share among processes.
_FILES, _BYTES = 250, 64 << 20

#: What can be wrong with a file that was recorded, by code.
DAMAGED = frozenset({"missing", "size", "content", "unreadable"})


@dataclass(frozen=True, slots=True)
class Checked:
    """A recorded file as it is found now; ``problem`` is empty where it is as it was."""

    file: StoredFile
    problem: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Manner:
    """How to look: at sizes alone if ``quick``; at a random ``share`` of the files, drawn by ``seed``."""

    quick: bool = False
    share: float | None = None
    seed: str | None = None
    threads: int | None = None
    restart: bool = False

    @property
    def whole(self) -> bool:
        """Every byte of every file is compared."""
        return not self.quick and self.share is None


@dataclass(frozen=True, slots=True)
class Pace:
    """Verify at one moment: what it has looked at, of how much; sizes as they were recorded."""

    done: Amount
    all: Amount
    files_per_second: float
    bytes_per_second: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Verified:
    """What a look at all the files came to. ``uncompared`` were recorded while it went on; those of studies
    that were ``released`` are elsewhere.

    ``may_be_damaged``: of a sample without damage, the most files that may be damaged all the same.
    """

    files: int
    size: int
    damaged: int
    strays: int
    uncompared: int
    released: int = 0
    may_be_damaged: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """Some files of a page; ``last`` is the task with which the page ends, in its last part, else 0."""

    files: list[StoredFile]
    last: int


def verify(folder: JobFolder, *, quick: bool = False, threads: int | None = None) -> Iterator[Checked]:
    """Look at every recorded file: its size and SHA-256, or its size alone if ``quick``."""
    with closing(StoredReader(folder.ledger)) as reader:
        pages = reader.files(derive_of(reader))
        for part, problems in _compared(folder, pages, quick=quick, sample=None, threads=threads):
            for at, file in enumerate(part.files):
                code, said = problems.get(at, ("", ""))
                yield Checked(file, said, code)


class Verification:
    """One look at a job's files that can be interrupted and gone on with; a context.

    Raises StartError where another one is at it. ``since``: when the look that is gone on with was left.
    """

    def __init__(self, folder: JobFolder, manner: Manner) -> None:
        self.folder = folder
        self._manner = manner
        same: dict[str, Any] = {"quick": manner.quick, "share": manner.share}
        if manner.seed is not None:
            same["seed"] = manner.seed
        self._bookmark = Bookmark(folder, "verify", same, restart=manner.restart)
        self.sample: Sample | None = None

    def __enter__(self) -> Self:
        self._reader = StoredReader(self.folder.ledger)
        try:
            self._derive = derive_of(self._reader)
            self._bookmark.__enter__()
        except BaseException:
            self._reader.close()
            raise
        if self._manner.share is not None:
            drawn = Sample.drawn(self._manner.share)
            self.sample = Sample(drawn.share, self._bookmark.manner.setdefault("seed", drawn.seed))
        return self

    def __exit__(self, *error: object) -> None:
        self._bookmark.__exit__(*error)
        self._reader.close()

    @property
    def since(self) -> float | None:
        """When the look that is gone on with was left; None where this is a new one."""
        return self._bookmark.since

    @property
    def looked_at(self) -> int:
        """How many files were compared, as far as the next look need not compare them again."""
        return self._bookmark.mark.done

    @property
    def kept_in(self) -> Path:
        """A folder that can be written to: that of the state, unless this is a read-only copy."""
        return self._bookmark.folder

    def run(self, found: Callable[[Checked], None], tick: Callable[[Pace], None]) -> Verified:
        """Look at what was not looked at yet; ``found`` hears of every damaged file, ``tick`` of the pace."""
        mark, strays = self._bookmark.mark, Strays(self.folder.out)
        pages = self._reader.files(self._derive, after=mark.task)
        meter = _Meter(self._reader, mark, self._manner.share)
        manner = self._manner
        parts = _compared(self.folder, pages, quick=manner.quick, sample=self.sample, threads=manner.threads)
        files, size, damaged = mark.done, mark.size, mark.found
        for part, problems in parts:
            files, size = files + len(part.files), size + sum(file.size for file in part.files)
            damaged += len(problems)
            strays.recorded(part.files)
            for at, (code, said) in problems.items():
                self._tell(Checked(part.files[at], said, code), found)
            if part.last:
                self._bookmark.keep(Mark(part.last, files, size, damaged))
            tick(meter.pace(files, size))
        number = 0 if self.sample else self._find_strays(strays, mark, found)
        return self._verified(files, size, damaged, number)

    def _tell(self, checked: Checked, found: Callable[[Checked], None]) -> None:
        file = checked.file
        told = [file.path, file.size, file.digest.hex(), *file[3:]]
        self._bookmark.add({"file": told, "code": checked.code, "said": checked.problem})
        found(checked)

    def _find_strays(self, strays: Strays, before: Mark, found: Callable[[Checked], None]) -> int:
        if before.task:
            # What an earlier run has looked at belongs here, too.
            for _, page in self._reader.files(self._derive, upto=before.task):
                strays.recorded(page)
        for finding in self._bookmark.findings():
            if finding["code"] == "missing":
                strays.missing(finding["file"][0])
        number = 0
        for path in strays.find(self._reader, self._derive):
            number += 1
            self._tell(
                Checked(StoredFile(path, 0, b"", 0, "", "", ""), "is not in the record", "stray"), found
            )
        return number

    def _verified(self, files: int, size: int, damaged: int, strays: int) -> Verified:
        recorded = self._reader.amount().files
        return Verified(
            files=files,
            size=size,
            damaged=damaged,
            strays=strays,
            uncompared=0 if self.sample else max(0, recorded - files),
            released=self._reader.amount(released=True).files,
            may_be_damaged=at_most_damaged(files, recorded) if self.sample and not damaged else 0,
        )

    def damaged(self) -> Iterator[DamagedView]:
        """What was found, for a report file."""
        for finding in self._bookmark.findings():
            path, size, digest, task_id, study_uid, series_uid, sop_uid = finding["file"]
            rows = self._reader.rows_of(task_id) if task_id else ()
            yield DamagedView(
                rows, path, study_uid, series_uid, sop_uid, finding["code"], finding["said"], size, digest
            )

    def finish(self) -> None:
        """The results are where they belong: the next look begins anew."""
        self._bookmark.finish()


def _compared(
    folder: JobFolder,
    pages: Iterator[tuple[int, list[StoredFile]]],
    *,
    quick: bool,
    sample: Sample | None,
    threads: int | None,
) -> Iterator[tuple[Part, Problems]]:
    root = os.fspath(folder.out)

    def batch(part: Part) -> Batch:
        return root, quick, [file[:3] for file in part.files]

    with Checkers(threads or default_threads()) as checkers:
        yield from checkers.check(_parts(pages, sample), batch)


def _parts(pages: Iterator[tuple[int, list[StoredFile]]], sample: Sample | None) -> Iterator[Part]:
    for last, page in pages:
        files: list[StoredFile] = []
        size = 0
        for file in page if sample is None else [file for file in page if file.sop_uid in sample]:
            if files and (len(files) >= _FILES or size + file.size > _BYTES):
                yield Part(files, 0)
                files, size = [], 0
            files.append(file)
            size += file.size
        yield Part(files, last)


class _Meter:
    """The pace since the start of this run, and what is left at that pace."""

    def __init__(self, reader: StoredReader, mark: Mark, share: float | None) -> None:
        everything = reader.amount()
        part = 1.0 if share is None else share
        self._all = Amount(round(everything.files * part), round(everything.size * part))
        self._before = mark
        self._began = time.monotonic()

    def pace(self, files: int, size: int) -> Pace:
        seconds = max(time.monotonic() - self._began, 0.001)
        rate = (files - self._before.done) / seconds
        bytes_rate = (size - self._before.size) / seconds
        left = max(0, self._all.size - size) / bytes_rate if bytes_rate else None
        return Pace(Amount(files, size), self._all, rate, bytes_rate, left)
