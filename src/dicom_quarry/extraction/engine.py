"""The threads of a job: they query for rows, list studies ahead, retrieve them, and report the progress."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from dicom_quarry.errors import ClaimLost, LedgerError, OperatorActionRequired
from dicom_quarry.extraction.closable_queue import ClosableQueue
from dicom_quarry.extraction.internal_error_guard import InternalErrorGuard, RowGuard
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.extraction.study_work import StudyWork
from dicom_quarry.extraction.worker import MAX_ENDING, Worker
from dicom_quarry.jobs.observer import ProgressPublisher
from dicom_quarry.jobs.progress import ProgressMeter
from dicom_quarry.model import Request, Task
from dicom_quarry.reporting.time_left import TimeLeftEstimator
from dicom_quarry.scheduling.throttle import count_query_threads
from dicom_quarry.system.service_loop import start_thread
from dicom_quarry.system.shutdown import ABANDON_AFTER, ABORT_AFTER, Stopped

_log = logging.getLogger(__name__)

#: Seconds after which a waiting thread checks for the end of the job.
_POLL_INTERVAL = 0.5

#: Rows that are claimed at once: one transaction for so many.
_PAGE_SIZE = 32

#: Rows that are queried at once, ahead of the listings of their studies.
_MAX_ROWS_AHEAD = 8


class Workers:
    """Runs a job's threads to their end.

    The first exception that a thread does not handle stops the job; ``join`` raises it again.
    """

    def __init__(
        self,
        context: JobContext,
        worker: Worker,
        rows: RowGuard,
        guard: InternalErrorGuard,
        *,
        parallel: int,
    ) -> None:
        self._context = context
        self._worker = worker
        self._rows = rows
        self._guard = guard
        self._requests: list[Request] = []
        # With one retrieval at a time there is one query at a time: the scheduling thread queries itself.
        self._query_thread_count = count_query_threads(parallel) if parallel > 1 else 0
        self._query_queue: ClosableQueue[Callable[[], None]] = ClosableQueue(
            2 * _MAX_ROWS_AHEAD, context.queries.shutdown.raise_if_requested
        )
        # Bounded, as a list of instances takes memory.
        self._retrieve_queue: ClosableQueue[StudyWork] = ClosableQueue(
            2 * parallel + 2, context.queries.shutdown.raise_if_requested
        )
        #: Claimed rows and tasks whose work has not ended.
        self._open_rows = self._open_tasks = 0
        self._changed = threading.Condition()
        self._wakeup = False
        self._error: BaseException | None = None
        names = ["schedule"]
        names += [f"query-{number}" for number in range(1, self._query_thread_count + 1)]
        names += [f"retrieve-{number}" for number in range(1, parallel + 1)]
        work = [self._schedule, *([self._query] * self._query_thread_count), *([self._retrieve] * parallel)]
        self._threads = [
            threading.Thread(target=self._run_thread, args=(each,), name=name, daemon=True)
            for name, each in zip(names, work, strict=True)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            start_thread(thread, wait=self._context.queries.shutdown.wait_unless_stopping)

    def is_alive(self) -> bool:
        """Return True while a thread runs."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self, timeout: float) -> None:
        """Wait for the threads, ``timeout`` seconds at most; raises the error that ended the job."""
        self._join_all(timeout)
        if self._error is not None and not self.is_alive():
            raise self._error

    def _join_all(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for thread in filter(threading.Thread.is_alive, self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))

    def wait(self) -> None:
        """Wait until every thread has ended; one that does not end after a cancel is left behind."""
        shutdown = self._context.queries.shutdown
        while self.is_alive() and shutdown.seconds_since_cancel < ABANDON_AFTER:
            self._join_all(_POLL_INTERVAL)
        if names := [thread.name for thread in self._threads if thread.is_alive()]:
            _log.warning("not waited for any longer: %s", ", ".join(names))

    def _run_thread(self, target: Callable[[], None]) -> None:
        try:
            target()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - any error of a thread must end the job, and be raised by join
            self._fail(error)
        finally:
            self._worker.release_thread()
            if target == self._schedule:
                self._query_queue.close()
                self._retrieve_queue.close()

    def _fail(self, error: BaseException) -> None:
        _log.debug("a worker ended", exc_info=error)
        self._error = self._error or error
        # A second request would cancel the transfers in progress.
        if not self._context.queries.shutdown.requested:
            self._context.queries.shutdown.request()

    # -- resolving and listing ahead

    def _schedule(self) -> None:
        while True:
            self._context.queries.shutdown.raise_if_requested()
            tasks = self._next_tasks()
            for task in tasks:
                self._start_task(task)
            if not (tasks or self._query_more_rows() or self._wait_for_change()):
                return

    def _query(self) -> None:
        while query := self._query_queue.take():
            query()

    def _submit_query(self, query: Callable[[], None]) -> None:
        if self._query_thread_count:
            self._query_queue.put(query)
        else:
            query()

    def _next_tasks(self) -> list[Task]:
        return self._context.ledger.claims.take_tasks(time.time(), _MAX_ROWS_AHEAD)

    def _query_more_rows(self) -> bool:
        """Query for the next few rows; return False if none waits, or enough are being queried."""
        if not self._requests:
            self._requests = self._context.ledger.claims.take_requests(_PAGE_SIZE)[::-1]
        count = min(_MAX_ROWS_AHEAD - self._open_rows, len(self._requests))
        chosen = [self._requests.pop() for _ in range(count)]
        for request in chosen:
            self._context.queries.shutdown.raise_if_requested()
            with self._changed:
                self._open_rows += 1
            self._submit_query(partial(self._resolve, request))
        return bool(chosen)

    def _resolve(self, request: Request) -> None:
        """Query for a row; the next query starts while its result is being recorded."""
        recorded = self._rows.resolve(request)
        recorded.add_done_callback(self._on_resolved)

    def _on_resolved(self, recorded: Future[int]) -> None:
        error = recorded.exception()
        if error is not None and not isinstance(error, ClaimLost):
            self._fail(error)
        with self._changed:
            self._open_rows -= 1
            # Several at a time: the scheduling thread starts their tasks, and queries for more rows.
            if self._open_rows <= _MAX_ROWS_AHEAD // 2:
                self._wake()

    def _wait_for_change(self) -> bool:
        """Wait until more work may be ready; return False if the job has none left."""
        with self._changed:
            if self._wakeup:
                self._wakeup = False
                return True
            due = self._context.ledger.next_due()
            if not self._open_rows and not self._open_tasks and due is None:
                return False
            pause = 1.0 if due is None else min(1.0, max(0.05, due - time.time()))
            self._changed.wait(pause)
        return True

    def _wake(self) -> None:
        self._wakeup = True
        self._changed.notify()

    def _start_task(self, task: Task) -> None:
        study = StudyWork(task, self._context, self._worker, self._guard)
        with self._changed:
            self._open_tasks += 1
        self._submit_query(partial(self._prepare, study))

    def _prepare(self, study: StudyWork) -> None:
        if study.prepare():
            self._retrieve_queue.put(study)
        else:
            self._on_task_ended(study)

    def _on_task_ended(self, study: StudyWork) -> None:
        with self._changed:
            self._open_tasks -= 1
            # A task that was postponed, and the rows of one that has to be queried again, wait for a time.
            if not self._open_tasks or not study.is_concluded:
                self._wake()

    # -- retrieving

    def _retrieve(self) -> None:
        """Retrieve one task while the ends of those before are being made durable."""
        ending: deque[StudyWork] = deque()
        finish = partial(self._finish_tasks, ending)
        try:
            while study := self._retrieve_queue.take(on_idle=finish):
                try:
                    study.retrieve()
                finally:
                    ending.append(study)
                self._finish_tasks(ending, keep=MAX_ENDING)
        finally:
            finish()

    def _finish_tasks(self, ending: deque[StudyWork], keep: int = 0) -> None:
        while len(ending) > keep:
            study = ending.popleft()
            try:
                study.finish()
            finally:
                self._on_task_ended(study)


