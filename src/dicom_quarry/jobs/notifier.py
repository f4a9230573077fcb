"""Who wants to know is told: that a job waits for a person, that it goes on, and how it ended.

Telling never holds a job up, and never harms it: what cannot be told is said on the display and in the log.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from dicom_quarry.config.settings import Settings
from dicom_quarry.extraction.retry_policy import tell_again
from dicom_quarry.jobs.notification import Notice, notice
from dicom_quarry.jobs.notification_channels import Channel, channels
from dicom_quarry.ledger.reader import Counts

Say = Callable[[str], None]


def tell(settings: Settings, told: Notice, say: Say, wait: Callable[[float], object] = time.sleep) -> None:
    """Send a notice by every channel, again where that fails; returns in bounded time, whatever comes."""
    threads = [
        threading.Thread(target=_told, args=(channel, told, say, wait), name="notify", daemon=True)
        for channel in channels(settings.notify)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _told(channel: Channel, told: Notice, say: Say, wait: Callable[[float], object]) -> None:
    tries = 0
    while problem := channel.send(told):
        tries += 1
        pause = tell_again(tries)
        if pause is None:
            say(f"{channel.name} failed, and is given up: {problem}")
            return
        if tries == 1:
            say(f"{channel.name} failed: {problem}; it is tried again")
        wait(pause)


class Notices:
    """Watches what a running job waits for; sends in a thread of its own.

    ``waiting_after`` seconds of one wait, and somebody is told, and again when it is over.
    """

    def __init__(self, settings: Settings, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._since: float | None = None
        self._told = ""
        self._queue: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def look(self, needs: str, counts: Counts) -> None:
        """The job as it stands; ``needs`` is what it waits for that a person can do something about."""
        now = time.monotonic()
        if not needs:
            self._since = None
            if self._told:
                self._put("going on", f"going on, after waiting for {self._told}", "", counts)
                self._told = ""
            return
        self._since = now if self._since is None else self._since
        if not self._told and now - self._since >= self._settings.notify.waiting_after:
            self._told = needs
            self._put("waiting", f"waiting for {needs}", needs, counts)

    def forget(self) -> None:
        """The wait that was told of ended with the run: it does not go on."""
        self._since, self._told = None, ""

    def _put(self, event: str, what: str, needs: str, counts: Counts) -> None:
        done = counts.rows - counts.rows_by_word.get("pending", 0)  # type: ignore[call-overload]
        line = f"{done:,} of {counts.rows:,} rows, {counts.studies_complete:,} of {counts.studies:,} studies"
        hint = ("It goes on by itself when that is mended.",) if needs else ()
        facts = {
            "waiting_for": needs,
            "rows": counts.rows,
            "rows_by_outcome": dict(counts.rows_by_word),
            "studies": counts.studies,
            "studies_complete": counts.studies_complete,
            "instances": counts.instances_stored,
            "bytes": counts.size,
        }
        self._queue.put(notice(event, what, self._settings.to, (f"{line} complete", *hint), facts))
        if self._thread is None:
            self._thread = threading.Thread(target=self._send, name="notices", daemon=True)
            self._thread.start()

    def _send(self) -> None:
        while True:
            tell(self._settings, self._queue.get(), self._say)
