"""Runs the user's on-complete command for each complete study, in threads of its own during the retrieval."""

from __future__ import annotations

import json
import logging
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.ledger.database import MAX_OUTAGE
from dicom_quarry.ledger.on_complete_queue import OnCompleteItem, OnCompleteQueue
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.ledger.views import InstanceView
from dicom_quarry.outcomes import CATALOGUE
from dicom_quarry.system import subprocess_runner
from dicom_quarry.system.backoff import on_complete_retry_delay
from dicom_quarry.system.service_loop import start_thread
from dicom_quarry.system.shutdown import Shutdown

#: Characters that are shown of the end of a failed command's output.
_SHOWN_OUTPUT = 1000

_log = logging.getLogger(__name__)

#: Seconds between two looks at the queue.
_POLL_INTERVAL = 0.25

_FOLDER_PLACEHOLDER = "{folder}"

#: Replaced by the path of a file with the folder's path: other users see the words of a command, but not the
#: content of the file.
_FOLDER_FILE_PLACEHOLDER = "{folder-file}"
_FOLDER_FILE = "on-complete."


class OnCompleteRunner:
    """A context in which the on-complete command runs for complete studies, if the user gave one.

    ``had_work`` is True if studies waited for the command from the start. Leaving the context stops the
    threads after the current commands; an exception ends these too, and the next run starts them again.
    """

    def __init__(self, context: JobContext) -> None:
        self._settings = context.queries.settings
        command = self._settings.on_complete
        self._argv = subprocess_runner.parse_command(command) if command else ()
        self._out = context.folder.out.resolve()
        self._state = context.folder.state
        self._reader = LedgerReader(context.folder.ledger, max_outage=MAX_OUTAGE)
        self._queue = OnCompleteQueue(context.ledger.database)
        self._path_of = context.path_of
        self._audit_log = context.audit_log
        self._status_board = context.queries.status_board
        # The end of the job's own threads must not cancel the command.
        self._user_shutdown = context.queries.user_shutdown
        self._shutdown = Shutdown()
        self._in_progress: set[int] = set()
        self._lock = threading.Lock()
        self._enqueue_lock = threading.Lock()
        self._last_enqueued: Future[None] | None = None
        self._error: BaseException | None = None
        self.had_work = False
        number = self._settings.on_complete_parallel if self._argv else 0
        names = [f"on-complete-{each}" for each in range(1, number + 1)]
        self._threads = [threading.Thread(target=self._run_thread, name=name, daemon=True) for name in names]

    def __enter__(self) -> Self:
        for left_over in self._state.glob(f"{_FOLDER_FILE}*.folder"):  # of a run that was killed
            left_over.unlink(missing_ok=True)
        self.had_work = self._queue.start_run(enabled=bool(self._argv)) > 0
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
        if self._argv:
            with self._enqueue_lock:
                self._last_enqueued = self._queue.enqueue(task_id)

    @property
    def is_busy(self) -> bool:
        """True while a command runs or waits in this run; raises the exception that ended a thread."""
        if self._error is not None:
            raise self._error
        if not self._argv:
            return False
        if self._last_enqueued is not None and not self._last_enqueued.done():
            return True  # an item that is not yet in the ledger is not yet counted
        with self._lock:
            in_progress = bool(self._in_progress)
        return in_progress or (not self._user_shutdown.requested and self._queue.count_waiting() > 0)

    def _run_thread(self) -> None:
        try:
            while not (self._user_shutdown.requested or self._shutdown.requested):
                item = self._take_next()
                if item is None:
                    time.sleep(_POLL_INTERVAL)
                else:
                    self._process(item)
        except BaseException as error:  # noqa: BLE001 - is_busy raises it in the job
            self._error = self._error or error

    def _take_next(self) -> OnCompleteItem | None:
        with self._lock:
            item = self._queue.next_due(time.time(), self._in_progress)
            if item is not None:
                self._in_progress.add(item.task_id)
            return item

    def _process(self, item: OnCompleteItem) -> None:
        try:
            files = list(self._reader.instances(self._path_of, task_id=item.task_id))
            result = self._run_command(item, files)
            if not result.problem:
                self._audit_log.write(
                    "on_complete", item.study, row=item.first_row, instances=item.instances, bytes=item.size
                )
                gone = bool(files) and not any((self._out / file.path).exists() for file in files)
                self._queue.mark_done(item, time.time(), released=gone)
                _log.info("row %d: on-complete command done%s", item.first_row, ", released" if gone else "")
            elif not self._is_cancelled():
                self._on_failure(item, result)
        finally:
            with self._lock:
                self._in_progress.discard(item.task_id)

    def _run_command(
        self, item: OnCompleteItem, files: list[InstanceView]
    ) -> subprocess_runner.CommandResult:
        folder = self._out / item.folder
        for placeholder in (_FOLDER_PLACEHOLDER, _FOLDER_FILE_PLACEHOLDER):
            if folder == self._out and any(placeholder in word for word in self._argv):
                return subprocess_runner.CommandResult(
                    f"the study has no folder of its own, which {placeholder} needs", ""
                )
        with self._fill_in(folder) as command_line:
            return self._run_filled_in(command_line, item, folder, files)

    @contextmanager
    def _fill_in(self, folder: Path) -> Iterator[list[str]]:
        """Replace the placeholders of the command; remove the file of ``{folder-file}`` at the end."""
        words = [word.replace(_FOLDER_PLACEHOLDER, str(folder)) for word in self._argv]
        if not any(_FOLDER_FILE_PLACEHOLDER in word for word in words):
            yield words
            return
        fd, name = tempfile.mkstemp(prefix=_FOLDER_FILE, suffix=".folder", dir=self._state)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(f"{folder}\n")
            yield [word.replace(_FOLDER_FILE_PLACEHOLDER, name) for word in words]
        finally:
            Path(name).unlink(missing_ok=True)

    def _run_filled_in(
        self, command_line: list[str], item: OnCompleteItem, folder: Path, files: list[InstanceView]
    ) -> subprocess_runner.CommandResult:
        return subprocess_runner.run_command(
            command_line,
            self._command_input(item, folder, files),
            timeout=self._settings.on_complete_limit,
            is_cancelled=self._is_cancelled,
            environment={
                "QUARRY_OUT": str(self._out),
                "QUARRY_FOLDER": str(folder),
                "QUARRY_STUDY_UID": item.study.study_uid,
            },
            passed=(*subprocess_runner.ORDINARY_VARIABLES, *self._settings.on_complete_env),
        )

    def _is_cancelled(self) -> bool:
        return self._user_shutdown.cancel_requested or self._shutdown.cancel_requested

    def _on_failure(self, item: OnCompleteItem, result: subprocess_runner.CommandResult) -> None:
        now, tries = time.time(), item.tries + 1
        pause = on_complete_retry_delay(tries, self._settings.on_complete_patience, random.random())
        problem = f"{result.problem}: {result.output[-_SHOWN_OUTPUT:]}" if result.output else result.problem
        self._queue.mark_failed(item, problem, now, None if pause is None else now + pause)
        then = "not again in this run" if pause is None else f"again in {pause:.0f} s"
        # The output of the command may name a patient: only studies.csv gets it.
        self._status_board.report(f"row {item.first_row}: on-complete failed, {result.problem}; {then}")

    def _command_input(self, item: OnCompleteItem, folder: Path, files: list[InstanceView]) -> str:
        study = item.study
        document = {
            "out": str(self._out),
            "folder": str(folder),
            "folders": sorted({str((self._out / file.path).parent) for file in files}),
            "study_uid": study.study_uid,
            "patient_id": study.patient_id,
            "accession": study.accession,
            "study_date": study.study_date,
            "modalities": study.modalities,
            "description": study.description,
            "archive": item.archive,
            "rows": item.rows,
            "outcome": CATALOGUE[item.code].status,
            "code": item.code,
            "try": item.tries + 1,
            "instances": item.instances,
            "bytes": item.size,
            "files": [
                {
                    "path": str(file.path),
                    "series_uid": file.ref.series_uid,
                    "sop_uid": file.ref.sop_uid,
                    "bytes": file.size,
                    "sha256": file.digest.hex(),
                }
                for file in files
            ],
        }
        return json.dumps(document) + "\n"