#: Seconds between two writes of the throughput to the ledger.
_SAVE_INTERVAL = 600.0

#: Seconds between two reports of a running job.
POLL_INTERVAL = 0.25


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs the threads of a worker on one job, and publishes their progress."""

    context: JobContext
    worker: Worker
    estimator: TimeLeftEstimator
    progress_meter: ProgressMeter
    publisher: ProgressPublisher

    def run(self) -> OperatorActionRequired | None:
        """Run the threads to their end.

        Returns the problem that a person has to solve before the job can continue, None if there is none.
        """
        context, worker, shutdown = self.context, self.worker, self.context.queries.shutdown
        resolver = Resolver(context.queries, worker.clients, context.ledger)
        resolver.note_merging_archives()
        report = context.queries.status_board.report
        rows = RowGuard(resolver.resolve, context.ledger, report)
        guard = InternalErrorGuard("studies", report)
        has_more = True
        try:
            while has_more:
                workers = Workers(context, worker, rows, guard, parallel=worker.max_parallel)
                self._run_workers(workers)
                has_more = self._wait_for_late_work()
        except OperatorActionRequired as error:
            return error
        finally:
            shutdown.request()
            shutdown.request()
            worker.close_archives()
            workers.wait()
            self._give_claims_back()
            self._save_throughput()
            self.publisher.finish(context.folder)
        return None

    def _run_workers(self, workers: Workers) -> None:
        """Publish the progress until the threads have ended; raises the error that ended them."""
        shutdown, saved_at = self.context.queries.shutdown, time.monotonic()
        workers.start()
        while workers.is_alive() and shutdown.seconds_since_cancel < ABANDON_AFTER:
            workers.join(POLL_INTERVAL)
            self.worker.receiver_stats()  # raises once the receiver has ended by itself
            if shutdown.seconds_since_cancel >= ABORT_AFTER:
                self.worker.close_archives()
            totals, stopping = self.context.sink.totals, self.context.queries.shutdown.requested
            snapshot = self.progress_meter.snapshot(*totals, stopping=stopping)
            self.publisher.publish(snapshot, self.context.folder)
            if time.monotonic() - saved_at > _SAVE_INTERVAL:
                saved_at = time.monotonic()
                self._save_throughput()
        workers.join(0.0)

    def _give_claims_back(self) -> None:
        with suppress(LedgerError):  # the next run frees them
            self.context.ledger.claims.give_back()

    def _save_throughput(self) -> None:
        """Save the throughput so far, from which the next run estimates its end."""
        with suppress(LedgerError):  # an estimate is no reason to fail
            self.context.ledger.set_metadata(throughput=self.estimator.dump_history())

    def _wait_for_late_work(self) -> bool:
        """Wait while an archive still sends; return True if a late instance has made a task active again."""
        ledger, shutdown = self.context.ledger, self.context.queries.shutdown
        settle = self.worker.settle_seconds
        seen, since = self.worker.receiver_stats().instances, time.monotonic()
        while (
            not shutdown.requested
            and not ledger.all_complete()
            and self.worker.receiver_stats().open_associations
        ):
            if self.worker.receiver_stats().instances != seen:
                seen, since = self.worker.receiver_stats().instances, time.monotonic()
            if time.monotonic() - since >= settle:
                break
            time.sleep(POLL_INTERVAL)
        return not shutdown.requested and ledger.next_due() is not None
