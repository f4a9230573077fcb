"""Studies that are fetched again since verify found something: their damaged files are moved aside first."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dicom_quarry.errors import InputError
from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.jobs.instance_paths import load_path_function
from dicom_quarry.ledger.ledger import Ledger, concluded_tasks, reopen_with_folders
from dicom_quarry.ledger.stored_files import StoredFile, StoredFilesReader
from dicom_quarry.store.directories import Directories
from dicom_quarry.store.hash_worker import Batch
from dicom_quarry.verification.hash_pool import HashPool, default_threads


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What was taken up again: so many studies, of which these instances were damaged or missing."""

    studies: int
    damaged_sop_uids: frozenset[str]


def read_study_uids(path: Path, codes: frozenset[str], command: str) -> list[str]:
    """The Study Instance UIDs in a list that verify has left, of lines with these codes; each once.

    Raises InputError where there is no such list; ``how`` is what makes one.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = csv.DictReader(stream)
            return list(dict.fromkeys(line["study_uid"] for line in lines if line["code"] in codes))
    except FileNotFoundError:
        raise InputError(f"there is no {path}: make it with  {command}") from None
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} is not as it was written ({error}): make it again with  {command}"
        ) from None


def quarantine_damaged(folder: JobFolder, ledger: Ledger, study_uids: list[str]) -> Quarantined:
    """Take up these studies; every file of theirs that is not as recorded goes to ``.quarry/damaged``.

    All of their files are compared, also such as no list names: whatever lies in the folder of a task in work
    is taken for what the archive sent.
    """
    task_ids = [number for study_uid in study_uids for number in concluded_tasks(ledger, study_uid)]
    root, damaged = os.fspath(folder.out), set()

    def build_batch(files: list[StoredFile]) -> Batch:
        return root, False, [file[:3] for file in files]

    with closing(StoredFilesReader(folder.ledger)) as reader, HashPool(default_threads()) as pool:
        path_of = load_path_function(reader)
        for files, problems in pool.compare((reader.files_of(path_of, one) for one in task_ids), build_batch):
            for index, (code, _) in problems.items():
                damaged.add(files[index].sop_uid)
                if code != "missing":
                    _quarantine_file(folder.out, files[index].path)
            for number in {file.task_id for file in files}:
                reopen_with_folders(ledger, number, {os.path.dirname(file.path) for file in files})  # noqa: PTH120
    return Quarantined(len(task_ids), frozenset(damaged))


def _quarantine_file(root: Path, path: str) -> None:
    directories = Directories(root / ".quarry" / "damaged")
    target = Path(directories.create(PurePosixPath(path).parent), PurePosixPath(path).name)
    (root / path).rename(next(one for one in _candidate_paths(target) if not one.exists()))


def _candidate_paths(path: Path) -> Iterator[Path]:
    """Where it can be: beside one of the same name that was moved there before."""
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}~{number}")
        number += 1


def count_restored(folder: JobFolder, quarantined: Quarantined, study_uids: list[str]) -> int:
    """Of the damaged and missing instances those that are stored now."""
    with closing(StoredFilesReader(folder.ledger)) as reader:
        return sum(reader.count_stored(study_uid, quarantined.damaged_sop_uids) for study_uid in study_uids)
