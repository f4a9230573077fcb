"""The lease of the process that runs a job: a lock of its connection, and a row that it renews.

The lock ends with the connection, so that a killed process is seen at once. A connection may also be lost
while its process lives: the row keeps the job for that process until its heartbeat is ``LEASE`` seconds old
by the database's clock. A process whose lease another one has taken cancels its work.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dicom_quarry.errors import StartError
from dicom_quarry.jobs.cluster.database import Cluster, JobRow, require_member
from dicom_quarry.jobs.cluster.locks import lock_key, try_lock
from dicom_quarry.jobs.cluster.workers import list_workers
from dicom_quarry.jobs.place import Holder
from dicom_quarry.system.processes import is_running
from dicom_quarry.system.service_loop import start_thread

_log = logging.getLogger("dicom_quarry.job")

#: Seconds after which a process that has lost its connection has lost its job, too.
LEASE = 15.0

#: Seconds between two renewals; and for which a new process waits for a lock that is about to be released.
_INTERVAL, _LOCK_TIMEOUT = 1.0, 1.0

_LOCK = "job"


@dataclass(frozen=True, slots=True)
class LeaseState:
    """The process in a job's row, and the age of its heartbeat; ``is_locked``: it has the lock."""

    token: str | None
    host: str
    process: int
    age: float
    is_locked: bool
    has_progress: bool

    @property
    def holder(self) -> Holder | None:
        """The process that runs the job, None if none does."""
        if self.token is None or not (self.is_locked or (self.age < LEASE and not self.is_dead)):
            return None
        return Holder(self.process, "" if self.host == socket.gethostname() else self.host)

    @property
    def is_dead(self) -> bool:
        """True if the process is known to have ended: it was one of this computer."""
        return self.host == socket.gethostname() and not is_running(self.process)


def read_lease(connection: Any, number: int) -> LeaseState:
    """Read the row of a job and its lock."""
    row = connection.execute(
        "SELECT holder_token, coalesce(holder_host, ''), coalesce(holder_process, 0),"
        " coalesce(extract(epoch FROM clock_timestamp() - heartbeat)::float8, 0),"
        " EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted"
        "  AND classid = %s AND objid = %s AND database ="
        "  (SELECT oid FROM pg_database WHERE datname = current_database())),"
        " progress IS NOT NULL FROM quarry.jobs WHERE number = %s",
        (lock_key(_LOCK), number, number),
    ).fetchone()
    return LeaseState(*row) if row else LeaseState(None, "", 0, 0.0, is_locked=False, has_progress=False)


@contextmanager
def hold_job(connection: Any, number: int) -> Iterator[bool]:
    """Keep processes from beginning to work on a job; yields False if one has its lock."""
    if not try_lock(connection, _LOCK, number):
        yield False
        return
    try:
        yield True
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s, %s)", (lock_key(_LOCK), number))


def find_obstacle(connection: Any, number: int) -> str:
    """Return what works on a job that this process holds, or may come back to it; empty if nothing does."""
    state = read_lease(connection, number)
    if state.token is not None and state.age < LEASE and not state.is_dead:
        return f"process {state.process} on {state.host} works on it"
    if connection.execute("SELECT to_regclass(%s)", (f"job_{number}.claims",)).fetchone() == (None,):
        return ""
    living = {one.identity: one.name for one in list_workers(connection) if not one.has_vanished}
    claiming = connection.execute(f"SELECT DISTINCT worker FROM job_{number}.claims").fetchall()
    names = sorted(living[worker] for (worker,) in claiming if worker in living)
    return f"{', '.join(names)} works on it" if names else ""


