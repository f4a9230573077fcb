"""The numbers of a job for Prometheus, as a text file that the node exporter's textfile collector reads.

There is one file a job, with the numbers of every page of Quarry (see ``job_view``). Its name and its labels
have the key of the job, which pages have, too, and nothing that names a patient or a folder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_quarry.jobs.opened_job import OpenedJob, open_job
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.jobs.registry import job_key
from dicom_quarry.ledger.activity import ArchiveLoad
from dicom_quarry.model import OnCompleteState, OutcomeStatus
from dicom_quarry.reporting.job_view import JobView, read_job_view
from dicom_quarry.reporting.prometheus import Metric, render_metrics, write_metrics
from dicom_quarry.version import __version__

_log = logging.getLogger("dicom_quarry.job")

#: Largest share of the time for reading the numbers, which takes seconds in a large job.
_MAX_SHARE = 0.05

_STATES = ("running", "stopping", "waiting", "queued", "finished", "not finished", "killed")


def render_job_metrics(view: JobView, job: str, now: float) -> str:
    """Return the text of the file of the job with the key ``job``."""
    metrics = (*_make_metrics(view), Metric.one("updated_timestamp_seconds", "Time of this file.", now))
    return render_metrics("quarry_job_", {"job": job}, metrics)


def _make_metrics(view: JobView) -> Iterator[Metric]:
    state = "killed" if view.was_killed else "stopping" if view.is_stopping else view.state
    yield Metric.one("info", "The version of Quarry.", 1, version=__version__)
    yield Metric.by(
        "state", "1 for the state of the job.", "state", {one: int(one == state) for one in _STATES}
    )
    yield Metric.one(
        "created_timestamp_seconds", "Time at which the job was made.", view.started_at.timestamp()
    )
    yield from _count_rows_and_studies(view)
    yield Metric.one("instances_expected", "Instances that the archive lists.", view.instances_expected)
    yield Metric.one("instances_stored", "Instances that are stored.", view.instances_stored)
    yield Metric.one("instances_missing", "Instances that are listed and not stored.", view.instances_missing)
    yield Metric.one("stored_bytes", "Bytes that are stored.", view.size)
    yield Metric.one("damaged_files", "Files that were found damaged or missing.", view.files_damaged)
    yield Metric.one("waiting", "1 while the job waits, such as for its window.", int(bool(view.waiting_for)))
    if view.bytes_per_second is not None:
        yield Metric.one("receiving_bytes_per_second", "Bytes received in a second.", view.bytes_per_second)
    if view.seconds_left is not None:
        yield Metric.one("left_seconds", "Seconds that the job still needs, estimated.", view.seconds_left)
    yield from _count_load(view)


def _count_rows_and_studies(view: JobView) -> Iterator[Metric]:
    rows, studies = (
        {str(status): counted.get(status, 0) for status in OutcomeStatus}
        for counted in (view.rows_by_status, view.studies_by_status)
    )
    yield Metric.by("rows", "Rows of the table, by outcome.", "outcome", rows)
    yield Metric.one("rows_needing_attention", "Rows that need attention.", view.rows_needing_attention)
    yield Metric.by("studies", "Studies, by outcome.", "outcome", studies)
    yield Metric.one("studies_released", "Studies whose files were moved elsewhere.", view.studies_released)
    commands = {str(state): view.on_complete_counts.get(state, 0) for state in OnCompleteState}
    yield Metric.by(
        "on_complete_studies", "Studies by the state of their on-complete command.", "state", commands
    )


def _count_load(view: JobView) -> Iterator[Metric]:
    loads = view.activity.archives
    counters: tuple[tuple[str, str, Callable[[ArchiveLoad], float]], ...] = (
        ("queries", "Queries to the archive.", lambda load: load.total.queries),
        ("failed_queries", "Queries without a complete result.", lambda load: load.failed_queries),
        ("retrievals", "Retrievals from the archive.", lambda load: load.total.retrievals),
        ("refusals", "Refused retrievals, and failed queries.", lambda load: load.total.refusals),
        ("postponements", "Studies that were tried again later.", lambda load: load.postponements),
    )
    for name, text, count in counters:
        values = {archive: count(load) for archive, load in loads.items()}
        yield Metric.by(f"{name}_total", text, "archive", values)


class MetricsFile:
    """The metrics file of a job, in the folder of the settings. The first failure is passed to ``report``."""

    def __init__(self, folder: Path, job: OpenedJob, report: Callable[[str], None]) -> None:
        self._key = job_key(job.out)
        self._path = folder / f"quarry_{self._key}.prom"
        self._job, self._report = job, report
        self._next_at = 0.0
        self._has_failed = False

    def update(self) -> None:
        """Write the present numbers, unless reading them would take too much of the time."""
        began = time.monotonic()
        if began < self._next_at:
            return
        text = render_job_metrics(read_job_view(self._job), self._key, time.time())
        self._next_at = began + (time.monotonic() - began) / _MAX_SHARE
        try:
            write_metrics(self._path, text)
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                self._report(
                    f"metrics: {self._path.parent} cannot be written ({error.strerror}). The job goes on "
                    "without it, and tries again"
                )


@contextmanager
def open_metrics(
    folder: Path | None, job: JobPlace, report: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Yield the function that updates the metrics of a running job; without ``folder`` it does nothing."""
    if folder is None:
        yield lambda: None
        return
    with open_job(job) as opened:
        yield MetricsFile(folder, opened, report).update


def write_final_metrics(job: OpenedJob) -> None:
    """Write the metrics of a job that has ended, if its settings have a folder for them; log a failure."""
    if job.settings.metrics is not None:
        MetricsFile(job.settings.metrics, job, _log.info).update()
