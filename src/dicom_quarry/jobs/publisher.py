"""Where people see how a run gets on: on the display, from another terminal, and by notices."""

from __future__ import annotations

import time

from dicom_quarry.config.settings import Settings
from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.jobs.notifier import Notices
from dicom_quarry.jobs.observer import Listener
from dicom_quarry.jobs.progress import Board, Snapshot, write_progress
from dicom_quarry.scheduling.port_queue import Berth

#: Seconds between two looks that others may have.
_EVERY = 1.0


class Watching:
    """Shows a run's snapshots, and passes on what its threads say. ``berth`` is set while it has a port."""

    def __init__(self, settings: Settings, board: Board, listener: Listener) -> None:
        self._board = board
        self._listener = listener
        self._notices = Notices(settings, board.say)
        self._told_stop = False
        self._written = 0.0
        self.berth: Berth | None = None

    def show(self, snapshot: Snapshot, folder: JobFolder) -> None:
        """The run as it stands, several times a second."""
        if snapshot.stopping and not self._told_stop:
            self._told_stop = True
            self._board.say("stopping: what is in flight is finished first; asked once more, it is cancelled")
        self._pass_on()
        self._listener.tick(snapshot)
        if not snapshot.stopping:
            self._notices.look(self._board.needs, snapshot.counts)
        if time.monotonic() - self._written > _EVERY:
            self._written = time.monotonic()
            write_progress(folder.progress, snapshot)
            if self.berth is not None:
                self.berth.tell(snapshot.seconds_left)

    def over(self, folder: JobFolder) -> None:
        """Nothing more is to be seen: what was said last is often what ended the run."""
        self._pass_on()
        self._notices.forget()
        folder.progress.unlink(missing_ok=True)

    def _pass_on(self) -> None:
        for message in self._board.messages():
            self._listener.said(message)
