"""The run of a job that the workers of its database do: this process shows how far they are."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from hashlib import sha256

from dicom_quarry.errors import LedgerError
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.query_context import QueryContext
from dicom_quarry.extraction.stored_exclusions import update_stored_exclusions
from dicom_quarry.jobs.observer import ProgressPublisher
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.jobs.progress import ProgressMeter, TimeEstimator
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.on_complete_queue import OnCompleteQueue
from dicom_quarry.ledger.reader import Counts, LedgerReader
from dicom_quarry.system.shutdown import Stopped

_log = logging.getLogger(__name__)

#: Seconds between two looks at the record, and at the list of workers.
_INTERVAL = 0.5
_WORKERS_INTERVAL = 5.0


def _hand_over(context: JobContext, details: str) -> float:
    """Give a job to the workers, who open it again if they would work on it in another way now.

    Return the time of the database.
    """
    queries, ledger = context.queries, context.ledger
    metadata = ledger.metadata()
    text = "\n".join([metadata["settings"], metadata["cohort"], queries.exclusions.digest])
    basis = sha256(text.encode()).hexdigest()
    is_changed = metadata.get("handed_over") != basis
    command = queries.settings.command_name
    handed_over_at = context.folder.hand_over(details, is_changed=is_changed, command=command)
    # Behind it: if this process is killed between the two, workers open the job once too often.
    if is_changed:
        ledger.set_metadata(handed_over=basis)
    return handed_over_at


def have_work(queries: QueryContext, folder: JobPlace, ledger: Ledger, counts: Counts) -> bool:
    """Return True if there are workers with something to do: rows, studies, or commands for complete ones."""
    if not folder.has_workers():
        if roots := folder.list_roots():
            queries.status_board.report(
                f"no worker has {folder.out} below its root ({', '.join(roots)}): this command does the "
                "work itself"
            )
        return False
    name = queries.settings.command_name
    waiting = OnCompleteQueue(ledger.database).start_run(enabled=True) if name else 0
    return not counts.is_fetched or (waiting > 0 and folder.has_workers(name))


class Watcher:
    """Publishes the progress of the workers until the job has ended, or the user lets go of it."""

    def __init__(
        self,
        context: JobContext,
        publisher: ProgressPublisher,
        reader: LedgerReader,
        estimator: TimeEstimator,
    ) -> None:
        self._context = context
        self._queries = queries = context.queries
        self._publisher = publisher
        self._folder = context.folder
        self._reader = reader
        self._estimator = estimator
        self._command = queries.settings.command_name
        self._on_complete = OnCompleteQueue(context.ledger.database)
        #: True once the workers have done what they can; False if the user has let go.
        self._has_ended = False
        self._looked_at = time.monotonic()
        self._missing = ""
        self._handed_over_at = 0.0
        #: What a person has to solve, which ended the job; empty if nothing.
        self.problem = ""
        #: True if the user has let go of workers that go on.
        self.has_let_go = False
        self._reported: set[str] = set()

    def watch(self, details: str) -> Counts:
        """Give the job to the workers, and return the counts at the end; ``details`` are recorded.

        The workers go on if the user lets go. Raises LedgerError.
        """
        self._handed_over_at = _hand_over(self._context, details)
        label = self._folder.label
        self._queries.status_board.report(
            f"the workers of the database fetch the studies. Ctrl-C lets go of {label}; to stop it:  quarry "
            f"stop {label}"
        )
        self._queries.observer.on_started(self._folder)
        meter = ProgressMeter(self._reader, self._queries.status_board, self._estimator)
        with suppress(Stopped):
            while not self._is_ended(meter):
                self._queries.shutdown.wait_unless_stopping(_INTERVAL)
            self._has_ended = not self.problem
        self.has_let_go = not (self._has_ended or self.problem) and self._folder.goes_on()
        self._publisher.finish(self._folder)
        if self._queries.exclusions:  # for what was in transfer when the list changed
            update_stored_exclusions(self._context, self._reader)
        return self._reader.counts()

    def leaves_command(self, counts: Counts) -> bool:
        """Return True if this process has to run the command for complete studies, if there is one."""
        if not self._command:
            return counts.is_fetched
        return self._has_ended and self._on_complete.count_waiting() > 0

    def _is_ended(self, meter: ProgressMeter) -> bool:
        """Publish the progress; return True at the end. A database that is away is waited for."""
        board = self._queries.status_board
        try:
            counts = self._publish(meter)
            if not counts.is_fetched and self._is_refused(counts):
                return True
            while not counts.is_fetched and (missing := self._describe_missing_worker()):
                with board.report_waiting(missing, needs_operator=True):
                    counts = self._publish(meter)
                    self._queries.shutdown.wait_unless_stopping(_INTERVAL)
            return self._is_handed_on(meter, counts)
        except LedgerError as error:
            _log.warning("%s", error)
            with board.report_waiting("the database to answer"):
                self._queries.shutdown.wait_unless_stopping(_INTERVAL)
            return False

    def _is_refused(self, counts: Counts) -> bool:
        """Return True if no worker can use an archive that is needed next: the job ends, as on one host."""
        if not (refusals := self._folder.find_refusals(self._handed_over_at)):
            return False
        needed = self._reader.waiting_archives()
        if counts.rows_waiting:
            needed |= {one.name for one in self._queries.settings.archives}
        problems = [f"{archive}: {refusals[archive]}" for archive in sorted(needed & refusals.keys())]
        if problems:
            self.problem = "; ".join(problems)
            self._folder.take_back(self.problem)
            while self._folder.is_with_workers():
                self._queries.shutdown.wait_unless_stopping(_INTERVAL)
        return bool(problems)

    def _is_handed_on(self, meter: ProgressMeter, counts: Counts) -> bool:
        """Return True once nothing is left for the workers, who run the command of the job's name, too."""
        if not counts.is_fetched or not self._command:
            return counts.is_fetched
        while is_left := self._on_complete.count_waiting() > 0:
            if self._folder.has_workers(self._command):
                break
            if self._queries.settings.on_complete_command is not None:
                return True  # this process has it
            wanted = f"a worker that has the command {self._command} in its quarry.toml"
            with self._queries.status_board.report_waiting(wanted, needs_operator=True):
                self._publish(meter)
                self._queries.shutdown.wait_unless_stopping(_INTERVAL)
        return not (is_left or self._folder.is_with_workers())

    def _publish(self, meter: ProgressMeter) -> Counts:
        snapshot = meter.snapshot_from_record()
        self._publisher.publish(snapshot, self._folder)
        return snapshot.counts

    def _describe_missing_worker(self) -> str:
        if time.monotonic() - self._looked_at >= _WORKERS_INTERVAL:
            self._missing, self._looked_at = self._folder.describe_missing_worker(), time.monotonic()
            if self._missing not in {"", *self._reported}:  # in full: a line of progress may be cut off
                self._reported.add(self._missing)
                self._queries.status_board.report(f"waiting for {self._missing}")
        return self._missing
