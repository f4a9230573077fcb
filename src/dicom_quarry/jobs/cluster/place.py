"""A job with a name: its record is a schema of a database, its images are in a folder.

The folder has no record: below ``.quarry`` it has the incoming instances, the logs, a copy of the audit log
that the reports make, and a file that names the job.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_quarry.config.command_sources import reject_untrusted_commands
from dicom_quarry.config.settings import COMMAND_PREFIX
from dicom_quarry.errors import InputError
from dicom_quarry.jobs.audit_log import AUDIT_NAME, COLUMNS, AuditLog, format_line
from dicom_quarry.jobs.checkpoint_store import (
    CheckpointFiles,
    CheckpointStore,
    own_folder,
    writable_folder,
)
from dicom_quarry.jobs.cluster.actions import record_action
from dicom_quarry.jobs.cluster.checkpoints import CheckpointRows
from dicom_quarry.jobs.cluster.database import Cluster, JobRow, require_member
from dicom_quarry.jobs.cluster.exclusions import read_recorded_exclusions, record_exclusions
from dicom_quarry.jobs.cluster.file_check import FileCheck, FileCheckState, find_file_check
from dicom_quarry.jobs.cluster.lease import JobLease, LeaseState, read_lease
from dicom_quarry.jobs.cluster.locks import AdvisoryLock
from dicom_quarry.jobs.cluster.pointer import read_pointer
from dicom_quarry.jobs.cluster.tables import (
    AuditTable,
    append_audit_line,
    create_tables,
    read_audit_table,
)
from dicom_quarry.jobs.cluster.workers import (
    ENGINE_TABLE,
    FILES_QUEUE,
    describe_missing_worker,
    find_refusals,
    list_roots,
    list_workers,
)
from dicom_quarry.jobs.place import WORKERS, Holder, JobPlace, OnFull, do_nothing
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.location import PostgresLocation
from dicom_quarry.system.atomic_file import atomic_write
from dicom_quarry.system.processes import user_name

if TYPE_CHECKING:
    from dicom_quarry.cohort.exclusion_list import ExclusionList


@dataclass(slots=True)
class _Running:
    """The lease of a job that this process runs, None while it does not."""

    lease: JobLease | None = None


@dataclass(frozen=True)
class ClusterPlace(JobPlace):
    """The place of a job whose record is in a database; ``job`` is its row in the list of jobs."""

    cluster: Cluster
    job: JobRow
    _running: _Running = field(default_factory=_Running, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The name in the list of jobs."""
        return self.job.name

    @property
    def ledger(self) -> PostgresLocation:
        """The schema of the job."""
        return self.cluster.location(self.job.number)

    @contextmanager
    def lock(self, *, runs_job: bool = True, on_stop: Callable[[], object] = do_nothing) -> Iterator[None]:  # noqa: ARG002 - the list of jobs is always there
        """Hold the lease of the job; raise StartError if another process has it."""
        lease = JobLease(self.cluster, self.job, on_stop)
        lease.acquire()
        self._running.lease = lease
        try:
            yield
        finally:
            self._running.lease = None
            lease.release()

    def named_lock(self, name: str) -> AdvisoryLock:
        """Return a lock in the database."""
        return AdvisoryLock(self.cluster, name, self.job.number)

    def holder(self) -> Holder | None:
        """Return the process that has the lease; the workers, if they have the job."""
        with self.cluster.connected() as connection:
            return read_lease(connection, self.job.number).holder or find_workers(connection, self.job)

    def find_stoppable(self) -> Holder | None:
        """Return the same, and the workers while they compare the files: they read it in the database."""
        return self.holder() or (Holder(0, WORKERS) if self.is_compared() else None)

    def is_compared(self) -> bool:
        """Look at the list of jobs, and at what lies with the engine."""
        with self.cluster.connected() as connection:
            return are_files_compared(connection, self.job)

    def request_stop(self, holder: Holder, *, cancel: bool) -> None:  # noqa: ARG002 - the row has it
        """Write the request into the list of jobs, from any host."""
        with self.cluster.connected() as connection, connection.transaction():
            require_member(connection, self.job)
            self._record_action(connection, "cancel_requested" if cancel else "stop_requested", "")
            connection.execute(
                "UPDATE quarry.jobs SET stop_request = %s WHERE number = %s AND holder_token IS NOT NULL"
                " AND stop_request <> 'cancel'",
                ("cancel" if cancel else "finish", self.job.number),
            )
            # A job that was stopped before may still have studies in transfer: these are cancelled, too.
            connection.execute(
                "UPDATE quarry.jobs SET with_workers = false, cancelled = cancelled OR %s WHERE number = %s",
                (cancel, self.job.number),
            )
            connection.execute(
                "UPDATE quarry.jobs SET verifying = false WHERE number = %s", (self.job.number,)
            )

    def find_gone_workers(self) -> Callable[[str], bool]:
        """Return True for all but those in the list of workers that give signs of life."""
        with self.cluster.connected() as connection:
            living = {one.identity for one in list_workers(connection) if not one.has_vanished}
        return lambda identity: identity not in living

    def has_workers(self, command: str = "") -> bool:
        """Return True if a worker of the database gives signs of life, and has the folder below its root."""
        with self.cluster.connected() as connection:
            workers = list_workers(connection)
        living = [one for one in workers if not one.has_vanished and self.job.folder.is_relative_to(one.root)]
        return any(not command or f"{COMMAND_PREFIX}{command}" in one.queues for one in living)

    def list_roots(self) -> list[str]:
        """Look at the list of workers."""
        with self.cluster.connected() as connection:
            return list_roots(connection)

    def describe_missing_worker(self) -> str:
        """Look at the list of workers."""
        with self.cluster.connected() as connection:
            return describe_missing_worker(list_workers(connection), self.label)

    def find_refusals(self, since: float) -> Mapping[str, str]:
        """Look at the list of workers."""
        with self.cluster.connected() as connection:
            return find_refusals(list_workers(connection), since, self.label)

    def take_back(self, details: str) -> None:
        """Write it into the list of jobs."""
        with self.cluster.connected() as connection, connection.transaction():
            self._record_action(connection, "stop_requested", details)
            connection.execute(
                "UPDATE quarry.jobs SET with_workers = false, cancelled = false WHERE number = %s",
                (self.job.number,),
            )

    def is_with_workers(self) -> bool:
        """Look at the list of jobs, and at what lies with the engine."""
        with self.cluster.connected() as connection:
            return find_workers(connection, self.job) is not None

    def goes_on(self) -> bool:
        """Look at the list of jobs."""
        with self.cluster.connected() as connection:
            return is_given_to_workers(connection, self.job)

    def hand_over(self, details: str, *, is_changed: bool, command: str) -> float:
        """Give the job to the workers of the database."""
        with self.cluster.connected() as connection, connection.transaction():
            self._record_action(connection, "handed_over", details)
            row = connection.execute(
                "UPDATE quarry.jobs SET with_workers = true, cancelled = false, hand_overs = hand_overs + %s,"
                " command = %s WHERE number = %s"
                " RETURNING extract(epoch FROM clock_timestamp())::double precision",
                (int(is_changed), command, self.job.number),
            ).fetchone()
            return float(row[0])

    def note_action(self, action: str, details: str) -> None:
        """Write a row of the list of jobs."""
        with self.cluster.connected() as connection:
            record_action(connection, self.job.name, action, details)

    def write_progress(self, values: Mapping[str, object]) -> None:
        """Publish the progress with the next renewal of the lease."""
        if self._running.lease is not None:
            progress = {"process": os.getpid(), "time": time.time(), **values}
            self._running.lease.publish(json.dumps(progress))

    def remove_progress(self) -> None:
        """Remove the progress with the next renewal of the lease."""
        if self._running.lease is not None:
            self._running.lease.publish(None)

    def read_progress(self) -> object:
        """Read the progress from the list of jobs, which another user may have written."""
        with self.cluster.connected() as connection:
            row = connection.execute(
                "SELECT progress FROM quarry.jobs WHERE number = %s", (self.job.number,)
            ).fetchone()
        try:
            return json.loads(row[0]) if row and row[0] else None
        except (ValueError, RecursionError):
            return None

    def was_left(self) -> bool:
        """Return True if the last process did not give its lease back, or left its progress."""
        state = self._read_lease()
        return state.token is not None or state.has_progress

    def open_audit_log(
        self,
        ledger: Ledger,
        protocol: str = "",
        on_full: OnFull | None = None,  # noqa: ARG002 - a full server ends the run, as for the ledger
    ) -> AuditLog:
        """Open the table of the audit log."""
        return AuditTable(ledger.database, protocol)

    def read_audit(self) -> Iterator[dict[str, str]]:
        """Read the table of the audit log."""
        return read_audit_table(self.ledger)

    def open_checkpoint(self, name: str) -> CheckpointStore:
        """Return rows of the job; files of this user, if the user may only read the job."""
        with self.cluster.connected() as connection:
            (may_write,) = connection.execute(
                "SELECT has_table_privilege(to_regclass(%s), 'INSERT')",
                (f"{self.ledger.schema}.checkpoints",),
            ).fetchone()
        if not may_write:
            return CheckpointFiles(own_folder(self.out), name)
        return CheckpointRows(self.cluster, self.job.number, name, writable_folder(self))

    def open_file_check(self, *, restart: bool) -> FileCheck | None:
        """Look for workers that have the folder of the job."""
        return find_file_check(self.cluster, self.job, restart=restart)

    def read_file_check(self) -> FileCheckState | None:
        """Read the tables of the job."""
        return FileCheck(self.cluster, self.job).read()

    def forget_file_check(self) -> None:
        """Write the tables of the job."""
        FileCheck(self.cluster, self.job).forget()

    def export_audit(self) -> None:
        """Write audit.csv from the table."""
        with atomic_write(self.state / AUDIT_NAME) as file:
            file.write(format_line(COLUMNS))
            for record in self.read_audit():
                file.write(format_line([record.get(name, "") for name in COLUMNS]))

    def prepare_record(self, ledger: Ledger) -> None:
        """Make the tables that are files in a job with SQLite."""
        ledger.database.write(create_tables)

    def record_exclusions(self, ledger: Ledger, exclusions: ExclusionList) -> None:
        """Write them into the job's schema, for workers and for commands on other computers."""
        record_exclusions(ledger, exclusions)

    def recorded_exclusions(self, files: Sequence[Path]) -> Mapping[str, frozenset[str]] | None:
        """Return those of the record where a file is missing, and on computers that did not enter the job."""
        if self.job.host == socket.gethostname() and all(os.access(file, os.R_OK) for file in files):
            return None
        return read_recorded_exclusions(self.ledger).values or None

    def signs(self) -> tuple[object, ...]:
        """Return the row of the job, and the number of changes that the server has counted in its schema."""
        with self.cluster.connected() as connection:
            row: tuple[object, ...] = connection.execute(
                "SELECT holder_token, heartbeat, progress, (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)"
                " FROM pg_stat_user_tables WHERE schemaname = %s) FROM quarry.jobs WHERE number = %s",
                (self.ledger.schema, self.job.number),
            ).fetchone()
            return (*row, read_lease(connection, self.job.number).holder)

    def has_changed_since(self, time_ns: int) -> bool:  # noqa: ARG002 - the database keeps no such time
        """Return True: the reports are written again."""
        return True

    def reject_commands(self, settings: Mapping[str, object], *, trust_owner: bool) -> None:
        """Raise ConfigError for settings with a command, if another user made the job or may change it."""
        if trust_owner:
            return
        with self.cluster.connected() as connection:
            schema_owner, others = connection.execute(
                "SELECT pg_get_userbyid(relowner) = current_user, EXISTS (SELECT FROM aclexplode(relacl) a"
                " WHERE a.grantee <> relowner AND a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE'))"
                " FROM pg_class WHERE oid = to_regclass(%s)",
                (f"{self.ledger.schema}.job",),
            ).fetchone()
        reason = ""
        if not schema_owner or self.job.owner != user_name():
            reason = f"user {self.job.owner} made it"
        elif others:
            reason = "other users of the database may change it"
        reject_untrusted_commands(settings, f"the record of {self.label}", reason)

    def settings_of_place(self) -> dict[str, object]:
        """Return the folder, the name and the database."""
        return {"to": self.out, "state": None, "job": self.job.name, "cluster": self.cluster.settings}

    def require_folder(self) -> None:
        """Raise InputError if the folder of the images is not here."""
        if (pointer := read_pointer(self.out)) is None or pointer.name != self.job.name:
            raise InputError(
                f"the images of {self.label} are in {self.out} of the computer {self.job.host}: run this "
                "command there, or mount that folder here at the same path"
            )

    def _record_action(self, connection: Any, action: str, details: str) -> None:
        """Record an action in the list of jobs, and in the audit log if this role may write that."""
        record_action(connection, self.job.name, action, details)
        append_audit_line(connection, self.ledger.schema, action, details)

    def _read_lease(self) -> LeaseState:
        with self.cluster.connected() as connection:
            return read_lease(connection, self.job.number)


