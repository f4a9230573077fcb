"""A job from its cohort to its reports, and whoever wants to know of its end is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from dicom_quarry.api.reports import reports_of
from dicom_quarry.api.result import Result
from dicom_quarry.config.settings import Settings, load
from dicom_quarry.extraction.runner import JobEnd, Runner
from dicom_quarry.jobs.folder import logging_to
from dicom_quarry.jobs.notifier import tell
from dicom_quarry.jobs.observer import Listener
from dicom_quarry.reporting.job_message import end_notice, failure_notice

_log = logging.getLogger(__name__)


def extract(
    cohort: str | Path,
    *,
    archive: str | None = None,
    to: str | Path | None = None,
    local: str | None = None,
    config_file: str | Path | None = None,
    update: bool = False,
    listener: Listener | None = None,
    **options: object,
) -> Result:
    """Extract a cohort into a folder, or go on where an earlier call was cut short.

    ``archive`` is ``AET@HOST:PORT`` or a name from quarry.toml, ``local`` our receiver as ``AET[@IP]:PORT``;
    further ``options`` are those of :class:`dicom_quarry.config.settings.Settings`, such as ``parallel=4``. Blocks
    until the job has ended and its reports are written. Raises InputError, StartError or LedgerError.
    """
    flags = {"from": archive, "to": None if to is None else str(to), "as": local, **options}
    settings = load(None if config_file is None else Path(config_file), flags)
    listener = listener or Listener()
    runner = Runner(settings, listener)
    with telling(settings, listener.said) as ended:
        end = runner.extract(Path(cohort), update=update)
        result = reports_of(end)
        ended(end, result)
    return result


@contextmanager
def telling(settings: Settings, say: Callable[[str], None]) -> Iterator[Callable[[JobEnd, Result], None]]:
    """Around a run and its reports: whoever wants to know is told how it ended, also by an error.

    Gives what is to be called with the end. ``say`` hears of a notification that could not be sent.
    """
    started = datetime.now(UTC)

    def heard(message: str) -> None:
        _log.warning(message)
        say(message)

    def ended(end: JobEnd, result: Result) -> None:
        if not end.nothing_to_do:
            with logging_to(end.folder.log):
                tell(settings, end_notice(result.summary, end.folder.out, started, end.told), heard)

    try:
        yield ended
    except Exception as error:
        tell(settings, failure_notice(error, settings.to, started), heard)
        raise
