"""Remove a job from a database: its record and its line in the list; its folder stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from dicom_quarry.errors import InputError, StartError
from dicom_quarry.jobs.cluster.actions import record_action
from dicom_quarry.jobs.cluster.database import Cluster, JobRow
from dicom_quarry.jobs.cluster.lease import find_obstacle, hold_job
from dicom_quarry.jobs.cluster.place import are_files_compared, find_workers
from dicom_quarry.jobs.cluster.pointer import read_pointer
from dicom_quarry.jobs.folder import JOB_FILE
from dicom_quarry.system.processes import user_name


@dataclass(frozen=True, slots=True)
class RemovableJob:
    """A job of this user that nothing works on, with the size of what goes: rows, studies, audit records."""

    cluster: Cluster
    job: JobRow
    rows: int
    studies: int
    audit_records: int

    @property
    def has_folder_here(self) -> bool:
        """True if the job's folder is on this computer."""
        pointer = read_pointer(self.job.folder)
        return (
            pointer is not None
            and pointer.name == self.job.name
            and pointer.cluster.database == self.cluster.database
        )


def find_removable(cluster: Cluster, name: str) -> RemovableJob:
    """Return a job that may be removed.

    Raises InputError if there is none of the name, or it is another role's; StartError while something works
    on it; and LedgerError.
    """
    job = cluster.find(name)
    if job is None:
        raise InputError(f"{cluster.url} has no job:{name}: quarry list shows the jobs")
    with cluster.connected() as connection, _held(connection, job):
        return RemovableJob(cluster, job, *_count(connection, cluster.location(job.number).schema))


def remove(found: RemovableJob) -> None:
    """Remove the record and the line of the job, both or neither; raises as ``find_removable``.

    A folder of this computer does not name the job any more.
    """
    cluster, job, is_here = found.cluster, found.job, found.has_folder_here
    with cluster.connected() as connection, _held(connection, job), connection.transaction():
        record_action(connection, job.name, "removed", f"{found.rows} rows")
        connection.execute(f"DROP SCHEMA IF EXISTS {cluster.location(job.number).schema} CASCADE")
        connection.execute("DELETE FROM quarry.jobs WHERE number = %s", (job.number,))
    if is_here:
        with suppress(OSError):  # in another user's folder it stays, and what it names is explained
            (job.folder / ".quarry" / JOB_FILE).unlink()


@contextmanager
def _held(connection: Any, job: JobRow) -> Iterator[None]:
    """Keep others from beginning to work on a job of this user; raise if that cannot be."""
    _require_owner(connection, job)
    with hold_job(connection, job.number) as is_held:
        obstacle = find_obstacle(connection, job.number) if is_held else "a process works on it"
        if not obstacle and find_workers(connection, job):
            obstacle = "the workers have it"
        if not obstacle and are_files_compared(connection, job):
            obstacle = "the workers compare its files"
        if obstacle:
            raise StartError(
                f"job:{job.name} is not removed: {obstacle}. Stop it first:  quarry stop job:{job.name}"
            )
        yield


def _require_owner(connection: Any, job: JobRow) -> None:
    """Raise InputError unless the role owns the schema; a job without one is that of the user who made it."""
    found = connection.execute(
        "SELECT pg_get_userbyid(nspowner), pg_has_role(nspowner, 'MEMBER') FROM pg_namespace"
        " WHERE nspname = %s",
        (f"job_{job.number}",),
    ).fetchone()
    owner, is_own = found or (job.owner, job.owner == user_name())
    if not is_own:
        raise InputError(f"job:{job.name} belongs to {owner}, who alone can remove it")


def _count(connection: Any, schema: str) -> tuple[int, int, int]:
    """Return the numbers of rows, studies and audit records; 0 for tables that are not there."""
    counts = []
    for table in ("requests", "tasks", "audit"):
        name = f"{schema}.{table}"
        is_there = connection.execute("SELECT to_regclass(%s)", (name,)).fetchone() != (None,)
        counts.append(connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] if is_there else 0)
    rows, studies, records = counts
    return rows, studies, records
