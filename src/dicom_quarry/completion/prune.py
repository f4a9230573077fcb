"""Moves the files of studies that no row requests any more out of the tree, or deletes them on request.

The audit log has a line before the first file of a study is moved, and the record forgets the study after the
last one. So a prune that was killed is continued by the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dicom_quarry.config.settings import parse_recorded_settings
from dicom_quarry.errors import InputError, StartError
from dicom_quarry.jobs.audit_log import AuditLog
from dicom_quarry.jobs.instance_paths import load_path_function
from dicom_quarry.jobs.open_place import open_for_run
from dicom_quarry.jobs.place import WORKERS, Holder, JobPlace
from dicom_quarry.ledger.orphans import OrphanedStudy, Orphans
from dicom_quarry.ledger.reader import PathFunction
from dicom_quarry.ledger.stored_files import StoredFile, StoredFilesReader
from dicom_quarry.plurals import format_count
from dicom_quarry.store.directories import Directories
from dicom_quarry.store.moving import move_file, remove_empty_folders

#: Folder below the output folder to which the files are moved, as they were.
_PRUNED = PurePosixPath(".quarry/pruned")


@dataclass(frozen=True, slots=True)
class PrunedStudy:
    """A study whose files were moved away or deleted, with the number and the bytes of these files."""

    study_uid: str
    files: int
    size: int


def pruned_folder(folder: JobPlace) -> Path:
    """Return the folder to which the files of a job are moved."""
    return folder.out / _PRUNED


def prune_studies(folder: JobPlace, *, delete: bool) -> Iterator[PrunedStudy]:
    """Move the files of every study that no row requests any more; with ``delete`` delete them.

    Files that a row requests through another task of the study stay. Raises InputError while rows wait to be
    searched for, and StartError while the job runs.
    """
    if folder.holder() == Holder(0, WORKERS):  # they have no lock
        raise StartError(f"{WORKERS} have {folder.label}: prune when it has ended")
    folder.note_action("prune_requested", "files are deleted" if delete else "files are moved away")
    with open_for_run(folder) as ledger, closing(StoredFilesReader(folder.ledger)) as reader:
        orphans = Orphans(ledger.database)
        if waiting := orphans.count_waiting_rows():
            raise InputError(
                f"{format_count(waiting, 'row')} of this job {'has' if waiting == 1 else 'have'} not been "
                "searched for yet, and may need these studies: run the job first, with  quarry resume "
                f"{folder.label}"
            )
        path_of = load_path_function(reader)
        protocol = parse_recorded_settings(reader.metadata()).protocol
        with folder.open_audit_log(ledger, protocol) as audit_log:
            for one in orphans.list():
                yield _prune_study(folder, one, _files_of(reader, path_of, one), audit_log, delete=delete)
                orphans.forget(one.task_ids)


def _files_of(reader: StoredFilesReader, path_of: PathFunction, one: OrphanedStudy) -> list[StoredFile]:
    """Return the files of a study that no requested task of it has, each once."""
    kept = {file.path for number in one.requested_task_ids for file in reader.files_of(path_of, number)}
    files = {file.path: file for number in one.task_ids for file in reader.files_of(path_of, number)}
    return [file for path, file in files.items() if path not in kept]


def _prune_study(
    folder: JobPlace, one: OrphanedStudy, files: list[StoredFile], audit_log: AuditLog, *, delete: bool
) -> PrunedStudy:
    present = [file for file in files if (folder.out / file.path).is_file()]
    size = sum(file.size for file in present)
    details = "no row requests it: files are " + ("deleted" if delete else f"moved to {_PRUNED}")
    audit_log.write("pruned", one.study, instances=len(present), bytes=size, details=details)
    directories = Directories(folder.out)
    for file in present:
        path = PurePosixPath(file.path)
        if delete:
            directories.unlink(path)
        else:
            move_file(folder.out, path, pruned_folder(folder))
    remove_empty_folders(folder.out, {(folder.out / file.path).parent for file in present})
    return PrunedStudy(one.study.study_uid, len(present), size)
