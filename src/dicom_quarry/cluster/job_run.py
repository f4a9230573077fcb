"""One job on one worker: what the worker has open for it, and the work on its rows and studies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from sqlalchemy import BigInteger, bindparam, column, select, table

from dicom_quarry.cluster.window import ROWS_PER_TOKEN
from dicom_quarry.cluster.worker_metrics import WorkerCounts
from dicom_quarry.cohort.exclusion_list import ExclusionList, read_exclusions
from dicom_quarry.config.settings import Settings, parse_recorded_settings
from dicom_quarry.config.site_policy import SITE_POLICY_FILE, SitePolicy
from dicom_quarry.errors import ClaimLost, InputError
from dicom_quarry.extraction.internal_error_guard import InternalErrorGuard, RowGuard
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.job_setup import make_job_context
from dicom_quarry.extraction.query_context import QueryContext
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.extraction.stored_exclusions import update_stored_exclusions
from dicom_quarry.extraction.study_work import work_on_study
from dicom_quarry.extraction.unsynced_files import discard_unsynced, note_workers
from dicom_quarry.extraction.worker import JobSinks, Worker
from dicom_quarry.jobs import record
from dicom_quarry.jobs.audit_log import record_run
from dicom_quarry.jobs.cluster.database import JobRow
from dicom_quarry.jobs.cluster.exclusions import read_recorded_exclusions
from dicom_quarry.jobs.cluster.place import ClusterPlace
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.on_complete_queue import OnCompleteQueue
from dicom_quarry.ledger.outages import MAX_OUTAGE
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.model import Task
from dicom_quarry.store.incoming import open_incoming
from dicom_quarry.system.file_systems import describe_missing_links, has_hard_links
from dicom_quarry.system.processes import user_name
from dicom_quarry.system.shutdown import Shutdown, Stopped
from dicom_quarry.version import __version__

_HAND_OVERS = CompiledStatement(
    select(column("hand_overs"))
    .select_from(table("jobs", schema="quarry"))
    .where(column("number", BigInteger) == bindparam("number"))
)


class StudyCommands(Protocol):
    """A command for complete studies of one job."""

    def run_next(self) -> None:
        """Run the command for the next study that waits, if there is one; raises what ends the job."""


#: Makes the command of a name for a job; None if this worker does not define it.
MakeCommands = Callable[[JobContext, LedgerReader, str], StudyCommands | None]


#: Compares the next part of a job's files for the worker of an identity, until it should stop; returns False
#: if there is none.
ComparePart = Callable[[ClusterPlace, str, Callable[[], bool]], bool]


class JobChanged(Exception):
    """The job was given to the workers with other settings, or another table or exclusion list."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """The means of a worker, for any job: its own settings and limits, its receiver, and its identity.

    The folders of its jobs are below ``root``. ``make_commands`` makes its commands for complete studies,
    ``compare_part`` compares stored files.
    """

    queries: QueryContext
    worker: Worker
    sinks: JobSinks
    identity: str
    root: Path
    make_commands: MakeCommands = lambda *_: None
    compare_part: ComparePart = lambda *_: False
    counts: WorkerCounts = field(default_factory=WorkerCounts)


class JobRun:
    """A job that a worker has open; its threads may work on it at the same time."""

    def __init__(
        self,
        context: JobContext,
        reader: LedgerReader,
        equipment: Equipment,
        job: JobRow,
        commands: StudyCommands | None,
    ) -> None:
        worker = equipment.worker
        self._counts = equipment.counts
        self._context = context
        self._commands = commands
        self._job = job
        self._reader = reader
        self._worker = worker
        report = context.queries.status_board.report
        self._resolver = Resolver(context.queries, worker.clients, context.ledger)
        self._resolver.note_merging_archives()
        self._rows = RowGuard(self._resolver.resolve, context.ledger, report)
        self._studies = InternalErrorGuard("studies", report)
        #: Tasks that have no outcome yet, and whose files are this process's own.
        self._own_tasks: set[int] = set()

    def query_rows(self) -> None:
        """Query for the next rows; those that are left when the job is stopped are given back.

        Raises JobChanged, as ``fetch_study`` does.
        """
        claims, shutdown = self._context.ledger.claims, self._context.queries.shutdown
        requests, recorded = claims.take_requests(ROWS_PER_TOKEN), []
        try:
            self._require_unchanged()
            self._resolver.note_merging_archives()
            for request in requests:
                shutdown.raise_if_requested()
                recorded.append(self._rows.resolve(request))
        except Stopped:
            pass
        finally:
            wait(recorded)
            if len(recorded) < len(requests):
                claims.give_back_items("row", [one.row for one in requests[len(recorded) :]])
        for one in recorded:
            with suppress(ClaimLost):
                one.result()

    def fetch_study(self, archive: str) -> None:
        """Fetch the next study from an archive, if there is one.

        Raises JobChanged if the job was given to the workers again before this: it is to be opened again; and
        RoomUsedUp if the room of the job is used up.
        """
        self._context.room.require()
        claims = self._context.ledger.claims
        for task in claims.take_tasks(time.time(), 1, archive):
            try:
                self._require_unchanged()
                self._discard_files_of_others(task)
                is_concluded = work_on_study(task, self._context, self._worker, self._studies)
                self._counts.add_study(archive, is_concluded=is_concluded)
                if not is_concluded:
                    self._own_tasks.add(task.task_id)
            except BaseException as error:
                claims.give_back_items("task", [task.task_id])
                if not isinstance(error, Stopped):
                    raise

    def run_command(self) -> None:
        """Run the command for the next complete study, if this worker defines what the job names."""
        if self._commands is not None:
            self._commands.run_next()

    @property
    def waiting_for(self) -> str:
        """The reason of a wait on this worker, such as for free disk space; empty if none."""
        return self._context.queries.status_board.waiting_for

    def describe_command(self) -> str:
        """Return which command of the job is left to others; empty if none is."""
        text = self._context.queries.settings.on_complete or ""
        name = self._context.queries.settings.command_name
        return f"{text} is not in this worker's quarry.toml" if name and self._commands is None else ""

    def _require_unchanged(self) -> None:
        """Called with a claim: what is begun after a change is begun with it."""
        found = self._context.ledger.database.fetch_all(_HAND_OVERS, number=self._job.number)
        if [row.hand_overs for row in found] != [self._job.hand_overs]:
            raise JobChanged

    def _discard_files_of_others(self, task: Task) -> None:
        """Discard what another worker has left of a study: its computer may have lost power since."""
        if task.task_id not in self._own_tasks:
            folders = self._context.ledger.folders_of(task.task_id)
            discard_unsynced(self._context, task.study, folders)

    def mark_excluded(self) -> None:
        """Mark stored studies that are on an exclusion list since the job was opened before."""
        if self._context.queries.exclusions:
            update_stored_exclusions(self._context, self._reader)

    def stop(self, *, cancel: bool) -> None:
        """Begin nothing more; ``cancel`` what is being transferred."""
        for shutdown in (self._context.queries.shutdown, self._context.queries.user_shutdown):
            if not shutdown.requested:
                shutdown.request()
            if cancel and not shutdown.cancel_requested:
                shutdown.request()


@contextmanager
def open_job_run(place: ClusterPlace, equipment: Equipment) -> Iterator[JobRun]:
    """Open a job; raise InputError if this worker cannot work on it, and LedgerError."""
    require_folder_below(place, equipment.root)
    if not has_hard_links(place.incoming):
        raise InputError(describe_missing_links(place.out))
    with ExitStack() as stack:
        reader = stack.enter_context(closing(LedgerReader(place.ledger, max_outage=MAX_OUTAGE)))
        queries = _make_queries(place, reader, equipment.queries)
        ledger = stack.enter_context(closing(Ledger(place.ledger, equipment.identity, claims_ahead=0)))
        audit_log = stack.enter_context(place.open_audit_log(ledger, queries.settings.protocol))
        incoming = stack.enter_context(
            open_incoming(place.incoming, equipment.identity, place.find_gone_workers())
        )
        note_workers(ledger)
        columns = reader.columns()
        context = make_job_context(queries, place, ledger, audit_log, incoming, columns, waits_for_room=False)
        commands = _make_commands(context, reader, equipment)
        if queries.settings.command_name:  # this worker, or another one, runs it
            context = replace(context, on_task_complete=OnCompleteQueue(ledger.database).enqueue)
        stack.enter_context(equipment.sinks.open(context.sink))
        archives = [one.description for one in queries.settings.archives]
        details = f"worker {equipment.identity}; Quarry {__version__}"
        stack.enter_context(record_run(audit_log, archives, details, reader.counts))
        yield JobRun(context, reader, equipment, place.job, commands)


def require_folder_below(place: ClusterPlace, root: Path) -> None:
    """Raise InputError if a job's folder is not here, or not one of the worker's."""
    if not place.out.resolve().is_relative_to(root.resolve()):
        raise InputError(f"its folder {place.out} is not below {root}, the root of this worker")
    if not _may_write(place.incoming):
        raise InputError(
            f"the user {user_name()} of this worker may not write to {place.out}: workers run as the user of "
            "the system who enters the jobs"
        )
    place.require_folder()  # any user may have written the path into the list of jobs


def _may_write(folder: Path) -> bool:
    """Return False for a folder that other users keep to themselves, True also if it does not exist."""
    try:
        folder.stat()
    except PermissionError:
        return False
    except OSError:
        return True
    return os.access(folder, os.W_OK | os.X_OK)


def _make_commands(context: JobContext, reader: LedgerReader, equipment: Equipment) -> StudyCommands | None:
    name = context.queries.settings.command_name
    return equipment.make_commands(context, reader, name) if name else None


def _make_queries(place: ClusterPlace, reader: LedgerReader, own: QueryContext) -> QueryContext:
    """Return the job's settings and lists with this worker's receiver, archives, limits and site's lists."""
    metadata = reader.metadata()
    settings = parse_recorded_settings(metadata)
    known = {archive.name: archive for archive in own.settings.archives}
    missing = [one.name for one in settings.archives if one.name not in known]
    if missing:
        raise InputError(f"this worker does not know the archive {missing[0]}: see its quarry.toml")
    settings = settings.model_copy(
        update={
            "archives": tuple(known[one.name] for one in settings.archives),
            "local": own.settings.local,
            "parallel": own.settings.parallel,
        }
    )
    return replace(
        own,
        settings=settings,
        status_board=StatusBoard(),
        shutdown=Shutdown(),
        user_shutdown=Shutdown(),
        exclusions=_read_exclusions(place, settings, own.site_policy),
    )


def _read_exclusions(place: ClusterPlace, settings: Settings, policy: SitePolicy) -> ExclusionList:
    """Return the job's own lists, from its record, with the site's, from the files of this computer."""
    recorded = read_recorded_exclusions(place.ledger)
    if settings.exclude and not recorded.values:
        raise InputError("its record does not have its exclusion list: run its quarry extract again")
    options = record.parse_read_options(settings)
    exclusions = read_exclusions((), options, policy.exclude, recorded.values)
    if exclusions.digest == recorded.digest:
        return exclusions
    files = ", ".join(str(one.file) for one in policy.exclude) or "none"
    raise InputError(
        f"the exclusion lists of the site here ({files}) are not those of the computer where the job was "
        f"entered: have {SITE_POLICY_FILE} and the lists that it names the same on all computers, then run "
        "its quarry extract again"
    )
