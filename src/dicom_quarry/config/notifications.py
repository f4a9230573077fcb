"""Settings for notifications; they name the place of the password, not the password."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from dicom_quarry.config.credentials import FrozenModel
from dicom_quarry.system import subprocess_runner
from dicom_quarry.system.durations import Duration


def _check_command(text: str) -> str:
    subprocess_runner.parse_command(text)
    return text


def _check_email_address(text: str) -> str:
    if not re.fullmatch(r"[!-+\--~]+@[!-+\--~]+", text):
        raise ValueError("write an e-mail address such as name@hospital.example")
    return text


def _check_host_and_port(text: str) -> str:
    if not re.fullmatch(r"\S+:\d{1,5}", text, re.ASCII):
        raise ValueError("write the mail server as HOST:PORT, as in mail.hospital.example:587")
    return text


CommandLine = Annotated[str, AfterValidator(_check_command)]
EmailAddress = Annotated[str, AfterValidator(_check_email_address)]


class NotificationSettings(FrozenModel):
    """Notifications that a job has ended or needs operator action; ``[notify]`` in quarry.toml.

    ``mail_to`` are e-mail addresses, ``smtp`` is the mail server, ``on_finish`` a command. ``waiting_after``
    is the length of a wait before a notification, ``limit`` the time that the mail server or the command may
    take; both are in seconds.
    """

    mail_to: tuple[EmailAddress, ...] = ()
    mail_from: EmailAddress | None = None
    smtp: Annotated[str, AfterValidator(_check_host_and_port)] = "localhost:25"
    security: Literal["none", "starttls", "ssl"] = "none"
    user: str = ""
    password_env: str = ""
    password_file: Annotated[Path, AfterValidator(Path.absolute)] | None = None
    on_finish: CommandLine | None = None
    waiting_after: Duration = 600.0
    limit: Annotated[Duration, Field(gt=0)] = 60.0
