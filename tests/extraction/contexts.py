"""Collaborators of queries for tests: one archive without limits."""

from __future__ import annotations

from pathlib import Path

from dicom_quarry.cohort.exclusion_list import NO_EXCLUSIONS
from dicom_quarry.config.settings import load_settings
from dicom_quarry.config.site_policy import SitePolicy
from dicom_quarry.extraction.query_context import QueryContext
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.shutdown import Shutdown


def query_context(
    out: Path, shutdown: Shutdown, status_board: StatusBoard, throttle: ArchiveThrottle
) -> QueryContext:
    """Make the context of a job with the archive PACS@127.0.0.1:104."""
    return QueryContext(
        settings=load_settings(None, {"from": "PACS@127.0.0.1:104", "to": str(out)}),
        observer=JobObserver(),
        status_board=status_board,
        shutdown=shutdown,
        user_shutdown=Shutdown(),
        site_policy=SitePolicy(),
        exclusions=NO_EXCLUSIONS,
        throttles={"main": throttle},
    )