class JobLease:
    """The lease of this process on one job, from ``acquire`` to ``release``.

    A thread renews it, publishes the progress, and calls ``on_stop`` for requests to stop: once to finish
    what runs, twice to cancel it. A lease that was lost cancels, too.
    """

    def __init__(self, cluster: Cluster, job: JobRow, on_stop: Callable[[], object]) -> None:
        self._cluster, self._job, self._on_stop = cluster, job, on_stop
        self._token = secrets.token_hex(16)
        self._connection: Any = None
        self._has_lock = True
        self._stops = 0
        self._progress: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_ended, name="lease", daemon=True)

    def acquire(self) -> None:
        """Take the job; raise StartError if another process has it, InputError for one of another role."""
        self._connection = self._cluster.open_connection()
        try:
            require_member(self._connection, self._job)
            self._lock_within(_LOCK_TIMEOUT)
            self._take_row()
            start_thread(self._thread)
        except BaseException:
            self._connection.close()
            raise

    def publish(self, progress: str | None) -> None:
        """Publish the progress with the next renewal; None removes it."""
        self._progress = progress

    def release(self) -> None:
        """Give the job back; a progress that was not removed stays. Without a server the lease runs out."""
        self._ended.set()
        self._thread.join()
        try:
            self._connection.execute(
                "UPDATE quarry.jobs SET holder_token = NULL, holder_host = NULL, holder_process = NULL,"
                " heartbeat = NULL, stop_request = '', progress = %s WHERE number = %s AND holder_token = %s",
                (self._progress, self._job.number, self._token),
            )
        except Exception as error:  # noqa: BLE001 - the run has ended; another takes the job when it is old
            _log.warning("the job's lease was not given back: %s", error)
        self._connection.close()

    def _lock_within(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not try_lock(self._connection, _LOCK, self._job.number):
            if time.monotonic() >= deadline:
                holder = read_lease(self._connection, self._job.number).holder
                raise StartError(self._describe_held(holder))
            time.sleep(0.1)

    def _describe_held(self, holder: Holder | None) -> str:
        name = f"job:{self._job.name}"
        return (
            f"another quarry ({holder or 'process unknown'}) is already working on {name}: see its progress "
            f"with  quarry status {name}"
        )

    def _take_row(self) -> None:
        """Write this process into the row; the row of one that may come back is kept for it."""
        state = read_lease(self._connection, self._job.number)
        if state.token is not None and state.age < LEASE and not state.is_dead:
            raise StartError(
                f"process {state.process} on {state.host} works on job:{self._job.name}, and lost its "
                f"connection to the database {state.age:.0f} s ago. It may come back: try again in "
                f"{LEASE:.0f} s, if it does not"
            )
        taken = self._connection.execute(
            "UPDATE quarry.jobs SET holder_token = %s, holder_host = %s, holder_process = %s,"
            " heartbeat = clock_timestamp(), stop_request = '', progress = NULL"
            " WHERE number = %s AND holder_token IS NOT DISTINCT FROM %s",
            (self._token, socket.gethostname(), os.getpid(), self._job.number, state.token),
        )
        if taken.rowcount != 1:
            raise StartError(self._describe_held(read_lease(self._connection, self._job.number).holder))

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(_INTERVAL):
            try:
                if self._connection.closed:
                    self._connection, self._has_lock = self._cluster.open_connection(), False
                if not self._has_lock:  # the server may not have noticed yet that the former one has ended
                    self._has_lock = try_lock(self._connection, _LOCK, self._job.number)
                self._renew()
            except Exception as error:  # noqa: BLE001 - a server that is away is waited for
                _log.warning("the job's lease is not renewed: %s", error)
                self._connection.close()

    def _renew(self) -> None:
        row = self._connection.execute(
            "UPDATE quarry.jobs SET heartbeat = clock_timestamp(), progress = %s"
            " WHERE number = %s AND holder_token = %s RETURNING stop_request",
            (self._progress, self._job.number, self._token),
        ).fetchone()
        if row is None:
            _log.error("another process has taken the job: this one cancels its work")
        wanted = {"": 0, "finish": 1}.get(row[0], 2) if row else 2
        for _ in range(self._stops, wanted):
            self._on_stop()
        self._stops = max(self._stops, wanted)
