"""The body of a study: what a worker does with a task that it has claimed, from its list to its outcome."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dicom_quarry.errors import ClaimLost, ConnectionLost, QueryFailed
from dicom_quarry.extraction.internal_error_guard import InternalErrorGuard
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.study_task import DoubtfulAnswer, StudyTask
from dicom_quarry.extraction.worker import Worker
from dicom_quarry.jobs.internal_errors import is_internal
from dicom_quarry.model import Task

_log = logging.getLogger(__name__)


class StudyWork:
    """The work on a claimed task in three steps, which threads can divide: see ``work_on_study``.

    A step raises what ends the job: Stopped, an error of archive, disk or ledger that the study is not to
    blame for, or a defect that was one of its kind too many. Any other error ends the study.
    """

    def __init__(self, task: Task, context: JobContext, worker: Worker, guard: InternalErrorGuard) -> None:
        self._context = context
        self._guard = guard
        self._task = StudyTask(task, context, worker)

    @property
    def is_concluded(self) -> bool:
        """True once the outcome is durable."""
        return self._task.is_concluded

    def prepare(self) -> bool:
        """List the instances of the study; return False if it is not to be retrieved now."""
        with self._guarded():
            return self._list_or_end()
        return False

    def retrieve(self) -> None:
        """Retrieve what is missing; the outcome is then on its way to disk and ledger."""
        with self._guarded():
            self._task.run()
            self._guard.on_success()

    def finish(self) -> None:
        """Wait until the outcome is durable, and report it."""
        with self._guarded():
            self._task.finish()

    def _list_or_end(self) -> bool:
        task, exclusions = self._task.task, self._context.queries.exclusions
        if excluded := exclusions.match_study(task.study):
            self._task.exclude(excluded)
            return False
        try:
            self._task.list_instances()
        except DoubtfulAnswer:
            self._context.ledger.claims.give_back_items("task", [task.task_id])
            return False
        except (QueryFailed, ConnectionLost) as error:
            self._task.fail(error)
            return False
        return True

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """End the study for an unforeseen error; leave it to the worker that has taken it over."""
        try:
            yield
        except ClaimLost:
            _log.warning("row %d: another worker has taken over its study", self._task.row)
        except Exception as error:
            if not is_internal(error):
                raise
            is_too_many = self._guard.on_error(self._task.row, error)
            with suppress(ClaimLost):
                self._task.end_with_internal_error(error)
            if is_too_many:
                raise


def work_on_study(task: Task, context: JobContext, worker: Worker, guard: InternalErrorGuard) -> bool:
    """Do all of the work on a claimed task: list, wait for the permit, retrieve, settle, prove, conclude.

    Return True if it has an outcome; else it was postponed, or is another worker's.
    """
    work = StudyWork(task, context, worker, guard)
    if work.prepare():
        work.retrieve()
    work.finish()
    return work.is_concluded
