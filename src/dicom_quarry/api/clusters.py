"""The database that has the jobs of many hosts: made once, by its administrator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dicom_quarry.config.cluster import ClusterSettings, find_url_problem
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.cluster.database import Cluster


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
    from dicom_quarry.cluster.engine import create_schema

    return create_schema(connection)
