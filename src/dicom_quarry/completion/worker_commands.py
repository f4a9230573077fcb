"""The on-complete command on a worker of a database: its own quarry.toml defines what the job names."""

from __future__ import annotations

import time

from dicom_quarry.completion.study_command import StudyCommand
from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import ClaimLost
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.ledger.on_complete_queue import OnCompleteQueue
from dicom_quarry.ledger.reader import LedgerReader


class WorkerCommand:
    """Runs a command of a worker's ``settings`` for complete studies of a job, which it claims one by one."""

    def __init__(self, context: JobContext, settings: Settings, command: str, reader: LedgerReader) -> None:
        self._shutdown = context.queries.user_shutdown
        self._queue = OnCompleteQueue(context.ledger.database, context.ledger.claims)
        self._command = StudyCommand(
            context, settings, command, reader, self._queue, lambda: self._shutdown.cancel_requested
        )

    def run_next(self) -> None:
        """Run the command for the next study that waits, if there is one; raises what ends the job."""
        if self._shutdown.requested or (item := self._queue.claim_next(time.time())) is None:
            return
        is_recorded = False
        try:
            is_recorded = self._command.run(item)
        except ClaimLost:
            is_recorded = True  # another worker has taken it over
        finally:
            if not is_recorded:
                self._queue.give_back(item)
