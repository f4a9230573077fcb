"""One run of a job: open its folder, connect, retrieve what is missing, run the on-complete command."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from dicom_quarry.cohort.cohort import CohortFile
from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import ConfigError, OperatorActionRequired, redact
from dicom_quarry.extraction.archive_client import open_clients
from dicom_quarry.extraction.engine import POLL_INTERVAL, Engine
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.job_setup import make_job_context
from dicom_quarry.extraction.query_context import QueryContext
from dicom_quarry.extraction.stored_exclusions import update_stored_exclusions
from dicom_quarry.extraction.unsynced_files import track_writer
from dicom_quarry.extraction.watcher import Watcher, have_work
from dicom_quarry.extraction.worker import JobSinks, open_worker
from dicom_quarry.jobs import notifications, record
from dicom_quarry.jobs.audit_log import AuditLog, record_run
from dicom_quarry.jobs.folder import apply_access
from dicom_quarry.jobs.naming import PORTABLE_NOTE, recorded_names
from dicom_quarry.jobs.observer import ProgressPublisher
from dicom_quarry.jobs.open_place import open_for_run, open_or_create
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.jobs.progress import ProgressMeter, describe_queued
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.orphans import Orphans
from dicom_quarry.ledger.outages import MAX_OUTAGE
from dicom_quarry.ledger.reader import Counts, LedgerReader
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.outcomes import codes_of
from dicom_quarry.plurals import format_count
from dicom_quarry.receiver.stats import ReceiverStats
from dicom_quarry.reporting.metrics import open_metrics
from dicom_quarry.reporting.time_left import TimeLeftEstimator
from dicom_quarry.scheduling.port_queue import PortQueue
from dicom_quarry.store.incoming import open_incoming
from dicom_quarry.store.path_template import PathTemplate
from dicom_quarry.store.safe_names import NameRule
from dicom_quarry.system import subprocess_runner
from dicom_quarry.system.shutdown import Stopped
from dicom_quarry.system.signatures import load_private_key
from dicom_quarry.version import __version__

#: Seconds between two tries to write to a full disk.
_DISK_FULL_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class JobResult:
    """The end of a run. ``nothing_to_do``: an earlier run had finished the job.

    ``problem`` is what a person has to solve before the job can continue, empty if nothing;
    ``redacted_problem`` is the same without the archive's text, which may name a patient. ``goes_on``: this
    process has let go of the job, and workers go on with it.
    """

    folder: JobPlace
    counts: Counts
    nothing_to_do: bool = False
    problem: str = ""
    redacted_problem: str = ""
    goes_on: bool = False


class OnComplete(Protocol):
    """Runs the user's on-complete command for complete studies while a job runs.

    ``had_work``: studies of an earlier run were waiting for the command.
    """

    had_work: bool

    @property
    def is_busy(self) -> bool:
        """True while a study of this run waits for its command; raises the error that ended a thread."""

    def enqueue(self, task_id: int) -> None:
        """Queue a task that ended complete."""


#: Starts the on-complete command of a job, until the context ends.
StartOnComplete = Callable[[JobContext], AbstractContextManager[OnComplete]]

#: Copies the query results of the cohort's plan into the folder of a new job. The last argument is
#: the digest of all exclusion lists. Returns a message for the user, None if there is no usable plan.
ReusePlan = Callable[[JobPlace, CohortFile, Settings, str], str | None]


class Runner:
    """One run of a job; ``queries.stop`` stops it, from a signal handler or another thread.

    ``queue``: wait for the receiver's port while another job of this computer has it.
    """

    def __init__(
        self,
        queries: QueryContext,
        *,
        reuse_plan: ReusePlan,
        start_on_complete: StartOnComplete,
        queue: bool = False,
    ) -> None:
        self.queries = queries
        self._reuse_plan = reuse_plan
        self._start_on_complete = start_on_complete
        self._queue = queue
        self._publisher = ProgressPublisher(queries.settings, queries.status_board, queries.observer)
        self._permissions = queries.settings.permissions

    def extract(
        self,
        cohort_path: Path,
        *,
        update: bool = False,
        archive_moved: bool = False,
        is_temporary: bool = False,
    ) -> JobResult:
        """Extract a cohort, or continue with it; ``archive_moved``: an archive has another address now.

        ``is_temporary``: the file of the table is deleted afterwards, so its path is not recorded. Raises
        InputError, StartError and LedgerError.
        """
        settings, observer = self.queries.settings, self.queries.observer
        cohort, rows = record.read_cohort(cohort_path, settings)
        observer.on_cohort_read(cohort.mapping, rows, cohort.notes)
        observer.on_columns_unused(cohort.unused)
        for choice in cohort.choices:
            observer.on_message(choice)
        # An error must not leave a folder.
        PathTemplate.parse(settings.filepath, columns=cohort.columns)
        with self.open_job(cohort) as (folder, ledger):
            changes = record.compare_options(ledger, settings, archive_moved=archive_moved)
            change = record.begin_or_continue(ledger, cohort, settings, update=update, changes=changes)
            if change is not None:
                observer.on_cohort_updated(change)
            if is_temporary:
                ledger.set_metadata(table="")
            for message in changes.apply(ledger) if changes else ():
                observer.on_message(message)
            if recorded_names(ledger.metadata()) is NameRule.PORTABLE and not settings.portable_names:
                observer.on_message(PORTABLE_NOTE)
            result = self.run(folder, ledger)
            self._report_orphans(folder, ledger)
            return result

    def resume(self) -> JobResult:
        """Continue with the rows of the job's record; its table is not needed.

        Raises InputError, StartError and LedgerError.
        """
        settings, observer = self.queries.settings, self.queries.observer
        with self.open_job() as (folder, ledger):
            observer.on_columns_unused(record.list_unused_columns(ledger, settings))
            if change := record.describe_table_change(ledger.metadata(), settings):
                observer.on_message(change)
            result = self.run(folder, ledger)
            self._report_orphans(folder, ledger)
            return result

    def retry(self, statuses: frozenset[OutcomeStatus], options: Collection[str] = ()) -> JobResult:
        """Work again on the rows and studies that ended with one of these outcomes.

        ``options`` are the settings that were given for this retry; they are recorded.
        """
        with self.open_job() as (folder, ledger):
            record.record_options(ledger, self.queries.settings, options)
            self.queries.observer.on_columns_unused(record.list_unused_columns(ledger, self.queries.settings))
            count = ledger.retry(codes_of(statuses))
            outcomes = ", ".join(sorted(statuses))
            tried = format_count(count, "row or study is", "rows and studies are")
            return self.run(folder, ledger, retried=f"{tried} tried again ({outcomes})")

    def _report_orphans(self, folder: JobPlace, ledger: Ledger) -> None:
        """Report the stored studies that no row requests any more, as after an update with fewer rows."""
        orphans = Orphans(ledger.database)
        # A row that waits to be searched for may request any study.
        if not orphans.count_waiting_rows() and (found := orphans.count()).studies:
            studies = format_count(found.studies, "stored study", "stored studies")
            belong = "belongs" if found.studies == 1 else "belong"
            self.queries.observer.on_message(
                f"{studies} ({format_count(found.files, 'file')}) {belong} to no row of the table any more; "
                f"to move them away:  quarry prune {shlex.quote(folder.label)}"
            )

    @contextmanager
    def open_job(self, cohort: CohortFile | None = None) -> Iterator[tuple[JobPlace, Ledger]]:
        """Open the job's folder and ledger; a job that has not begun starts with its cohort's plan."""
        settings = self.queries.settings
        notifications.check_settings(settings.notify)
        if settings.sign is not None:
            load_private_key(settings.sign)  # before the archive is queried for a proof that cannot be signed
        if command := settings.on_complete_command:
            subprocess_runner.check_program("on-complete", subprocess_runner.parse_command(command))
        elif settings.command_name and settings.job is None:
            raise ConfigError(
                f"on-complete: write the command {settings.command_name} below [commands] in quarry.toml"
            )
        folder = open_or_create(settings)
        apply_access(folder.out, self._permissions)

        def reuse_plan() -> None:
            if cohort is not None:
                message = self._reuse_plan(folder, cohort, settings, self.queries.exclusions.digest)
                if message is not None:
                    self.queries.observer.on_message(message)

        with open_for_run(folder, prepare=reuse_plan, on_stop=self.queries.stop) as ledger:
            yield folder, ledger

    def run(self, folder: JobPlace, ledger: Ledger, *, retried: str = "") -> JobResult:
        """Retrieve the missing instances of an open job, and run the command for complete studies.

        ``retried`` describes, for the user and the audit log, what is tried again.
        """
        queries, is_gone = self.queries, folder.find_gone_workers()
        folder.record_exclusions(ledger, queries.exclusions)
        metrics, report = queries.settings.metrics, queries.status_board.report
        with (
            self._open_audit_log(folder, ledger) as audit_log,
            closing(LedgerReader(folder.ledger, max_outage=MAX_OUTAGE)) as reader,
            open_metrics(metrics, folder, report) as self._publisher.on_written,
            open_incoming(folder.incoming, ledger.claims.worker, is_gone) as incoming,
        ):
            ledger.claims.free(is_gone)
            if retried:
                audit_log.write("retried", details=retried)
                queries.observer.on_message(retried)
            context = make_job_context(queries, folder, ledger, audit_log, incoming, reader.columns())
            if queries.exclusions:
                update_stored_exclusions(context, reader)
            if is_watched := have_work(queries, folder, ledger, reader.counts()):
                watcher = Watcher(context, self._publisher, reader, self._make_estimator(reader))
                counts = watcher.watch(retried or self._describe_run(ledger))
                if not watcher.leaves_command(counts):
                    # The list of workers has the reasons without text from the archive.
                    return JobResult(
                        folder,
                        counts,
                        problem=watcher.problem,
                        redacted_problem=watcher.problem,
                        goes_on=watcher.has_let_go,
                    )
            with self._start_on_complete(context) as on_complete:
                context = replace(context, on_task_complete=on_complete.enqueue)
                result = self._retrieve(context, reader)
                if is_watched or on_complete.had_work or not result.nothing_to_do:
                    self._wait_for_on_complete(context, reader, on_complete)
                    result = replace(result, counts=reader.counts(), nothing_to_do=False)
                return result

    def _retrieve(self, context: JobContext, reader: LedgerReader) -> JobResult:
        counts = reader.counts()
        if counts.is_fetched:
            return JobResult(context.folder, counts, nothing_to_do=True)
        self.queries.report_limits()
        try:
            problem = self._connect_and_retrieve(context, reader)
        except Stopped:  # while the job waited for its port
            problem = None
        return JobResult(
            context.folder,
            reader.counts(),
            problem=str(problem) if problem else "",
            redacted_problem=redact(problem) if problem else "",
        )

    def _connect_and_retrieve(
        self, context: JobContext, reader: LedgerReader
    ) -> OperatorActionRequired | None:
        """Retrieve, with a receiver if one is needed; return what a person has to solve. Raises Stopped."""
        queries, ledger, sink = self.queries, context.ledger, context.sink
        has_delivered = reader.counts().instances_stored > 0
        with (
            track_writer(context),
            self._open_receiver(context) as receiver_stats,
            open_clients(queries, has_delivered=has_delivered) as clients,
            open_worker(clients, receiver_stats) as worker,
            self._audit_run(context, reader),
        ):
            queries.observer.on_started(context.folder)
            estimator = self._make_estimator(reader)
            progress_meter = ProgressMeter(reader, queries.status_board, estimator)
            problem = Engine(context, worker, estimator, progress_meter, self._publisher).run()
        if sink.refused:
            ledger.set_metadata(refused=str(int(ledger.metadata().get("refused", "0")) + sink.refused))
        return problem

    def _make_estimator(self, reader: LedgerReader) -> TimeLeftEstimator:
        policy = self.queries.site_policy
        limits = {
            archive.name: [archive, *policy.limits_for(archive).values()]
            for archive in self.queries.settings.archives
        }
        return TimeLeftEstimator(limits, reader.metadata().get("throughput", ""))

    def _open_receiver(self, context: JobContext) -> AbstractContextManager[Callable[[], ReceiverStats]]:
        """Receive while the job runs; takes no port if no archive sends to one."""
        settings = self.queries.settings
        archives = [archive for archive in settings.archives if archive.needs_receiver]
        if not archives:
            return nullcontext(ReceiverStats)
        # Imported here: a job over DICOMweb does not need the DIMSE protocol.
        from dicom_quarry.extraction.storage_scp import run_receiver

        port_queue = self._make_port_queue(context.folder)
        self._publisher.on_time_left = port_queue.update_time_left
        report, shutdown = self.queries.status_board.report, self.queries.user_shutdown
        return run_receiver(settings, archives, JobSinks(context.sink), report, port_queue, shutdown)

    def _make_port_queue(self, folder: JobPlace) -> PortQueue:
        observer, settings = self.queries.observer, self.queries.settings

        def on_wait(waiting_for: str) -> None:
            observer.on_queued(waiting_for)
            observer.on_started(folder)
            folder.write_progress(describe_queued(waiting_for))
            self._publisher.on_written()

        shared_folder = self.queries.site_policy.shared
        return PortQueue(
            settings.local,
            folder.out,
            shared_folder,
            self.queries.shutdown,
            queue=self._queue,
            on_wait=on_wait,
        )

    def _open_audit_log(self, folder: JobPlace, ledger: Ledger) -> AuditLog:
        queries = self.queries

        def on_disk_full(message: str) -> None:
            if message:
                queries.status_board.report(message)
            with queries.status_board.report_waiting("free disk space", needs_operator=True):
                queries.shutdown.wait_unless_cancelled(_DISK_FULL_RETRY_SECONDS)

        return folder.open_audit_log(ledger, queries.settings.protocol, on_disk_full)

    def _audit_run(self, context: JobContext, reader: LedgerReader) -> AbstractContextManager[None]:
        archives = [one.description for one in self.queries.settings.archives]
        details = self._describe_run(context.ledger)
        return record_run(context.audit_log, archives, details, reader.counts)

    def _describe_run(self, ledger: Ledger) -> str:
        exclusions = self.queries.exclusions
        details = [f"cohort {ledger.metadata()['cohort']}", f"Quarry {__version__}"]
        return "; ".join(details + ([f"exclusion lists {exclusions.digest}"] if exclusions else []))

    def _wait_for_on_complete(
        self, context: JobContext, reader: LedgerReader, on_complete: OnComplete
    ) -> None:
        """Publish the progress until the command has run for every complete study, or the user stops."""
        queries = self.queries
        progress_meter = ProgressMeter(reader, queries.status_board)
        with queries.status_board.report_waiting("the commands of on-complete to end"):
            while on_complete.is_busy:
                stopping = queries.user_shutdown.requested
                snapshot = progress_meter.snapshot(*context.sink.totals, stopping=stopping)
                self._publisher.publish(snapshot, context.folder)
                time.sleep(POLL_INTERVAL)
            self._publisher.finish(context.folder)
