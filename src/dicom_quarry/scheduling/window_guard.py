"""The guard of a time window: no idle connection to the archive stays open outside it."""

from __future__ import annotations

import logging
import threading

from dicom_quarry.archive.base import Archive
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.service_loop import LoopGuard

_log = logging.getLogger(__name__)

#: Seconds between two looks at the clock.
_POLL_INTERVAL = 1.0


class WindowGuard(threading.Thread):
    """Releases the connections that are idle when the window closes, and those that become idle later.

    Threads that wait for another study, a rate limit or the window may keep an association. A retrieval that
    runs when the window closes keeps its own up to its end.
    """

    def __init__(self, archive: Archive, throttle: ArchiveThrottle) -> None:
        super().__init__(name=f"window-{archive.name}", daemon=True)
        self._archive = archive
        self._throttle = throttle
        self._ended = threading.Event()

    def run(self) -> None:
        """Look at the clock until ``end`` is called."""
        guard = LoopGuard(self.name, _log, self._ended.wait)
        while not self._ended.wait(_POLL_INTERVAL):
            try:
                if not self._throttle.is_open:
                    self._archive.release_idle()
                guard.on_success()
            except Exception as error:  # noqa: BLE001 - an error costs one turn, not the guard
                guard.on_error(error)

    def end(self) -> None:
        """End the thread; wait for it, but not for an archive that does not answer a release."""
        self._ended.set()
        self.join(_POLL_INTERVAL)
