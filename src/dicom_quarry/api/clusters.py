"""The database that has the jobs of many hosts: made, upgraded and shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_quarry.config.cluster import ClusterSettings, find_url_problem
from dicom_quarry.errors import ConfigError, InputError
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.cluster.opening import configured_cluster
from dicom_quarry.jobs.cluster.versions import write_revision

if TYPE_CHECKING:
    from dicom_quarry.jobs.cluster.workers import WorkerRow


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


@dataclass(frozen=True, slots=True)
class SlotUse:
    """The places of a limit that all workers share: ``pool`` is its name."""

    pool: str
    used: int
    workers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobShare:
    """A job that the workers have, with the studies that they fetch for it now, and its share of them."""

    name: str
    owner: str
    active: int
    weight: float
    created: datetime


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """A database at one moment."""

    url: str
    workers: tuple[WorkerRow, ...]
    slots: tuple[SlotUse, ...]
    jobs: tuple[JobShare, ...]


_SLOTS = """
SELECT pool, count(*), array_agg(DISTINCT worker ORDER BY worker) FROM quarry.slots
WHERE until > clock_timestamp() GROUP BY pool ORDER BY pool
"""


def read_cluster_status() -> ClusterStatus:
    """Read the database of ./quarry.toml; raise ConfigError, InputError and LedgerError."""
    from dicom_quarry.jobs.cluster.workers import list_shares, list_workers

    cluster = configured_cluster()
    if cluster is None:
        raise InputError('./quarry.toml names no database of jobs: write  [cluster]  ledger = "…"  there')
    with cluster.connected() as connection:
        slots = connection.execute(_SLOTS).fetchall()
        return ClusterStatus(
            cluster.url,
            tuple(list_workers(connection)),
            tuple(SlotUse(pool, used, tuple(workers)) for pool, used, workers in slots),
            tuple(JobShare(*row) for row in list_shares(connection)),
        )
