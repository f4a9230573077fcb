"""Notifications: a job needs operator action, resumes, or has ended. Sent by mail and to a command.

The notifier of a running job sends in its own thread. A failed notification is logged and never affects the
job. No notification contains an identifier of a patient.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from functools import partial
from pathlib import Path
from socket import gethostname

from dicom_quarry.config.notifications import NotificationSettings
from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import ConfigError, StartError
from dicom_quarry.ledger.reader import Counts
from dicom_quarry.plurals import format_part
from dicom_quarry.system import subprocess_runner
from dicom_quarry.system.backoff import notification_retry_delay
from dicom_quarry.system.secret_file import read_secret_file
from dicom_quarry.system.service_loop import LoopGuard, start_thread

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Notification:
    """A message: ``event`` is ended, waiting or resumed; ``lines`` are for people, ``data`` for programs."""

    event: str
    subject: str
    lines: tuple[str, ...]
    data: Mapping[str, object]

    @property
    def text(self) -> str:
        """The body of a mail."""
        return "\n".join(self.lines) + "\n"

    @property
    def json(self) -> str:
        """The standard input of a command."""
        return json.dumps(dict(self.data), indent=2) + "\n"


def build_notification(
    event: str, summary: str, out: Path, lines: tuple[str, ...], data: Mapping[str, object]
) -> Notification:
    """Return a notification of the job in ``out``, with the folder, the host and the time added."""
    folder, host = str(out.resolve()), socket.gethostname()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    head = (f"Quarry on {host}: {summary}", f"folder: {folder}", f"time: {now}", "")
    context = {"event": event, "summary": summary, "folder": folder, "host": host, "time": now}
    return Notification(
        event, f"quarry: {summary} ({out.name} on {host})", (*head, *lines), {**context, **data}
    )


#: Mail servers to which a password may go without encryption: it does not leave this computer.
_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class NotificationChannel:
    """A way to send notifications: ``send`` returns the problem in bounded time, empty after a success."""

    name: str
    send: Callable[[Notification], str]


def check_settings(settings: NotificationSettings) -> None:
    """Raise ConfigError if a password or a program that notifications need is missing."""
    if settings.on_finish:
        subprocess_runner.check_program(
            "[notify] on-finish", subprocess_runner.parse_command(settings.on_finish)
        )
    if settings.user:
        if settings.security == "none" and _parse_smtp_address(settings)[0] not in _LOOPBACK_HOSTS:
            raise ConfigError(
                "[notify] security: the password would be sent unencrypted: "
                'write security = "starttls" or "ssl"'
            )
        _load_password(settings)


def build_channels(settings: NotificationSettings) -> Iterator[NotificationChannel]:
    """Return the channels of the settings: one for each mail address, and one for the command."""
    for address in settings.mail_to:
        name = f"the mail to {address} by {settings.smtp}"
        yield NotificationChannel(name, partial(_send_mail, settings, address))
    if settings.on_finish:
        argv = subprocess_runner.parse_command(settings.on_finish)
        yield NotificationChannel(
            "the command of on-finish", lambda message: _run_command(argv, message, settings.limit)
        )


def _run_command(argv: tuple[str, ...], notification: Notification, limit: float) -> str:
    return subprocess_runner.run_command(argv, notification.json, timeout=limit).problem


def _send_mail(settings: NotificationSettings, to: str, notification: Notification) -> str:
    """Send a mail; stop waiting after the limit, also if the server keeps sending single bytes."""
    problems: list[str] = []

    def send() -> None:
        try:
            _send_by_smtp(settings, to, notification)
        except (OSError, smtplib.SMTPException, ConfigError, ValueError) as error:
            problems.append(str(error) or type(error).__name__)
        else:
            problems.append("")

    thread = threading.Thread(target=send, name="mail", daemon=True)
    try:
        start_thread(thread)
    except StartError as error:
        return str(error)
    thread.join(settings.limit)
    return problems[0] if problems else f"it took longer than {settings.limit:g} s"


def _send_by_smtp(settings: NotificationSettings, to: str, notification: Notification) -> None:
    host, port = _parse_smtp_address(settings)
    context = ssl.create_default_context() if settings.security != "none" else None
    if settings.security == "ssl":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=settings.limit, context=context)
    else:
        server = smtplib.SMTP(host, port, timeout=settings.limit)
    with server:
        if settings.security == "starttls":
            server.starttls(context=context)
        if settings.user:
            server.login(settings.user, _load_password(settings))
        server.send_message(_build_mail(settings, to, notification))


def _build_mail(settings: NotificationSettings, to: str, notification: Notification) -> EmailMessage:
    message = EmailMessage()
    message["From"] = settings.mail_from or f"quarry@{gethostname()}"
    message["To"] = to
    message["Subject"] = notification.subject
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=gethostname())
    # Keeps absence replies away (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(notification.text)
    return message


def _parse_smtp_address(settings: NotificationSettings) -> tuple[str, int]:
    host, _, port = settings.smtp.rpartition(":")
    return host, int(port)


def _load_password(settings: NotificationSettings) -> str:
    if settings.password_file is not None:
        return read_secret_file(settings.password_file, "[notify] password-file")
    if not settings.password_env:
        raise ConfigError("[notify] user: set its password with password-env or password-file")
    try:
        return os.environ[settings.password_env]
    except KeyError:
        raise ConfigError(
            f"[notify] password-env: the environment variable {settings.password_env} is not set"
        ) from None


Report = Callable[[str], None]


def send_notification(
    settings: Settings,
    notification: Notification,
    report: Report,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Send a notification through every channel, with retries, in bounded time; report failures."""
    threads = [
        threading.Thread(
            target=_send_with_retries, args=(channel, notification, report, wait), name="notify", daemon=True
        )
        for channel in build_channels(settings.notify)
    ]
    started = []
    for thread in threads:
        try:
            start_thread(thread)
        except StartError as error:
            report(f"a notification was not sent: {error}")
        else:
            started.append(thread)
    for thread in started:
        thread.join()


