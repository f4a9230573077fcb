"""The quick check of a finished job that is run again: are its files still there, with their sizes.

It reads no file. First the folder of each study is looked for, which takes a moment even for thousands of
studies. Then the sizes of the files are compared, in threads, as a disk on the network answers several
requests at once; after a minute the check ends, and reports how far it came.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from dicom_quarry.jobs.instance_paths import load_path_function
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.stored_files import StoredFile, StoredFilesReader
from dicom_quarry.store.hash_worker import Problems, compare_batch

#: Seconds for which sizes are compared.
TIME_LIMIT = 60.0

_THREADS = 8
#: Files of one task of a thread.
_BATCH = 500
#: A buffer for the contents of files, of which none is read.
_NO_BUFFER = memoryview(bytearray(1))


@dataclass(frozen=True, slots=True)
class LostFile:
    """A file that is missing or has another size, with the code and the end of a sentence about it."""

    file: StoredFile
    code: str
    problem: str


@dataclass(frozen=True, slots=True)
class QuickCheck:
    """The result: ``files`` of ``total`` were compared, in ``seconds``; ``gone_studies`` have no folder."""

    files: int
    total: int
    seconds: float
    lost: tuple[LostFile, ...]
    gone_studies: int = 0

    @property
    def study_uids(self) -> list[str]:
        """The studies with lost files."""
        return list(dict.fromkeys(one.file.study_uid for one in self.lost))


def check_sizes(folder: JobPlace, *, time_limit: float = TIME_LIMIT) -> QuickCheck:
    """Compare the sizes of the files that rows of the job want, and that are not released or excluded."""
    started = time.monotonic()
    with closing(StoredFilesReader(folder.ledger)) as reader:
        wanted = reader.wanted_folders()
        gone = {task for task, (place, _) in wanted.items() if not os.path.isdir(folder.out / place)}  # noqa: PTH112
        path_of = load_path_function(reader)
        lost = [
            LostFile(file, "missing", "is missing")
            for task in sorted(gone)
            for file in reader.files_of(path_of, task)
        ]
        files = len(lost)
        remaining = wanted.keys() - gone
        pages = (page for _, page in reader.files(path_of))
        batches = _split([file for file in page if file.task_id in remaining] for page in pages)
        for batch, problems in _compare(os.fspath(folder.out), batches, started + time_limit):
            files += len(batch)
            lost += [LostFile(batch[index], *found) for index, found in problems.items()]
    total = max(files, sum(stored for _, stored in wanted.values()))
    return QuickCheck(files, total, time.monotonic() - started, tuple(lost), len(gone))


def _split(pages: Iterator[list[StoredFile]]) -> Iterator[list[StoredFile]]:
    for page in pages:
        rest = iter(page)
        while batch := list(islice(rest, _BATCH)):
            yield batch


def _compare(
    root: str, batches: Iterator[list[StoredFile]], deadline: float
) -> Iterator[tuple[list[StoredFile], Problems]]:
    """Compare batches in threads, a few ahead of the results; no new one after the deadline."""
    waiting: list[tuple[list[StoredFile], Future[Problems]]] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in batches:
            records = [file[:3] for file in batch]
            waiting.append((batch, pool.submit(compare_batch, (root, True, records), _NO_BUFFER)))
            if len(waiting) > 2 * _THREADS:
                first, result = waiting.pop(0)
                yield first, result.result()
            if time.monotonic() >= deadline:
                break
        for batch, result in waiting:
            yield batch, result.result()
