"""Reopens studies in which verify found damage; moves their damaged files to a quarantine folder first."""

from __future__ import annotations

import csv
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dicom_quarry.errors import InputError
from dicom_quarry.extraction.runner import JobResult, Runner
from dicom_quarry.jobs.instance_paths import load_path_function
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.file_state import clear_damage
from dicom_quarry.ledger.ledger import Ledger, concluded_tasks, reopen_with_folders
from dicom_quarry.ledger.stored_files import StoredFile, StoredFilesReader
from dicom_quarry.store.hash_worker import Batch
from dicom_quarry.store.moving import move_file
from dicom_quarry.verification.hash_pool import HashPool, default_threads


@dataclass(frozen=True, slots=True)
class Quarantined:
    """The number of reopened studies, with their damaged and missing instances."""

    studies: int
    damaged_sop_uids: frozenset[str]


def read_study_uids(path: Path, codes: frozenset[str], command: str) -> list[str]:
    """Read the Study Instance UIDs, each once, from the lines of a list with one of these codes.

    Raises InputError if verify has not written the list; ``command`` does.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = csv.DictReader(stream)
            return list(dict.fromkeys(line["study_uid"] for line in lines if line["code"] in codes))
    except FileNotFoundError:
        raise InputError(f"there is no {path}: make it with  {command}") from None
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} was changed and cannot be read ({error}): make it again with  {command}"
        ) from None


def refetch(runner: Runner, study_uids: list[str], *, is_damage: bool = True) -> JobResult:
    """Retrieve studies again; their damaged files are moved to quarantine first.

    ``is_damage``: they are all studies in which damage was found, so that the record has no other.
    """
    with runner.open_job() as (folder, ledger):
        quarantined = quarantine_damaged(folder, ledger, study_uids)
        count = len(quarantined.damaged_sop_uids)
        retried = f"studies tried again: {quarantined.studies}; files damaged or missing: {count}"
        result = runner.run(folder, ledger, retried=retried)
        if count:
            restored = count_restored(folder, quarantined, study_uids)
            runner.queries.observer.on_message(f"{restored} of the {count} are stored again")
        if is_damage:
            # An instance that did not come again is missing from its study, which is not complete any more.
            clear_damage(ledger)
            folder.forget_file_check()
        return result


def quarantine_damaged(folder: JobPlace, ledger: Ledger, study_uids: list[str]) -> Quarantined:
    """Reopen these studies; move each of their files that differs from its record to ``.quarry/damaged``.

    All files of the studies are compared, not only those in damaged.csv: a job adopts every file in the
    folder of an unfinished task.
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
                    move_file(
                        folder.out, PurePosixPath(files[index].path), folder.out / ".quarry" / "damaged"
                    )
            for number in {file.task_id for file in files}:
                reopen_with_folders(ledger, number, {os.path.dirname(file.path) for file in files})  # noqa: PTH120
    return Quarantined(len(task_ids), frozenset(damaged))


def count_restored(folder: JobPlace, quarantined: Quarantined, study_uids: list[str]) -> int:
    """Count the damaged and missing instances that are stored now."""
    with closing(StoredFilesReader(folder.ledger)) as reader:
        return sum(reader.count_stored(study_uid, quarantined.damaged_sop_uids) for study_uid in study_uids)
