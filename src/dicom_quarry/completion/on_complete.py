"""Runs the user's on-complete command for each complete study, in threads of its own during the retrieval."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Self

from dicom_quarry.completion.study_command import FOLDER_FILE, StudyCommand
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.ledger.on_complete_queue import OnCompleteItem, OnCompleteQueue
from dicom_quarry.ledger.outages import MAX_OUTAGE
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.system.service_loop import start_thread
from dicom_quarry.system.shutdown import Shutdown

#: Seconds between two looks at the queue.
_POLL_INTERVAL = 0.25


class OnCompleteRunner:
    """A context in which the on-complete command runs for complete studies, if the user gave one.

    ``had_work`` is True if studies waited for the command from the start. Leaving the context stops the
    threads after the current commands; an exception ends these too, and the next run starts them again.
    """

    def __init__(self, context: JobContext) -> None:
        settings = context.queries.settings
        command = settings.on_complete_command
        self._state = context.folder.state
        self._reader = LedgerReader(context.folder.ledger, max_outage=MAX_OUTAGE)
        self._queue = OnCompleteQueue(context.ledger.database)
        self._command = (
            StudyCommand(context, settings, command, self._reader, self._queue, self._is_cancelled)
            if command
            else None
        )
        self._name, self._status_board = settings.command_name, context.queries.status_board
        self._is_left_to_others = command is None and bool(self._name)
        # The end of the job's own threads must not cancel the command.
        self._user_shutdown = context.queries.user_shutdown
        self._shutdown = Shutdown()
        self._in_progress: set[int] = set()
        self._lock = threading.Lock()
        self._enqueue_lock = threading.Lock()
        self._last_enqueued: Future[None] | None = None
        self._error: BaseException | None = None
        self.had_work = False
        number = settings.on_complete_parallel if self._command else 0
        names = [f"on-complete-{each}" for each in range(1, number + 1)]
        self._threads = [threading.Thread(target=self._run_thread, name=name, daemon=True) for name in names]

    def __enter__(self) -> Self:
        for left_over in self._state.glob(f"{FOLDER_FILE}*.folder"):  # of a run that was killed
            left_over.unlink(missing_ok=True)
        if self._is_left_to_others:
            self._status_board.report(f"the command {self._name} is left to workers that have it")
        else:
            self.had_work = self._queue.start_run(enabled=self._command is not None) > 0
        for thread in self._threads:
            start_thread(thread, wait=self._user_shutdown.wait_unless_stopping)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._shutdown.request()
        if kind is not None:
            self._shutdown.request()
        for thread in self._threads:
            thread.join()
        self._reader.close()

    def enqueue(self, task_id: int) -> None:
        """Queue a task that has become complete."""
        if self._command or self._is_left_to_others:
            with self._enqueue_lock:
                self._last_enqueued = self._queue.enqueue(task_id)

    @property
    def is_busy(self) -> bool:
        """True while a command runs or waits in this run; raises the exception that ended a thread."""
        if self._error is not None:
            raise self._error
        if self._command is None:
            return False
        if self._last_enqueued is not None and not self._last_enqueued.done():
            return True  # an item that is not yet in the ledger is not yet counted
        with self._lock:
            in_progress = bool(self._in_progress)
        return in_progress or (not self._user_shutdown.requested and self._queue.count_waiting() > 0)

    def _run_thread(self) -> None:
        assert self._command is not None
        try:
            while not (self._user_shutdown.requested or self._shutdown.requested):
                item = self._take_next()
                if item is None:
                    time.sleep(_POLL_INTERVAL)
                else:
                    self._process(self._command, item)
        except BaseException as error:  # noqa: BLE001 - is_busy raises it in the job
            self._error = self._error or error

    def _take_next(self) -> OnCompleteItem | None:
        with self._lock:
            item = self._queue.next_due(time.time(), self._in_progress)
            if item is not None:
                self._in_progress.add(item.task_id)
            return item

    def _process(self, command: StudyCommand, item: OnCompleteItem) -> None:
        try:
            command.run(item)
        finally:
            with self._lock:
                self._in_progress.discard(item.task_id)

    def _is_cancelled(self) -> bool:
        return self._user_shutdown.cancel_requested or self._shutdown.cancel_requested
