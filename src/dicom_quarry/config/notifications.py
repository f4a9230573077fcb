"""Whom to tell of a job, and how. Values of settings, no secrets."""

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
        raise ValueError("write an e-mail address such as somebody@hospital.example")
    return text


def _check_host_and_port(text: str) -> str:
    if not re.fullmatch(r"\S+:\d{1,5}", text, re.ASCII):
        raise ValueError("write the mail server as HOST:PORT, as in mail.hospital.example:587")
    return text


CommandLine = Annotated[str, AfterValidator(_check_command)]
EmailAddress = Annotated[str, AfterValidator(_check_email_address)]


class NotificationSettings(FrozenModel):
    """Who is told of a job's end, and that it waits for a person; ``[notify]`` in quarry.toml.

    ``mail_to`` are told by e-mail over ``smtp``, ``on_finish`` is a command. ``waiting_after``: how long the
    job has to wait before anybody is told; ``limit``: how long the mail server, and the command, may take.
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
