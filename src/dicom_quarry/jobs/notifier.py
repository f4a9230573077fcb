"""Who wants to know is told: that a job waits for a person, that it goes on, and how it ended.

Telling never holds a job up, and never harms it: what cannot be told is said on the display and in the log.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from dicom_quarry.config.settings import Settings
from dicom_quarry.extraction.retry_policy import notification_retry_delay
from dicom_quarry.jobs.notification import Notification, build_notification
from dicom_quarry.jobs.notification_channels import NotificationChannel, build_channels
from dicom_quarry.ledger.reader import Counts

Report = Callable[[str], None]


def send_notification(
    settings: Settings,
    notification: Notification,
    report: Report,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Send a notice by every channel, again where that fails; returns in bounded time, whatever comes."""
    threads = [
        threading.Thread(
            target=_send_with_retries, args=(channel, notification, report, wait), name="notify", daemon=True
        )
        for channel in build_channels(settings.notify)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _send_with_retries(
    channel: NotificationChannel, notification: Notification, report: Report, wait: Callable[[float], object]
) -> None:
    attempts = 0
    while problem := channel.send(notification):
        attempts += 1
        delay = notification_retry_delay(attempts)
        if delay is None:
            report(f"{channel.name} failed, and is given up: {problem}")
            return
        if attempts == 1:
            report(f"{channel.name} failed: {problem}; it is tried again")
        wait(delay)


class Notifier:
    """Watches what a running job waits for; sends in a thread of its own.

    ``waiting_after`` seconds of one wait, and somebody is told, and again when it is over.
    """

    def __init__(self, settings: Settings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._waiting_since: float | None = None
        self._notified_reason = ""
        self._queue: queue.SimpleQueue[Notification] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def update(self, operator_action_needed: str, counts: Counts) -> None:
        """The job as it stands; ``needs`` is what it waits for that a person can do something about."""
        now = time.monotonic()
        if not operator_action_needed:
            self._waiting_since = None
            if self._notified_reason:
                self._enqueue("resumed", f"going on, after waiting for {self._notified_reason}", "", counts)
                self._notified_reason = ""
            return
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        if not self._notified_reason and now - self._waiting_since >= self._settings.notify.waiting_after:
            self._notified_reason = operator_action_needed
            self._enqueue("waiting", f"waiting for {operator_action_needed}", operator_action_needed, counts)

    def reset(self) -> None:
        """The wait that was told of ended with the run: it does not go on."""
        self._waiting_since, self._notified_reason = None, ""

    def _enqueue(self, event: str, summary: str, operator_action_needed: str, counts: Counts) -> None:
        done = counts.rows - counts.rows_by_status.get("pending", 0)  # type: ignore[call-overload]
        counts_line = (
            f"{done:,} of {counts.rows:,} rows, {counts.studies_complete:,} of {counts.studies:,} studies"
        )
        hint = ("It goes on by itself when that is mended.",) if operator_action_needed else ()
        data = {
            "waiting_for": operator_action_needed,
            "rows": counts.rows,
            "rows_by_outcome": dict(counts.rows_by_status),
            "studies": counts.studies,
            "studies_complete": counts.studies_complete,
            "instances": counts.instances_stored,
            "bytes": counts.size,
        }
        self._queue.put(
            build_notification(event, summary, self._settings.to, (f"{counts_line} complete", *hint), data)
        )
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_queued, name="notices", daemon=True)
            self._thread.start()

    def _send_queued(self) -> None:
        while True:
            send_notification(self._settings, self._queue.get(), self._report)
