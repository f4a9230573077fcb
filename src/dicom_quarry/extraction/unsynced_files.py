"""Files of unfinished studies after a restart of the computer: not all that was written is on the disk.

A run records in the ledger under which start of the computer, and on which file system, it writes. The record
is removed once everything is durable. If the next run finds another start, it discards the files of
unfinished studies that no outcome made durable; the archive sends their instances again. Of several workers
none knows what has become of the computer of another: each discards such files of a study that it takes up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath

from dicom_quarry.errors import InstanceRefused
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.model import Study
from dicom_quarry.plurals import format_count
from dicom_quarry.system.file_systems import writing_session

#: The record's name among the facts about the job: file systems by the start of the computer that wrote.
_WRITERS = "writers"


@contextmanager
def track_writer(context: JobContext) -> Iterator[None]:
    """Discard what an earlier run may have lost; record this run until its files are durable."""
    ledger = context.ledger
    session, file_system = writing_session(context.folder.out)
    own, known = {session: file_system}, json.loads(ledger.metadata().get(_WRITERS, "{}"))
    if known and (known != own or not session):
        unfinished = ledger.unfinished_folders()
        _report(context, sum(discard_unsynced(context, task.study, [folder]) for task, folder in unfinished))
    if known != own:
        ledger.set_metadata(**{_WRITERS: json.dumps(own)})
    yield
    if context.queries.user_shutdown.cancel_requested:
        return
    with suppress(InstanceRefused):  # the record stays
        for _, folder in ledger.unfinished_folders():
            context.instance_files.sync(context.instance_files.list_files(PurePosixPath(folder)))
        ledger.set_metadata(**{_WRITERS: "{}"})


def note_workers(ledger: Ledger) -> None:
    """Record that workers write: the next run by one process trusts none of their unfinished files."""
    ledger.set_metadata(**{_WRITERS: json.dumps({"workers": ""})})


def discard_unsynced(context: JobContext, study: Study, folders: Iterable[str]) -> int:
    """Discard the files of a study in these folders that are in no outcome; return their number."""
    synced, count = synced_paths(context, study), 0
    for folder in folders:
        found = context.instance_files.find_unsynced(PurePosixPath(folder), study.study_uid, synced)
        unsynced = list(found)
        context.instance_files.discard(unsynced)
        count += len(unsynced)
    return count


def synced_paths(context: JobContext, study: Study) -> set[PurePosixPath]:
    """Return the files of a study that an outcome made durable."""
    return {
        PurePosixPath(path) if path is not None else context.path_of(study, ref)
        for ref, path in context.ledger.stored_instances(study.study_uid)
    }


def _report(context: JobContext, count: int) -> None:
    if count:
        files = format_count(count, "file")
        context.queries.observer.on_message(
            f"The computer was restarted while this job was writing. {files} of unfinished studies may not "
            "be whole: removed, to be fetched again"
        )
