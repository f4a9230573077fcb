"""The database that has the jobs of many hosts: made, upgraded and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dicom_quarry.config.cluster import ClusterSettings, find_url_problem
from dicom_quarry.errors import ConfigError, InputError
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.cluster.opening import configured_cluster
from dicom_quarry.jobs.cluster.versions import write_revision
from dicom_quarry.reporting.cluster_view import ClusterView, read_cluster_view


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


def read_cluster_status() -> ClusterView:
    """Read the database of ./quarry.toml; raise ConfigError, InputError and LedgerError."""
    cluster = configured_cluster()
    if cluster is None:
        raise InputError('./quarry.toml names no database of jobs: write  [cluster]  ledger = "…"  there')
    with cluster.connected() as connection:
        return read_cluster_view(connection, cluster.url)
