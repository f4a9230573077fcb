"""A worker's loop: it takes tokens from the engine, keeps the window full, and gives signs of life."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import psycopg

from dicom_quarry.cluster.engine import COMMAND_TASK, FILES_TASK, ROWS_TASK, STUDY_TASK, Engine
from dicom_quarry.cluster.window import top_up
from dicom_quarry.errors import LedgerError, ReceiverEnded
from dicom_quarry.jobs.cluster.versions import Versions, read_versions
from dicom_quarry.jobs.cluster.workers import Registration, WorkerRow, forget_vanished, list_workers
from dicom_quarry.system.service_loop import start_thread

_log = logging.getLogger(__name__)

#: Seconds between two signs of life; the window is filled up then, too.
_BEAT_INTERVAL = 1.0

#: Seconds for which the end of a study waits for others, so that the window is filled up for all of them.
_FILL_DELAY = 0.02


class WorkerJobs(Protocol):
    """The work on the jobs of a database, for any thread."""

    def open_queues(self) -> Mapping[str, int]:
        """Return the number of tokens at once by queue, without the queues that have to wait now."""

    def describe_wait(self) -> str:
        """Return what a queue waits for, empty if none does."""

    def describe_archives(self) -> Mapping[str, Any]:
        """Return what this worker knows of each archive, for the list of workers."""

    def require_receiver(self) -> None:
        """Raise ReceiverEnded if this worker receives nothing any more, and cancel its transfers."""

    def attend(self, connection: psycopg.Connection) -> None:
        """End the work on jobs that the workers do not have any more."""

    def rest(self) -> bool:
        """Take no job, and finish what those that are open have begun; return True when none is open."""

    def go_on(self) -> None:
        """Take jobs again."""

    def query_rows(self, job: int) -> None:
        """Query for the next rows of a job."""

    def fetch_study(self, job: int, archive: str) -> None:
        """Fetch the next study of a job from an archive."""

    def run_command(self, job: int, name: str) -> None:
        """Run a command for the next complete study of a job."""

    def compare_files(self, job: int) -> None:
        """Compare the next part of a job's files with its record."""


class WorkerLoop:
    """One worker of a database, until ``stopping`` is set and what it had begun has ended.

    ``connect`` opens a connection to the database, ``conninfo`` is the engine's. ``queues`` is the number of
    tokens at once by queue. A worker that stops goes on to give signs of life: its studies are its own.
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection],
        conninfo: str,
        registration: Registration,
        queues: Mapping[str, int],
        jobs: WorkerJobs,
        stopping: threading.Event,
    ) -> None:
        self._connect = connect
        self._registration = registration
        self._jobs = jobs
        self._stopping = stopping
        self._ended = threading.Event()
        self._has_begun = False
        self._was_away_at = float("-inf")
        #: The list of workers, empty while this one takes nothing.
        self._workers: list[WorkerRow] = []
        #: True once a newer version of Quarry has upgraded the database.
        self.is_superseded = False
        #: Why this worker has ended by itself, None if it was stopped.
        self.problem: ReceiverEnded | None = None
        self._wake = threading.Event()
        work = {
            ROWS_TASK: lambda job, _: self._do(lambda: jobs.query_rows(job)),
            COMMAND_TASK: lambda job, name: self._do(lambda: jobs.run_command(job, name)),
            FILES_TASK: lambda job, _: self._do(lambda: jobs.compare_files(job)),
            STUDY_TASK: lambda job, archive: self._do(lambda: jobs.fetch_study(job, archive)),
        }
        self._engine = Engine(
            conninfo, registration.name, queues, work, vanished_after=registration.vanished_after
        )

    def run(self) -> None:
        """Work until the stop. Waits for a database that is away."""
        start_thread(threading.Thread(target=self._stop_engine, name="stop", daemon=True))
        while not self._ended.is_set():
            try:
                with self._connect() as connection:
                    self._serve(connection)
            except (psycopg.Error, LedgerError) as error:  # away; or a job was removed just now
                _log.warning("the database: %s; trying again", " ".join(str(error).split()))
                self._ended.wait(_BEAT_INTERVAL)
                self._was_away_at = time.monotonic()
        with suppress(psycopg.Error, LedgerError), self._connect() as connection:
            self._registration.remove(connection)

    def _serve(self, connection: psycopg.Connection) -> None:
        forget_vanished(connection)
        while not self._ended.is_set():
            if reason := self._find_reason_to_rest(read_versions(connection)):
                self._workers = []
                idle = self._jobs.rest()
                self._beat(connection, {}, reason if idle else f"finishes what it has: {reason}", idle=idle)
            else:
                self._work(connection)
            self._jobs.attend(connection)
            self._fill_until_beat(connection)

    def _fill_until_beat(self, connection: psycopg.Connection) -> None:
        """Fill the window up after each study, until it is time for the next sign of life, or to stop."""
        was_stopping, beat_at = self._stopping.is_set(), time.monotonic() + _BEAT_INTERVAL
        while (seconds := beat_at - time.monotonic()) > 0 and self._stopping.is_set() == was_stopping:
            if not self._wake.wait(seconds) or self._ended.wait(_FILL_DELAY):
                return
            self._wake.clear()
            if self._workers:
                self._top_up(connection)

    def _top_up(self, connection: psycopg.Connection) -> None:
        """Fill the window up. After an absence of the database the others may need a while to come back."""
        seconds_back = time.monotonic() - self._was_away_at
        top_up(connection, self._workers, frees_claims=seconds_back >= self._registration.vanished_after)

    def _find_reason_to_rest(self, versions: Versions) -> str:
        """Return why this worker takes nothing from a database of these versions; empty if it does."""
        own = self._registration.revision
        if versions.revision > own and not self.is_superseded:
            _log.error("a newer version of Quarry has upgraded the database: this worker ends")
            self.is_superseded = True
            self._stopping.set()
        if versions.revision < own:
            return "waits for  quarry cluster upgrade: the database is of an older version"
        if max(versions.revision, versions.upgrade) > own:
            return "takes no more: the database is being upgraded"
        return ""

    def _work(self, connection: psycopg.Connection) -> None:
        """Give a sign of life, fill the window up, and take tokens."""
        self._jobs.go_on()
        self._check_receiver()
        is_stopping = self._stopping.is_set()
        queues = {} if is_stopping else self._jobs.open_queues()
        state = "ending what it has begun" if is_stopping else self._jobs.describe_wait()
        self._beat(connection, queues, state)
        self._workers = list_workers(connection)
        self._top_up(connection)
        if not (self._has_begun or is_stopping):
            self._has_begun = True
            self._engine.start()

    def _check_receiver(self) -> None:
        """End a worker whose moves would bring nothing: its studies are for the others."""
        try:
            if not self._stopping.is_set():
                self._jobs.require_receiver()
        except ReceiverEnded as error:
            _log.error("%s: this worker ends", error)
            self.problem = error
            self._stopping.set()

    def _beat(
        self, connection: psycopg.Connection, queues: Mapping[str, int], state: str, *, idle: bool = False
    ) -> None:
        archives = self._jobs.describe_archives()
        is_known = self._registration.beat(connection, queues, state, archives, idle=idle)
        if not (is_known or self._stopping.is_set()):
            _log.error("another worker has taken the name %s: this one ends", self._registration.name)
            self._stopping.set()

    def _stop_engine(self) -> None:
        self._stopping.wait()
        self._engine.stop()
        self._ended.set()
        self._wake.set()

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            self._wake.set()  # there may be something for the window now
