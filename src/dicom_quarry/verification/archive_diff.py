"""Every complete study is listed again: what has changed in the archive since? Asks, and moves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from dicom_quarry.errors import Lost, QueryFailed, Unusable, told
from dicom_quarry.extraction.archive_clients import open_sources
from dicom_quarry.extraction.job_context import Source
from dicom_quarry.extraction.query_thread import Asker, Errand, watch
from dicom_quarry.jobs.folder import JobFolder, held, logging_to
from dicom_quarry.ledger.stored_files import StoredReader
from dicom_quarry.ledger.views import ChangeView
from dicom_quarry.model import Task
from dicom_quarry.system.shutdown import Stop
from dicom_quarry.verification.checkpoint import Bookmark, Mark

#: A difference: code, words, series and instance as far as they apply.
_Difference = tuple[str, str, str, str]

NEW, GONE, STUDY_GONE, NOT_COMPARED = "new", "gone", "study_gone", "not_compared"


@dataclass(frozen=True, slots=True)
class Again:
    """What the archives list now: ``studies`` that were listed again, of ``all`` that are complete.

    ``others`` are not as they were; ``changed`` counts them by code, ``instances`` what in them has changed.
    ``problem``: what a person has to do before an archive can be asked on.
    """

    studies: int
    all: int
    others: int
    changed: Mapping[str, int]
    instances: Mapping[str, int]
    problem: str = ""

    @property
    def finished(self) -> bool:
        """Whether all of them were listed."""
        return self.studies >= self.all and not self.problem


def look(
    errand: Errand, folder: JobFolder, write: Callable[[Iterator[ChangeView]], object], *, restart: bool
) -> Again:
    """List every complete study again, or go on with that; ``write`` gets what has changed, at the end.

    Raises StartError while a job runs in the folder: its archive is asked by one of both.
    """
    bookmark = Bookmark(folder, "against", {}, restart=restart)
    with held(folder), logging_to(folder.log), closing(StoredReader(folder.ledger)) as reader, bookmark:
        number, before = reader.complete_count(), bookmark.mark.done
        if bookmark.since is not None:
            errand.listener.said(f"going on after {before:,} studies (--restart begins anew)")
        problem = ""
        if before < number:
            problem = _ask(errand, reader, bookmark, number)
        again = _counted(bookmark, number, problem)
        if again.finished:
            write(_views(reader, bookmark))
            bookmark.finish()
    return again


def _ask(errand: Errand, reader: StoredReader, bookmark: Bookmark, number: int) -> str:
    with open_sources(errand.settings, errand.guests, errand.stop, errand.board, served=True) as sources:
        questions = _Lists(sources, reader, bookmark, errand.stop)
        try:
            watch(errand, questions, "studies", number, bookmark.mark.done)
        except Unusable as error:
            return str(error)
    return ""


class _Lists(Asker):
    """Has study after study listed, from the bookmark on."""

    def __init__(
        self, sources: Mapping[str, Source], reader: StoredReader, bookmark: Bookmark, stop: Stop
    ) -> None:
        super().__init__("against", sources, stop)
        self._reader = reader
        self._bookmark = bookmark

    def ask(self) -> None:
        """Ask."""
        mark = self._bookmark.mark
        done, found = mark.done, mark.found
        for task in self._reader.complete(after=mark.task):
            self.stopping.check()
            differences = _differences(
                self.sources[task.archive], task, self._reader.instances_of(task.task_id)
            )
            for code, change, series_uid, sop_uid in differences:
                told = [task.archive, task.study.study_uid, series_uid, sop_uid, code, change]
                self._bookmark.add({"task": task.task_id, "told": told})
            done, found = done + 1, found + bool(differences)
            self._bookmark.keep(Mark(task.task_id, done, 0, found))
            self.settled += 1


def _differences(source: Source, task: Task, here: Mapping[str, str]) -> list[_Difference]:
    """What the archive lists otherwise than what is ``here``, the series of every instance by its UID."""
    try:
        listing = source.gate.query(lambda: source.archive.list_instances(task))
        if not (listing.instances or listing.series_uids) and not _knows(source, task):
            return [(STUDY_GONE, "the archive does not know the study any more", "", "")]
    except (QueryFailed, Lost) as error:
        return [(NOT_COMPARED, f"the archive would not list it: {told(error)}", "", "")]
    listed = {ref.sop_uid: ref.series_uid for ref in listing.instances}
    new = [(NEW, "is new in the archive", series, sop) for sop, series in listed.items() if sop not in here]
    if not listing.by_image:
        return [*new, (NOT_COMPARED, "the archive cannot list its instances", "", "")]
    if not listing.complete:
        return [*new, (NOT_COMPARED, f"the archive's list ended early ({listing.why})", "", "")]
    gone = [(GONE, "is not in the archive any more", series, sop) for sop, series in here.items()]
    return [*new, *(one for one in gone if one[3] not in listed)]


def _knows(source: Source, task: Task) -> bool:
    """Whether the archive has the study, of which it lists nothing."""
    keys = {"StudyInstanceUID": task.study.study_uid}
    if source.profile.model == "patient":
        keys["PatientID"] = task.study.patient_id
    found = source.gate.query(lambda: source.archive.find(keys))
    return any(study.study_uid == task.study.study_uid for study in found.studies) or not found.complete


def _counted(bookmark: Bookmark, number: int, problem: str) -> Again:
    studies: dict[str, set[int]] = {}
    instances: Counter[str] = Counter()
    for finding in bookmark.findings():
        code = finding["told"][4]
        studies.setdefault(code, set()).add(finding["task"])
        instances[code] += 1
    changed = {code: len(tasks) for code, tasks in studies.items()}
    return Again(bookmark.mark.done, number, bookmark.mark.found, changed, instances, problem)


def _views(reader: StoredReader, bookmark: Bookmark) -> Iterator[ChangeView]:
    rows: dict[int, tuple[int, ...]] = {}
    for finding in bookmark.findings():
        task = finding["task"]
        if task not in rows:  # the lines of a study stand together
            rows = {task: reader.rows_of(task)}
        yield ChangeView(rows[task], *finding["told"])
