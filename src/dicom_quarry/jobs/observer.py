"""The observer of a job or a plan, and the publisher that keeps it informed."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partialmethod

from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.notifications import Notifier
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.jobs.progress import QueryProgress, Snapshot, StatusBoard, describe_snapshot
from dicom_quarry.ledger.cohort_rows import CohortChange

_log = logging.getLogger(__name__)


def describe_unused_columns(names: Sequence[str]) -> str:
    """Describe the columns that are not searched by, for the first lines of a command."""
    return f"Not used for searching: {', '.join(names)}"


class JobObserver:
    """Callbacks of a running job or plan; a display overrides those that it needs."""

    def on_cohort_read(self, mapping: tuple[tuple[str, str], ...], rows: int, notes: tuple[str, ...]) -> None:
        """The table was read: ``mapping`` has the headers and their DICOM keywords."""

    def on_columns_unused(self, names: tuple[str, ...]) -> None:
        """These columns of the table are not searched by. Without a display it is a warning of the log."""
        if names:
            _log.warning(describe_unused_columns(names))

    def on_cohort_updated(self, change: CohortChange) -> None:
        """A newer table replaced that of the job."""

    def on_queued(self, waiting_for: str) -> None:
        """The job waits for its receiver's port; called several times a second."""

    def on_started(self, folder: JobPlace) -> None:
        """The job is queued, or passed its first checks, and needs no terminal. May be called twice."""

    def on_progress(self, snapshot: Snapshot) -> None:
        """The job's progress, several times a second."""

    def on_query_progress(self, progress: QueryProgress) -> None:
        """The progress of a plan, or of a comparison with the archive, several times a second."""

    def on_message(self, message: str) -> None:
        """A message for the user, with row numbers and without identifiers."""


class GuardedObserver(JobObserver):
    """Calls an observer of a user: what it raises is a warning, once for each callback, and ends nothing."""

    def __init__(self, observer: JobObserver) -> None:
        """Raises ConfigError for an object without any of the callbacks."""
        if not any(hasattr(observer, name) for name in vars(JobObserver) if name.startswith("on_")):
            raise ConfigError(
                "observer: give an object of a class of yours, class Mine(dicom_quarry.JobObserver), with "
                f"methods such as on_message(self, message) (it is {observer!r})"
            )
        self._observer = observer
        self._failed: set[str] = set()

    def call(self, name: str, *values: object) -> None:
        """Call a callback of the observer, if it has that one."""
        try:
            callback = getattr(self._observer, name, None)
            if callback is not None:
                callback(*values)
        except Exception as error:  # noqa: BLE001 - the user's code must not end the job
            if name in self._failed:
                return
            self._failed.add(name)
            text = f"the observer's {name} raised {type(error).__name__}: {error}. The job goes on"
            with suppress(Warning):  # where warnings are errors
                warnings.warn(text, stacklevel=2)


for _name in [name for name in vars(JobObserver) if name.startswith("on_")]:
    setattr(GuardedObserver, _name, partialmethod(GuardedObserver.call, _name))


class ObserverGroup(JobObserver):
    """Calls several observers, one after the other."""

    def __init__(self, observers: Sequence[JobObserver]) -> None:
        self._observers = observers

    def call(self, name: str, *values: object) -> None:
        """Call a callback of each observer."""
        for one in self._observers:
            getattr(one, name)(*values)


for _name in [name for name in vars(JobObserver) if name.startswith("on_")]:
    setattr(ObserverGroup, _name, partialmethod(ObserverGroup.call, _name))


#: Seconds between two updates of the progress file.
_WRITE_INTERVAL = 1.0


class ProgressPublisher:
    """Shows a run's snapshots to the observer, and passes on the messages of its threads.

    ``on_time_left`` receives the estimated seconds that the job still needs, None where there is no estimate;
    a job that holds a port reports it there to the jobs that wait for the port. ``on_written`` is called when
    the progress file has been written.
    """

    def __init__(self, settings: Settings, status_board: StatusBoard, observer: JobObserver) -> None:
        self._status_board = status_board
        self._observer = observer
        self._notifier = Notifier(settings, status_board.report)
        self._is_stop_reported = False
        self._written_at = 0.0
        self.on_time_left: Callable[[float | None], None] = lambda _: None
        self.on_written: Callable[[], None] = lambda: None

    def publish(self, snapshot: Snapshot, folder: JobPlace) -> None:
        """Publish a snapshot of the run; called several times a second."""
        if snapshot.stopping and not self._is_stop_reported:
            self._is_stop_reported = True
            self._status_board.report(
                "stopping after the studies being transferred. Press Ctrl-C again, or run quarry stop --now, "
                "to cancel them"
            )
        self._forward_messages()
        self._observer.on_progress(snapshot)
        if not snapshot.stopping:
            self._notifier.update(self._status_board.operator_action_needed, snapshot.counts)
        if time.monotonic() - self._written_at > _WRITE_INTERVAL:
            self._written_at = time.monotonic()
            with suppress(OSError):  # a full disk costs the display of another process alone
                folder.write_progress(describe_snapshot(snapshot))
            self.on_written()
            self.on_time_left(snapshot.seconds_left)

    def finish(self, folder: JobPlace) -> None:
        """Publish the last messages, and remove the progress of the ended run."""
        self._forward_messages()
        self._notifier.reset()
        folder.remove_progress()

    def _forward_messages(self) -> None:
        for message in self._status_board.take_messages():
            self._observer.on_message(message)
