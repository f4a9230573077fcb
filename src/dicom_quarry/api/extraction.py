"""A job from its cohort to its reports, and notifications of its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Unpack

from dicom_quarry.api.boundary import clear_errors, name_options
from dicom_quarry.api.cohort_rows import Cohort, as_table, is_path
from dicom_quarry.api.options import ExtractOptions, StrPath, Texts, check_bools, make_flags, make_path
from dicom_quarry.api.progress import open_progress
from dicom_quarry.api.reports import write_final_reports
from dicom_quarry.api.result import Result
from dicom_quarry.api.running import running
from dicom_quarry.completion.on_complete import OnCompleteRunner
from dicom_quarry.config.settings import Settings, load_settings
from dicom_quarry.extraction.query_context import make_query_context
from dicom_quarry.extraction.runner import JobResult, Runner
from dicom_quarry.jobs.folder import logging_to
from dicom_quarry.jobs.notifications import send_notification
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.jobs.open_place import open_existing
from dicom_quarry.planning import plan_cache
from dicom_quarry.reporting.job_message import end_notification, failure_notification

_log = logging.getLogger(__name__)


def make_runner(
    settings: Settings, observer: JobObserver, *, queue: bool = False, continues: bool = False
) -> Runner:
    """Make the runner of a job, which uses the results of a plan and runs the on-complete command.

    ``queue``: wait for the receiver's port while another job has it. ``continues``: the settings are those of
    a record. Raises ConfigError and StartError where the site's policy does not allow the job.
    """
    recorded = None
    if continues and settings.exclude and settings.job is not None:
        recorded = open_existing(settings.to).recorded_exclusions([one.file for one in settings.exclude])
    return Runner(
        make_query_context(settings, observer, recorded_exclusions=recorded),
        reuse_plan=plan_cache.reuse,
        start_on_complete=OnCompleteRunner,
        queue=queue,
    )


def load_extract_settings(path: Path | None, flags: Mapping[str, object]) -> Settings:
    """Load the settings of a job.

    One with a name needs no folder: it has its own, or gets one of its name below the root of the workers.
    Raises ConfigError, InputError and LedgerError.
    """
    name, folder = flags.get("job"), None
    if name and flags.get("to") is None:
        # Imported here: a job in a folder needs no database.
        from dicom_quarry.jobs.cluster.opening import choose_folder

        folder = choose_folder(str(name), path, trust_owner=bool(flags.get("trust_owner")))
    return load_settings(path, flags, None if folder is None else {"to": folder})


@clear_errors
def extract(
    cohort: Cohort,
    *,
    archive: Texts | None = None,
    to: StrPath | None = None,
    receiver: str | None = None,
    config: StrPath | None = None,
    update: bool = False,
    queue: bool = False,
    archive_moved: bool = False,
    observer: JobObserver | None = None,
    progress: bool = False,
    **options: Unpack[ExtractOptions],
) -> Result:
    """Extract a cohort into a folder, or continue an earlier call that was interrupted.

    ``cohort`` is the path of a table, a DataFrame, or a list of dicts. ``archive`` (``--from``) is
    ``AET@HOST:PORT``, ``https://HOST/PATH`` or a name from quarry.toml. ``receiver`` (``--as``) is our own,
    as ``AET[@IP]:PORT``. ``config`` is the settings file; without it quarry.toml of the current folder. The
    ``options`` have the names of the flags, such as ``parallel=4``. ``observer`` is called while the job
    runs; what it raises is a warning. ``progress`` shows one output that is updated, in a notebook and on a
    terminal. Blocks until the job has ended and its reports are written. Raises
    InputError, StartError or LedgerError.
    """
    check_bools(update=update, queue=queue, archive_moved=archive_moved, progress=progress)
    path = None if config is None else make_path(config, "config")
    flags = make_flags("extract", options, ExtractOptions, archive=archive, to=to, receiver=receiver)
    with as_table(cohort) as table:
        settings = load_extract_settings(path, flags)

        def work(runner: Runner) -> JobResult:
            return runner.extract(
                table, update=update, archive_moved=archive_moved, is_temporary=not is_path(cohort)
            )

        return run_to_end(settings, with_file_check(work), observer, progress=progress, queue=queue)


def run_to_end(
    settings: Settings,
    work: Callable[[Runner], JobResult],
    observer: JobObserver | None,
    *,
    progress: bool = False,
    queue: bool = False,
    continues: bool = False,
) -> Result:
    """Run a job from Python code, write its reports and send its notifications."""
    with open_progress("Extraction", observer, progress=progress) as (shown_to, output):
        runner = make_runner(settings, shown_to, queue=queue, continues=continues)
        with notify_on_end(settings, shown_to.on_message) as notify_end, running(runner):
            end = work(runner)
            result = replace(write_final_reports(end), problem=name_options(end.problem))
            notify_end(end, result)
        if output is not None:
            output.finish(result.summary.rows_done, result.summary.rows, result.summary.verdict)
    return result


def with_file_check(work: Callable[[Runner], JobResult]) -> Callable[[Runner], JobResult]:
    """Return the work of a run, after which the files of a job that was finished before are compared."""

    def work_and_check(runner: Runner) -> JobResult:
        end = work(runner)
        if not end.nothing_to_do:
            return end
        # Imported here: a job with something to do needs no verification.
        from dicom_quarry.api.file_check import check_finished

        return check_finished(runner, end)

    return work_and_check


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
