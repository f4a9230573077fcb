"""A job from its cohort to its reports, and notifications of its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from dicom_quarry.api.reports import write_final_reports
from dicom_quarry.api.result import Result
from dicom_quarry.completion.on_complete import OnCompleteRunner
from dicom_quarry.config.settings import Settings, load_settings
from dicom_quarry.extraction.query_context import make_query_context
from dicom_quarry.extraction.runner import JobResult, Runner
from dicom_quarry.jobs.folder import logging_to
from dicom_quarry.jobs.notifications import send_notification
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.planning import plan_cache
from dicom_quarry.reporting.job_message import end_notification, failure_notification

_log = logging.getLogger(__name__)


def make_runner(settings: Settings, observer: JobObserver, *, queue: bool = False) -> Runner:
    """Make the runner of a job, which uses the results of a plan and runs the on-complete command.

    ``queue``: wait for the receiver's port while another job has it. Raises ConfigError and StartError where
    the site's policy does not allow the job.
    """
    return Runner(
        make_query_context(settings, observer),
        reuse_plan=plan_cache.reuse,
        start_on_complete=OnCompleteRunner,
        queue=queue,
    )


def extract(
    cohort: str | Path,
    *,
    archive: str | None = None,
    to: str | Path | None = None,
    local: str | None = None,
    config_file: str | Path | None = None,
    update: bool = False,
    observer: JobObserver | None = None,
    **options: object,
) -> Result:
    """Extract a cohort into a folder, or continue an earlier call that was interrupted.

    ``archive`` is ``AET@HOST:PORT`` or a name from quarry.toml, ``local`` our receiver as ``AET[@IP]:PORT``;
    further ``options`` are those of :class:`dicom_quarry.config.settings.Settings`, such as ``parallel=4``.
    Blocks until the job has ended and its reports are written. Raises InputError, StartError or LedgerError.
    """
    flags = {"from": archive, "to": None if to is None else str(to), "as": local, **options}
    settings = load_settings(None if config_file is None else Path(config_file), flags)
    observer = observer or JobObserver()
    runner = make_runner(settings, observer)
    with notify_on_end(settings, observer.on_message) as notify_end:
        end = runner.extract(Path(cohort), update=update)
        result = write_final_reports(end)
        notify_end(end, result)
    return result


@contextmanager
def notify_on_end(
    settings: Settings, on_warning: Callable[[str], None]
) -> Iterator[Callable[[JobResult, Result], None]]:
    """Send the configured notifications when a run and its reports end, or an error ends them.

    Yields a function to call with the run's result. ``on_warning`` gets the message of a notification that
    could not be sent.
    """
    started = datetime.now(UTC)

    def warn(message: str) -> None:
        _log.warning(message)
        on_warning(message)

    def notify_end(end: JobResult, result: Result) -> None:
        if not end.nothing_to_do:
            with logging_to(end.folder.log):
                send_notification(
                    settings,
                    end_notification(result.summary, end.folder.out, started, end.redacted_problem),
                    warn,
                )

    try:
        yield notify_end
    except Exception as error:
        send_notification(settings, failure_notification(error, settings.to, started), warn)
        raise
