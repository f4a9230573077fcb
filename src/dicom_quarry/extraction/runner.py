"""A job from its settings to its end: receiver up and heard, threads run, receiver down, whatever happens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_quarry.cohort.cohort import CohortFile
from dicom_quarry.completion.on_complete import OnCompleteRunner, parse_on_complete
from dicom_quarry.config.settings import Settings
from dicom_quarry.config.site_policy import load_site_policy
from dicom_quarry.errors import OperatorActionRequired, redact
from dicom_quarry.extraction.archive_clients import open_clients
from dicom_quarry.extraction.engine import POLL_INTERVAL, Engine
from dicom_quarry.extraction.inbound import IdentityCheck, InboundSink, InboundStudies
from dicom_quarry.extraction.job_context import ArchiveClient, JobContext
from dicom_quarry.extraction.matching import ResolveRules
from dicom_quarry.extraction.query_thread import QueryContext
from dicom_quarry.extraction.reception import run_receiver_if_needed
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.extraction.stored_exclusions import load_exclusions, update_stored_exclusions
from dicom_quarry.jobs import notifications as notify
from dicom_quarry.jobs import record
from dicom_quarry.jobs.audit_log import AuditLog, record_run
from dicom_quarry.jobs.folder import (
    JobFolder,
    apply_access,
    job_lock,
    logging_to,
    open_existing,
    open_or_create,
)
from dicom_quarry.jobs.instance_paths import make_path_function, parse_template
from dicom_quarry.jobs.observer import JobObserver, ProgressPublisher
from dicom_quarry.jobs.progress import ProgressMeter, StatusBoard, write_queued
from dicom_quarry.jobs.registry import register
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import Counts, LedgerReader, PathFunction
from dicom_quarry.ledger.views import ChangeView
from dicom_quarry.model import InstanceInfo, OutcomeStatus, Task
from dicom_quarry.outcomes import codes_of
from dicom_quarry.planning import plan_cache
from dicom_quarry.scheduling.disk_space import DiskSpaceMonitor, SpaceCheckedSink
from dicom_quarry.scheduling.port_queue import PortQueue
from dicom_quarry.scheduling.throttle import build_throttle
from dicom_quarry.store.instance_store import InstanceStore
from dicom_quarry.store.path_template import PathTemplate
from dicom_quarry.system.shutdown import Shutdown, Stopped
from dicom_quarry.version import __version__

if TYPE_CHECKING:
    from dicom_quarry.planning.planner import PlanResult
    from dicom_quarry.verification.archive_diff import ArchiveDiff

#: Seconds between two tries to write to a full disk.
_DISK_FULL_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a run ended. ``nothing_to_do`` is True where an earlier run had finished the job.

    ``problem``: what a person has to do before an archive can be asked on; empty if nothing. ``told`` is the
    same without the archive's own words.
    """

    folder: JobFolder
    counts: Counts
    nothing_to_do: bool = False
    problem: str = ""
    redacted_problem: str = ""


@dataclass(frozen=True, slots=True)
class _OpenJob:
    """A job that is open: its folder and record, and how its files are named."""

    folder: JobFolder
    ledger: Ledger
    template: PathTemplate
    columns: tuple[str, ...]

    @property
    def path_of(self) -> PathFunction:
        return make_path_function(self.template)

    def cells(self, task: Task) -> Mapping[str, str]:
        """The user's own columns, by header, of the row that first asked for a task."""
        values = self.ledger.cells(self.ledger.first_row(task.task_id))
        return dict(zip(self.columns, values, strict=False))