def _send_with_retries(
    channel: NotificationChannel, notification: Notification, report: Report, wait: Callable[[float], object]
) -> None:
    attempts = 0
    while problem := channel.send(notification):
        attempts += 1
        delay = notification_retry_delay(attempts)
        if delay is None:
            report(f"{channel.name} failed for the last time: {problem}")
            return
        if attempts == 1:
            report(f"{channel.name} failed: {problem}. Trying again")
        wait(delay)


class Notifier:
    """Notifies when a job has waited ``waiting_after`` seconds for its operator, and when it resumes."""

    def __init__(self, settings: Settings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._waiting_since: float | None = None
        self._notified_reason = ""
        self._queue: queue.SimpleQueue[Notification] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def update(self, operator_action_needed: str, counts: Counts) -> None:
        """Update the state; ``operator_action_needed``: why the job waits for a person, or empty."""
        now = time.monotonic()
        if not operator_action_needed:
            self._waiting_since = None
            if self._notified_reason:
                self._enqueue("resumed", f"resumed, after waiting for {self._notified_reason}", "", counts)
                self._notified_reason = ""
            return
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        if not self._notified_reason and now - self._waiting_since >= self._settings.notify.waiting_after:
            self._notified_reason = operator_action_needed
            self._enqueue("waiting", f"waiting for {operator_action_needed}", operator_action_needed, counts)

    def reset(self) -> None:
        """Forget a wait that ended with the run: no resume is sent for it."""
        self._waiting_since, self._notified_reason = None, ""

    def _enqueue(self, event: str, summary: str, operator_action_needed: str, counts: Counts) -> None:
        done = counts.rows - counts.rows_by_status.get("pending", 0)  # type: ignore[call-overload]
        counts_line = (
            f"{format_part(done, counts.rows, 'row')}, "
            f"{format_part(counts.studies_complete, counts.studies, 'study')}"
        )
        hint = ("The job continues by itself once this is solved.",) if operator_action_needed else ()
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
            self._start_sending()

    def _start_sending(self) -> None:
        """Start the thread that sends; if there are none left, the next notification tries again."""
        thread = threading.Thread(target=self._send_queued, name="notices", daemon=True)
        try:
            start_thread(thread, timeout=0)
        except StartError as error:
            self._report(f"a notification waits: {error}")
        else:
            self._thread = thread

    def _send_queued(self) -> None:
        guard = LoopGuard("notifications", _log)
        while True:
            try:
                send_notification(self._settings, self._queue.get(), self._report)
            except Exception as error:  # noqa: BLE001 - one notification may be lost, not the next
                guard.on_error(error)
            else:
                guard.on_success()
