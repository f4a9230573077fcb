"""The ways by which a notice reaches people: a mail for each address, and a command."""

from __future__ import annotations

import os
import smtplib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from functools import partial
from socket import gethostname

from dicom_quarry.config.notifications import NotificationSettings
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.notification import Notification
from dicom_quarry.system import subprocess_runner

#: Mail servers to which a password may go without encryption: it does not leave this computer.
_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class NotificationChannel:
    """``send`` takes a notice there, in bounded time; it returns what went wrong, empty if nothing."""

    name: str
    send: Callable[[Notification], str]


def check_settings(settings: NotificationSettings) -> None:
    """Raises ConfigError where a notification could not be sent for want of a password or a program."""
    if settings.on_finish:
        subprocess_runner.check_program(
            "[notify] on-finish", subprocess_runner.parse_command(settings.on_finish)
        )
    if settings.user:
        if settings.security == "none" and _parse_smtp_address(settings)[0] not in _LOOPBACK_HOSTS:
            raise ConfigError(
                "[notify] security: the password would go over the network in the clear; "
                'write security = "starttls" or "ssl"'
            )
        _load_password(settings)


def build_channels(settings: NotificationSettings) -> Iterator[NotificationChannel]:
    """Those that the settings name."""
    for address in settings.mail_to:
        name = f"the mail to {address} by {settings.smtp}"
        yield NotificationChannel(name, partial(_send_mail, settings, address))
    if settings.on_finish:
        argv = subprocess_runner.parse_command(settings.on_finish)
        yield NotificationChannel(
            "the command of on-finish", lambda notice: _run_command(argv, notice, settings.limit)
        )


def _run_command(argv: tuple[str, ...], notification: Notification, limit: float) -> str:
    return subprocess_runner.run_command(argv, notification.json, timeout=limit).problem


def _send_mail(settings: NotificationSettings, to: str, notification: Notification) -> str:
    """Send a mail; a server that answers a byte now and then is given up after the limit, too."""
    problems: list[str] = []

    def send() -> None:
        try:
            _send_by_smtp(settings, to, notification)
        except (OSError, smtplib.SMTPException, ConfigError, ValueError) as error:
            problems.append(str(error) or type(error).__name__)
        else:
            problems.append("")

    thread = threading.Thread(target=send, name="mail", daemon=True)
    thread.start()
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
    # Nobody's absence is to be reported to a program (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(notification.text)
    return message


def _parse_smtp_address(settings: NotificationSettings) -> tuple[str, int]:
    host, _, port = settings.smtp.rpartition(":")
    return host, int(port)


def _load_password(settings: NotificationSettings) -> str:
    if settings.password_file is not None:
        return _read_password_file(settings)
    if not settings.password_env:
        raise ConfigError("[notify] user: name where its password is, with password-env or password-file")
    try:
        return os.environ[settings.password_env]
    except KeyError:
        raise ConfigError(
            f"[notify] password-env: the environment variable {settings.password_env} is not set"
        ) from None


def _read_password_file(settings: NotificationSettings) -> str:
    path = settings.password_file
    assert path is not None
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"[notify] password-file: others can read {path}; run  chmod 600 {path}")
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"[notify] password-file: {path} cannot be read: {error.strerror}") from error