class Runner:
    """One run of a job; ``stop`` may be called from a signal handler or another thread.

    ``queue``: wait for the receiver's port where another job of this host has it.
    Raises ConfigError and StartError where the site's policy does not allow the job, or cannot be kept.
    """

    def __init__(self, settings: Settings, observer: JobObserver, *, queue: bool = False) -> None:
        self._settings = settings
        self._queue = queue
        self._observer = observer
        self._shutdown = Shutdown()
        self._user_shutdown = Shutdown()
        self._status_board = StatusBoard()
        self._received_totals = (0, 0)
        self._publisher = ProgressPublisher(settings, self._status_board, observer)
        self._access = settings.permissions
        self._site_policy = load_site_policy()
        for archive in settings.archives:
            self._site_policy.check_archive(archive)
        self._exclusions = load_exclusions(settings, self._site_policy)
        self._throttles = {
            archive.name: build_throttle(
                archive, settings.parallel, self._site_policy, self._shutdown, self._status_board
            )
            for archive in settings.archives
        }

    def stop(self) -> None:
        """Finish what is in flight and stop; a second call cancels it."""
        self._shutdown.request()
        self._user_shutdown.request()

    def extract(self, cohort_path: Path, *, update: bool = False) -> JobResult:
        """Extract a cohort, or go on with it. Raises InputError, StartError and LedgerError."""
        settings = self._settings
        cohort, rows = record.read_cohort(cohort_path, settings)
        self._observer.on_cohort_read(cohort.mapping, rows, cohort.notes)
        template = parse_template(settings.filepath, cohort.columns)
        with self._open_folder(cohort) as (folder, ledger):
            if settings.accept_mismatch or _identity_check(settings) != record.load_previous_setting(
                ledger, _identity_check
            ):
                # What was kept apart is judged again.
                ledger.retry({"stored_differs"})
            change = record.begin_or_continue(ledger, cohort, settings, update=update)
            if change is not None:
                self._observer.on_cohort_updated(change)
            return self._run(_OpenJob(folder, ledger, template, cohort.columns))

    def plan(self, cohort_path: Path, *, detailed: bool = False) -> PlanResult:
        """Ask about a cohort, and move nothing. Raises InputError, StartError and LedgerError."""
        # Imported here, like the other verbs' own modules: most runs are extractions.
        from dicom_quarry.planning import planner

        self._report_limits()
        return planner.make_plan(self._query_context(), cohort_path, detailed=detailed)

    def _query_context(self) -> QueryContext:
        return QueryContext(
            self._settings,
            self._throttles,
            self._shutdown,
            self._status_board,
            self._observer,
            self._exclusions,
        )

    def retry(self, statuses: frozenset[OutcomeStatus]) -> JobResult:
        """Work again on what ended in one of these words."""
        with self._open_folder() as (folder, ledger):
            retried = ledger.retry(codes_of(statuses))
            with self._open_audit_log(folder) as audit:
                audit.write("retried", details=f"{', '.join(sorted(statuses))}: {retried} rows and studies")
            self._observer.on_message(f"{retried} rows and studies are tried again")
            return self._run(self._load_job(folder, ledger))

    def _load_job(self, folder: JobFolder, ledger: Ledger) -> _OpenJob:
        columns = tuple(json.loads(ledger.metadata()["columns"]))
        return _OpenJob(folder, ledger, parse_template(self._settings.filepath, columns), columns)

    def refetch(self, study_uids: list[str]) -> JobResult:
        """Work again on studies in which verify found something; what is damaged is moved aside first."""
        from dicom_quarry.verification import quarantine

        with self._open_folder() as (folder, ledger):
            quarantined = quarantine.quarantine_damaged(folder, ledger, study_uids)
            number = len(quarantined.damaged_sop_uids)
            details = f"studies tried again: {quarantined.studies}; files damaged or missing: {number}"
            with self._open_audit_log(folder) as audit:
                audit.write("retried", details=details)
            self._observer.on_message(details)
            result = self._run(self._load_job(folder, ledger))
            if number:
                restored = quarantine.count_restored(folder, quarantined, study_uids)
                self._observer.on_message(f"{restored} of the {number} are here again")
            return result

    def compare_with_archive(
        self, write: Callable[[Iterator[ChangeView]], object], *, restart: bool
    ) -> ArchiveDiff:
        """List complete studies again, and move nothing; see :func:`against.look`."""
        from dicom_quarry.verification import archive_diff

        self._report_limits()
        return archive_diff.compare(
            self._query_context(), open_existing(self._settings.to), write, restart=restart
        )

    @contextmanager
    def _open_folder(self, cohort: CohortFile | None = None) -> Iterator[tuple[JobFolder, Ledger]]:
        """The job's folder and ledger; where it has not begun, with the answers of its cohort's plan."""
        parse_on_complete(self._settings)
        notify.check_settings(self._settings.notify)
        folder = open_or_create(self._settings.to, self._settings.state)
        apply_access(folder.out, self._access)
        with job_lock(folder), logging_to(folder.log):
            register(folder.out)
            since = self._reuse_plan(folder, cohort) if cohort else None
            if since is not None:
                when = plan_cache.format_plan_time(since, datetime.now(UTC))
                self._observer.on_message(f"the answers of the plan of {when} are used")
            ledger = Ledger(folder.ledger)
            try:
                yield folder, ledger
            finally:
                ledger.close()

    def _reuse_plan(self, folder: JobFolder, cohort: CohortFile) -> datetime | None:
        return plan_cache.reuse(folder, cohort, self._settings, self._exclusions.digest)

    def _run(self, open_job: _OpenJob) -> JobResult:
        """Fetch what is not here, and hand over what is complete."""
        folder, ledger = open_job.folder, open_job.ledger
        with closing(self._open_audit_log(folder)) as audit:
            with closing(LedgerReader(folder.ledger)) as reader:
                update_stored_exclusions(
                    ledger, reader, self._exclusions, folder.out, open_job.path_of, audit
                )
            with OnCompleteRunner(
                self._settings,
                folder,
                ledger,
                open_job.path_of,
                audit,
                self._status_board,
                self._user_shutdown,
            ) as on_complete:
                result = self._retrieve(open_job, audit, on_complete.enqueue)
                return (
                    self._drain_on_complete(result, on_complete)
                    if on_complete.had_work or not result.nothing_to_do
                    else result
                )

    def _retrieve(
        self, open_job: _OpenJob, audit: AuditLog, on_task_complete: Callable[[int], None]
    ) -> JobResult:
        folder = open_job.folder
        with closing(LedgerReader(folder.ledger)) as reader:
            counts = reader.counts()
            if counts.is_fetched:
                return JobResult(folder, counts, nothing_to_do=True)
            self._report_limits()
            try:
                problem = self._run_with_receiver(open_job, reader, audit, on_task_complete)
            except Stopped:  # while it queued for its port
                problem = None
            result = JobResult(folder, reader.counts())
            return (
                replace(result, problem=str(problem), redacted_problem=redact(problem)) if problem else result
            )

    def _run_with_receiver(
        self,
        open_job: _OpenJob,
        reader: LedgerReader,
        audit: AuditLog,
        on_task_complete: Callable[[int], None],
    ) -> OperatorActionRequired | None:
        """Run with a receiver, if one is needed; what a person has to do, if anything. Raises Stopped."""
        folder, ledger, settings = open_job.folder, open_job.ledger, self._settings
        inbound = InboundStudies(ledger, open_job.cells, _identity_check(settings), self._exclusions)
        admit, access = inbound.admit, self._access
        store = InstanceStore(
            folder.out, open_job.template, incoming=folder.incoming, admit=admit, access=access
        )
        store.clear_incoming()
        disk_space = DiskSpaceMonitor(
            folder.out, settings.keep_free_bytes, self._shutdown, self._status_board
        )
        sink = InboundSink(SpaceCheckedSink(store, disk_space), inbound, self._bandwidth_limiter_for)
        port_queue = self._make_port_queue(folder)
        self._publisher.on_time_left = port_queue.update_time_left
        receiver_context = run_receiver_if_needed(settings, sink, self._status_board.report, port_queue)
        client_context = self._open_clients(has_served=reader.counts().instances_stored > 0)
        with receiver_context as stats, client_context as clients, self._audit_run(audit, ledger, reader):
            self._observer.on_started(folder)
            context = JobContext(
                clients=clients,
                sink=sink,
                instance_files=store,
                path_of=open_job.path_of,
                inbound=inbound,
                ledger=ledger,
                status_board=self._status_board,
                shutdown=self._shutdown,
                disk_space=disk_space,
                audit_log=audit,
                exclusions=self._exclusions,
                on_task_complete=on_task_complete,
            )
            progress_meter = ProgressMeter(reader, self._status_board)
            engine = Engine(
                context, self._make_resolver(context), sink, stats, progress_meter, folder, self._publisher
            )
            problem = engine.run(max(throttle.max_parallel for throttle in self._throttles.values()))
        self._received_totals = sink.totals
        if sink.refused:
            ledger.set_metadata(refused=str(int(ledger.metadata().get("refused", "0")) + sink.refused))
        return problem

    def _make_resolver(self, context: JobContext) -> Resolver:
        settings, exclusions = self._settings, self._exclusions
        rules = ResolveRules(settings.allow_several_patients, settings.max_studies)
        series = record.parse_series_filter(settings)
        return Resolver(context, rules, settings.diagnosis, series_filter=series, exclusions=exclusions)

    def _open_audit_log(self, folder: JobFolder) -> AuditLog:
        def on_disk_full(message: str) -> None:
            if message:
                self._status_board.report(message)
            with self._status_board.report_waiting("free disk space", needs_operator=True):
                self._shutdown.wait_unless_cancelled(_DISK_FULL_RETRY_SECONDS)

        return AuditLog(folder.audit, self._settings.protocol, on_disk_full)

    def _audit_run(
        self, audit: AuditLog, ledger: Ledger, reader: LedgerReader
    ) -> AbstractContextManager[None]:
        details = [f"cohort {ledger.metadata()['cohort']}", f"Quarry {__version__}"]
        details += [f"exclusion lists {self._exclusions.digest}"] if self._exclusions else []
        archives = [one.description for one in self._settings.archives]
        return record_run(audit, archives, "; ".join(details), reader.counts)

    def _drain_on_complete(self, result: JobResult, on_complete: OnCompleteRunner) -> JobResult:
        """Wait until everything that is complete is handed over, or the job is to stop."""
        waiting = self._status_board.report_waiting("the commands of on-complete to end")
        with closing(LedgerReader(result.folder.ledger)) as reader, waiting:
            progress_meter = ProgressMeter(reader, self._status_board)
            while on_complete.is_busy:
                stopping = self._user_shutdown.requested
                self._publisher.publish(
                    progress_meter.snapshot(*self._received_totals, stopping=stopping), result.folder
                )
                time.sleep(POLL_INTERVAL)
            self._publisher.finish(result.folder)
            return replace(result, counts=reader.counts(), nothing_to_do=False)

    def _make_port_queue(self, folder: JobFolder) -> PortQueue:
        def on_wait(behind: str) -> None:
            self._observer.on_queued(behind)
            self._observer.on_started(folder)
            write_queued(folder.progress, behind)

        local, shared = self._settings.local, self._site_policy.shared
        return PortQueue(local, folder.out, shared, self._shutdown, queue=self._queue, on_wait=on_wait)

    def _open_clients(self, *, has_served: bool) -> AbstractContextManager[Mapping[str, ArchiveClient]]:
        return open_clients(
            self._settings, self._throttles, self._shutdown, self._status_board, has_served=has_served
        )

    def _bandwidth_limiter_for(self, arrival: InstanceInfo) -> Callable[[int], None] | None:
        """Who is to be told of an instance's bytes: the guest of the archive that sends, by its title.

        Archives may send under another title than they answer to: then it is that of the first.
        """
        archives = self._settings.archives
        sender = next((one for one in archives if one.is_sender_of(arrival)), archives[0])
        throttle = self._throttles[sender.name]
        return throttle.throttle_bytes if throttle.has_byte_limit else None

    def _report_limits(self) -> None:
        for archive in self._settings.archives:
            if archive.dicomweb is not None and archive.dicomweb.is_unencrypted:
                self._observer.on_message(
                    f"{archive.dicomweb} is not https: others can read along on the way"
                )
            limits = self._site_policy.describe_limits(archive)
            if limits:
                self._observer.on_message(limits)
        if self._exclusions:
            self._observer.on_message(f"must not be taken (--exclude): {self._exclusions.description}")


def _identity_check(settings: Settings) -> IdentityCheck:
    return IdentityCheck(
        accept_all=settings.accept_mismatch,
        accept_patients=all(archive.merged_ids == "accept" for archive in settings.archives),
    )
