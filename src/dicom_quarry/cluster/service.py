"""``quarry worker``: a process that works on the jobs of a database, with its receiver and its limits."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext

from dicom_quarry.cluster.engine import ROWS_QUEUE, study_queue
from dicom_quarry.cluster.engine_schema import is_prepared, worker_revision
from dicom_quarry.cluster.job_run import ComparePart, Equipment, MakeCommands
from dicom_quarry.cluster.job_runs import ROWS_AT_ONCE, JobRuns, command_queues
from dicom_quarry.cluster.lease_state import LeaseState
from dicom_quarry.cluster.worker import WorkerLoop
from dicom_quarry.cluster.worker_metrics import WorkerMeter, writing_metrics
from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import InputError, StartError
from dicom_quarry.extraction.archive_client import open_clients
from dicom_quarry.extraction.query_context import QueryContext, make_query_context
from dicom_quarry.extraction.storage_scp import run_receiver
from dicom_quarry.extraction.worker import JobSinks, Worker, open_worker
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.cluster.workers import FILES_QUEUE, Registration
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.receiver.stats import ReceiverStats
from dicom_quarry.scheduling.port_queue import PortQueue
from dicom_quarry.system.shutdown import Shutdown
from dicom_quarry.system.worker_identity import new_worker_identity


class WorkerService:
    """A worker with the settings of its quarry.toml; ``settings.to`` is the root of its jobs' folders."""

    def __init__(
        self,
        settings: Settings,
        observer: JobObserver,
        make_commands: MakeCommands,
        compare_part: ComparePart,
    ) -> None:
        self._settings = settings
        self._make_commands = make_commands
        self._compare_part = compare_part
        self._observer = observer
        self._cluster = Cluster.of(settings.cluster)
        self._shutdown = Shutdown()
        self._stopping = threading.Event()
        self._runs: JobRuns | None = None

    @property
    def name(self) -> str:
        """The name in the list of workers."""
        return f"{self._settings.local.title}@{socket.gethostname()}"

    def stop(self) -> None:
        """Take no more work, and finish what is being transferred; a second call cancels that."""
        is_second = self._stopping.is_set()
        self._stopping.set()
        self._shutdown.request()
        if self._runs is not None:
            self._runs.close(cancel=is_second)

    def run(self, on_ready: Callable[[], object]) -> None:
        """Work until it is stopped; ``on_ready`` is called when it has entered the list of workers.

        Raises InputError, StartError and LedgerError; ReceiverEnded once it receives nothing any more.
        """
        with self._cluster.connected() as connection:
            if not is_prepared(connection):
                raise InputError(
                    f"{self._cluster.url} has no tables for workers yet: make them once with  quarry cluster "
                    f"init {self._cluster.url}"
                )
        with ExitStack() as stack:
            state = stack.enter_context(
                LeaseState(
                    self._cluster.conninfo(),
                    self.name,
                    self._shutdown.wait_unless_cancelled,
                    seconds=self._settings.cluster.vanished_after,
                )
            )
            queries = make_query_context(self._settings, self._observer, state)
            sinks = JobSinks()
            worker = stack.enter_context(self._open_worker(queries, sinks, stack))
            equipment = Equipment(
                queries,
                worker,
                sinks,
                new_worker_identity(),
                self._settings.to,
                self._make_commands,
                self._compare_part,
            )
            meter = WorkerMeter(self.name, equipment.counts, worker.clients, sinks, state.held_slots)
            stack.enter_context(writing_metrics(self._settings.metrics, meter))
            self._work(equipment, on_ready)

    def _open_worker(
        self, queries: QueryContext, sinks: JobSinks, stack: ExitStack
    ) -> AbstractContextManager[Worker]:
        stats = stack.enter_context(self._open_receiver(queries, sinks))
        clients = stack.enter_context(open_clients(queries, has_delivered=False, must_answer=False))
        return open_worker(clients, stats)

    def _open_receiver(
        self, queries: QueryContext, sinks: JobSinks
    ) -> AbstractContextManager[Callable[[], ReceiverStats]]:
        """Receive while the worker works; takes no port if no archive sends to one."""
        settings = self._settings
        archives = [archive for archive in settings.archives if archive.needs_receiver]
        if not archives:
            return nullcontext(ReceiverStats)
        port_queue = PortQueue(
            settings.local,
            settings.to,
            queries.site_policy.shared,
            self._shutdown,
            queue=False,
            on_wait=lambda _: None,
        )
        report = queries.status_board.report
        return run_receiver(settings, archives, sinks, report, port_queue, queries.user_shutdown)

    def _work(self, equipment: Equipment, on_ready: Callable[[], object]) -> None:
        registration = Registration(
            self.name,
            equipment.identity,
            str(self._settings.local),
            str(equipment.root.resolve()),
            self._settings.cluster.vanished_after,
            worker_revision(),
        )
        with self._cluster.connected() as connection:
            registration.enter(connection)
        self._runs = JobRuns(self._cluster, equipment, self._stopping.wait)
        queues = {
            study_queue(name): client.throttle.max_parallel
            for name, client in equipment.worker.clients.items()
        }
        loop = WorkerLoop(
            self._cluster.open_connection,
            self._cluster.conninfo(),
            registration,
            queues | {ROWS_QUEUE: ROWS_AT_ONCE, FILES_QUEUE: 1} | command_queues(self._settings),
            self._runs,
            self._stopping,
        )
        on_ready()
        loop.run()
        self._runs.close(cancel=False)
        if loop.problem is not None:
            raise loop.problem
        if loop.is_superseded:
            raise StartError(
                "a newer version of Quarry has upgraded the database: start the worker of that version"
            )
