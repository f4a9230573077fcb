"""The database that has the jobs of many hosts: made once, by its administrator."""

from __future__ import annotations

from pathlib import Path

from dicom_quarry.config.cluster import ClusterSettings, find_url_problem
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.cluster.database import Cluster


def init_cluster(url: str, password_file: Path | None = None) -> bool:
    """Make the list of jobs in a PostgreSQL database; return False if it was there.

    Raises ConfigError for a URL with a password, InputError and LedgerError.
    """
    if problem := find_url_problem(url):
        raise ConfigError(problem)
    return Cluster.of(ClusterSettings(ledger=url, password_file=password_file)).init()
