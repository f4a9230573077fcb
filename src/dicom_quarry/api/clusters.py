"""The database that has the jobs of many hosts: made, upgraded and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dicom_quarry.config.cluster import ClusterSettings, find_url_problem
from dicom_quarry.errors import ConfigError, InputError
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.cluster.opening import configured_cluster
from dicom_quarry.jobs.cluster.removal import RemovableJob, find_removable, remove
from dicom_quarry.jobs.cluster.versions import write_revision
from dicom_quarry.jobs.open_place import PREFIX
from dicom_quarry.reporting.cluster_view import ClusterView, read_cluster_view

#: The largest weight of a job.
MAX_WEIGHT = 1000


def init_cluster(url: str, password_file: Path | None = None) -> bool:
    """Make the list of jobs, and the tables of the workers' engine; return False if they were there.

    Raises ConfigError for a URL with a password, InputError and LedgerError.
    """
    if problem := find_url_problem(url):
        raise ConfigError(problem)
    cluster = Cluster.of(ClusterSettings(ledger=url, password_file=password_file))
    made = cluster.init()
    with cluster.connected() as connection:
        return _create_engine_schema(connection) or made


def _create_engine_schema(connection: Any) -> bool:
    # Imported here: it needs the extra [cluster].
    from dicom_quarry.cluster.engine_schema import create_schema, worker_revision

    if not create_schema(connection):
        return False
    write_revision(connection, worker_revision())
    return True


def has_cluster() -> bool:
    """Return True if ./quarry.toml names a database of jobs."""
    try:
        return configured_cluster() is not None
    except ConfigError:
        return False


def read_cluster_status() -> ClusterView:
    """Read the database of ./quarry.toml; raise ConfigError, InputError and LedgerError."""
    cluster = _require_cluster()
    with cluster.connected() as connection:
        return read_cluster_view(connection, cluster.url)


def find_removable_job(label: str) -> RemovableJob:
    """Return the job ``job:NAME`` of the database of ./quarry.toml, if it may be removed.

    Raises InputError if it is not this user's, StartError while something works on it.
    """
    return find_removable(_require_cluster(), _parse_label(label))


def remove_job(found: RemovableJob) -> None:
    """Remove a job's record and its line in the list; its images and reports stay."""
    remove(found)


def set_weight(label: str, weight: float) -> None:
    """Give the job ``job:NAME`` a share of the workers, relative to the weights of the other jobs."""
    if not 0 < weight <= MAX_WEIGHT:
        raise InputError(f"a weight is more than 0 and at most {MAX_WEIGHT}: 2 is twice the share of 1")
    cluster, name = _require_cluster(), _parse_label(label)
    job = cluster.find(name)
    if job is None:
        raise InputError(f"{cluster.url} has no job:{name}: quarry list shows the jobs")
    cluster.set_weight(job, weight)


def _require_cluster() -> Cluster:
    cluster = configured_cluster()
    if cluster is None:
        raise InputError('./quarry.toml names no database of jobs: write  [cluster]  ledger = "…"  there')
    return cluster


def _parse_label(label: str) -> str:
    if not label.startswith(PREFIX):
        raise InputError(f"{label!r} is not the name of a job in the database: write it as {PREFIX}NAME")
    return label.removeprefix(PREFIX)
