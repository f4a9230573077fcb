"""Where people see how a run gets on: on the display, from another terminal, and by notices."""

from __future__ import annotations

import time

from dicom_quarry.config.settings import Settings
from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.jobs.notifier import Notifier
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.jobs.progress import Snapshot, StatusBoard, write_progress
from dicom_quarry.scheduling.port_queue import PortQueue

#: Seconds between two looks that others may have.
_WRITE_INTERVAL = 1.0


class ProgressPublisher:
    """Shows a run's snapshots, and passes on what its threads say. ``berth`` is set while it has a port."""

    def __init__(self, settings: Settings, status_board: StatusBoard, observer: JobObserver) -> None:
        self._status_board = status_board
        self._observer = observer
        self._notifier = Notifier(settings, status_board.report)
        self._is_stop_reported = False
        self._written_at = 0.0
        self.port_queue: PortQueue | None = None

    def publish(self, snapshot: Snapshot, folder: JobFolder) -> None:
        """The run as it stands, several times a second."""
        if snapshot.stopping and not self._is_stop_reported:
            self._is_stop_reported = True
            self._status_board.report(
                "stopping: what is in flight is finished first; asked once more, it is cancelled"
            )
        self._forward_messages()
        self._observer.on_progress(snapshot)
        if not snapshot.stopping:
            self._notifier.update(self._status_board.operator_action_needed, snapshot.counts)
        if time.monotonic() - self._written_at > _WRITE_INTERVAL:
            self._written_at = time.monotonic()
            write_progress(folder.progress, snapshot)
            if self.port_queue is not None:
                self.port_queue.update_time_left(snapshot.seconds_left)

    def finish(self, folder: JobFolder) -> None:
        """Nothing more is to be seen: what was said last is often what ended the run."""
        self._forward_messages()
        self._notifier.reset()
        folder.progress.unlink(missing_ok=True)

    def _forward_messages(self) -> None:
        for message in self._status_board.take_messages():
            self._observer.on_message(message)
