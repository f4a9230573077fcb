"""The on-complete command for one study: what it is given, and what its end means."""

from __future__ import annotations

import json
import logging
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_quarry.config.settings import Settings
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.ledger.on_complete_queue import OnCompleteItem, OnCompleteQueue
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.ledger.views import InstanceView
from dicom_quarry.outcomes import CATALOGUE
from dicom_quarry.system import subprocess_runner
from dicom_quarry.system.backoff import on_complete_retry_delay

#: Characters that are shown of the end of a failed command's output.
_SHOWN_OUTPUT = 1000

_log = logging.getLogger(__name__)

_FOLDER_PLACEHOLDER = "{folder}"

#: Replaced by the path of a file with the folder's path: other users see the words of a command, but not the
#: content of the file.
_FOLDER_FILE_PLACEHOLDER = "{folder-file}"
FOLDER_FILE = "on-complete."


class StudyCommand:
    """Runs a command for complete studies of a job, from any thread.

    ``settings`` have the limits of the command; ``is_cancelled`` ends it.
    """

    def __init__(
        self,
        context: JobContext,
        settings: Settings,
        command: str,
        reader: LedgerReader,
        queue: OnCompleteQueue,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._argv = subprocess_runner.parse_command(command)
        self._out = context.folder.out.resolve()
        self._state = context.folder.state
        self._reader = reader
        self._queue = queue
        self._path_of = context.path_of
        self._audit_log = context.audit_log
        self._status_board = context.queries.status_board
        self._is_cancelled = is_cancelled

    def run(self, item: OnCompleteItem) -> bool:
        """Run the command for a study, and record how it ended; return False if it was cancelled.

        The study of a cancelled command waits as before.
        """
        files = list(self._reader.instances(self._path_of, task_id=item.task_id))
        result = self._run_command(item, files)
        if not result.problem:
            self._audit_log.write(
                "on_complete", item.study, row=item.first_row, instances=item.instances, bytes=item.size
            )
            gone = bool(files) and not any((self._out / file.path).exists() for file in files)
            self._queue.mark_done(item, time.time(), released=gone)
            _log.info("row %d: on-complete command done%s", item.first_row, ", released" if gone else "")
        elif self._is_cancelled():
            return False
        else:
            self._on_failure(item, result)
        return True

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
        fd, name = tempfile.mkstemp(prefix=FOLDER_FILE, suffix=".folder", dir=self._state)
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
