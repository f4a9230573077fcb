"""Lists every complete study again, and compares the lists with the record. Retrieves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from dicom_quarry.errors import ConnectionLost, OperatorActionRequired, QueryFailed, redact
from dicom_quarry.extraction.archive_client import ArchiveClient, open_clients
from dicom_quarry.extraction.query_context import QueryContext
from dicom_quarry.extraction.query_thread import QueryThread, run_with_progress
from dicom_quarry.jobs.folder import logging_to
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.stored_files import StoredFilesReader
from dicom_quarry.ledger.views import ChangeView
from dicom_quarry.model import Task
from dicom_quarry.plurals import format_count
from dicom_quarry.system.shutdown import Shutdown
from dicom_quarry.verification.checkpoint import Checkpoint, Position

#: A difference: code, description, series UID and SOP Instance UID; UIDs that do not apply are empty.
_Difference = tuple[str, str, str, str]

NEW, GONE, STUDY_GONE, NOT_COMPARED = "new", "gone", "study_gone", "not_compared"


@dataclass(frozen=True, slots=True)
class ArchiveDiff:
    """The result of a comparison: ``studies`` listed again, of ``total`` complete ones.

    ``studies_by_code`` counts the ``changed_studies`` by code, ``instances_by_code`` the changes in them.
    ``problem`` is what an operator must do before the comparison can go on.
    """

    studies: int
    total: int
    changed_studies: int
    studies_by_code: Mapping[str, int]
    instances_by_code: Mapping[str, int]
    problem: str = ""

    @property
    def is_finished(self) -> bool:
        """True if all complete studies were listed."""
        return self.studies >= self.total and not self.problem


def compare(
    context: QueryContext,
    folder: JobPlace,
    write: Callable[[Iterator[ChangeView]], object],
    *,
    restart: bool,
) -> ArchiveDiff:
    """List every complete study again, or go on with that; ``write`` gets what has changed, at the end.

    Raises StartError while a job runs in the folder: a job and a comparison do not query an archive at once.
    """
    context.report_limits()
    checkpoint = Checkpoint(folder, "archive-diff", {}, restart=restart)
    with (
        folder.lock(),
        logging_to(folder.log),
        closing(StoredFilesReader(folder.ledger)) as reader,
        checkpoint,
    ):
        total, before = reader.count_complete(), checkpoint.position.done
        if checkpoint.interrupted_at is not None:
            context.observer.on_message(
                f"resuming after {format_count(before, 'study')}; --restart starts over"
            )
        problem = ""
        if before < total:
            problem = _run_queries(context, reader, checkpoint, total)
        diff = _build_diff(checkpoint, total, problem)
        if diff.is_finished:
            write(_change_views(reader, checkpoint))
            checkpoint.finish()
    return diff


def _run_queries(context: QueryContext, reader: StoredFilesReader, checkpoint: Checkpoint, total: int) -> str:
    with open_clients(context, has_delivered=True) as clients:
        query_thread = _ListingThread(clients, reader, checkpoint, context.shutdown)
        try:
            run_with_progress(context, query_thread, "studies", total, checkpoint.position.done)
        except OperatorActionRequired as error:
            return str(error)
    return ""


class _ListingThread(QueryThread):
    """The thread that lists one study after the other, from the checkpoint on."""

    def __init__(
        self,
        clients: Mapping[str, ArchiveClient],
        reader: StoredFilesReader,
        checkpoint: Checkpoint,
        shutdown: Shutdown,
    ) -> None:
        super().__init__("archive-diff", clients, shutdown)
        self._reader = reader
        self._checkpoint = checkpoint

    def run_queries(self) -> None:
        """List one study after another."""
        position = self._checkpoint.position
        done, findings = position.done, position.findings
        for task in self._reader.complete_tasks(after=position.task_id):
            self.shutdown.raise_if_requested()
            differences = _find_differences(
                self.clients[task.archive], task, self._reader.series_by_instance(task.task_id)
            )
            for code, change, series_uid, sop_uid in differences:
                values = [task.archive, task.study.study_uid, series_uid, sop_uid, code, change]
                self._checkpoint.add_finding({"task": task.task_id, "change": values})
            done, findings = done + 1, findings + bool(differences)
            self._checkpoint.save(Position(task.task_id, done, 0, findings))
            self.completed += 1


def _find_differences(client: ArchiveClient, task: Task, stored: Mapping[str, str]) -> list[_Difference]:
    """List a task and compare with ``stored``, the series UID of each stored instance by SOP Instance UID."""
    try:
        listing = client.list_instances(task)
        if not (listing.instances or listing.series_uids) and not _has_study(client, task):
            return [(STUDY_GONE, "the archive does not know the study any more", "", "")]
    except (QueryFailed, ConnectionLost) as error:
        return [(NOT_COMPARED, f"the archive could not list it: {redact(error)}", "", "")]
    listed = {ref.sop_uid: ref.series_uid for ref in listing.instances}
    new = [(NEW, "is new in the archive", series, sop) for sop, series in listed.items() if sop not in stored]
    if not listing.lists_instances:
        return [*new, (NOT_COMPARED, "the archive cannot list its instances", "", "")]
    if not listing.complete:
        return [*new, (NOT_COMPARED, f"the archive's list ended early ({listing.incomplete_reason})", "", "")]
    gone = [(GONE, "is not in the archive any more", series, sop) for sop, series in stored.items()]
    return [*new, *(one for one in gone if one[3] not in listed)]


def _has_study(client: ArchiveClient, task: Task) -> bool:
    """Return True if the archive has the study, although it lists no instance."""
    keys = {"StudyInstanceUID": task.study.study_uid}
    if client.profile.model == "patient":
        keys["PatientID"] = task.study.patient_id
    found = client.find(keys)
    return any(study.study_uid == task.study.study_uid for study in found.studies) or not found.complete


def _build_diff(checkpoint: Checkpoint, total: int, problem: str) -> ArchiveDiff:
    studies: dict[str, set[int]] = {}
    instances: Counter[str] = Counter()
    for finding in checkpoint.findings():
        code = finding["change"][4]
        studies.setdefault(code, set()).add(finding["task"])
        instances[code] += 1
    changed = {code: len(tasks) for code, tasks in studies.items()}
    return ArchiveDiff(
        checkpoint.position.done, total, checkpoint.position.findings, changed, instances, problem
    )


def _change_views(reader: StoredFilesReader, checkpoint: Checkpoint) -> Iterator[ChangeView]:
    rows: dict[int, tuple[int, ...]] = {}
    for finding in checkpoint.findings():
        task = finding["task"]
        if task not in rows:  # the findings of a study are consecutive
            rows = {task: reader.rows_of(task)}
        yield ChangeView(rows[task], *finding["change"])
