"""A worker in a hurry, with the pauses of :mod:`tests.faults.short_delays`; for the command server."""

from __future__ import annotations

from dicom_quarry.cluster import job_runs, left_work, worker
from tests.faults.short_delays import hasten


def prepare() -> None:
    """Shorten the pauses of this process."""
    hasten(setattr)
    worker._BEAT_INTERVAL = 0.1
    job_runs._REFUSED_PAUSE = 0.1
    left_work._LEAVE_SECONDS = 5.0