def find_workers(connection: Any, job: JobRow) -> Holder | None:
    """Return the workers as the holder of a job that they have, or are just finishing studies of."""
    has_it = is_given_to_workers(connection, job) or _has_tokens(connection, job, "<>")
    return Holder(0, WORKERS) if has_it else None


def is_given_to_workers(connection: Any, job: JobRow) -> bool:
    """Return True while the workers begin studies of a job."""
    found = connection.execute("SELECT with_workers FROM quarry.jobs WHERE number = %s", (job.number,))
    return bool(found.fetchone()[0])


def are_files_compared(connection: Any, job: JobRow) -> bool:
    """Return True while the workers compare the files of a job, or are just ending that."""
    (is_compared,) = connection.execute(
        "SELECT verifying FROM quarry.jobs WHERE number = %s", (job.number,)
    ).fetchone()
    return is_compared or _has_tokens(connection, job, "=")


def _has_tokens(connection: Any, job: JobRow, operator: str) -> bool:
    """Return True if workers have tokens of a job from the queue of files (``=``), or others (``<>``)."""
    if connection.execute(f"SELECT to_regclass('{ENGINE_TABLE}')").fetchone() == (None,):
        return False
    (found,) = connection.execute(
        f"SELECT EXISTS (SELECT FROM {ENGINE_TABLE} WHERE status = 'doing' AND args->>'job' = %s"
        f" AND queue_name {operator} %s)",
        (str(job.number), FILES_QUEUE),
    ).fetchone()
    return bool(found)
