"""Who we are to a DICOMweb server: a user with a password, a bearer token, headers. Never logged."""

from __future__ import annotations

import base64
import os
import re
import shlex
import subprocess
import threading
from pathlib import Path

from dicom_quarry.config.credentials import HttpSettings
from dicom_quarry.errors import ConfigError, OperatorActionRequired

#: What may stand in a header's value (RFC 9110 5.5); a line's end would begin another header.
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")

#: A token comes from a file or a service on this computer's network, in seconds.
_COMMAND_TIMEOUT = 60.0


class Credentials:
    """The headers that show who we are; for any thread. A token is read anew when it was refused."""

    def __init__(self, access: HttpSettings) -> None:
        """Raises ConfigError for what is missing in the environment, or cannot be read."""
        self._access = access
        self._lock = threading.Lock()
        self._static_headers = dict(access.headers)
        self._static_headers |= {
            name: _read_variable(variable) for name, variable in access.headers_env.items()
        }
        for name, value in self._static_headers.items():
            _check_header_value(value, f"the header {name}")
        self._authorization = self._load_authorization()

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        shown = self._authorization
        return {**self._static_headers, "Authorization": shown} if shown else dict(self._static_headers)

    def renew(self, rejected: str) -> bool:
        """Read token or password anew; True if it is another than the ``refused`` Authorization.

        Whoever comes second finds what the first has read. Raises Unusable where nothing can be read.
        """
        with self._lock:
            if self._authorization == rejected:
                try:
                    self._authorization = self._load_authorization()
                except ConfigError as error:
                    raise OperatorActionRequired(
                        f"the archive wants new credentials, and there are none: {error}"
                    ) from error
            return self._authorization != rejected

    def _load_authorization(self) -> str:
        access = self._access
        if access.user:
            password = (
                _read_secret_file(access.password_file)
                if access.password_file
                else _read_variable(access.password_env)
            )
            return "Basic " + base64.b64encode(f"{access.user}:{password}".encode()).decode()
        if access.token_command:
            return "Bearer " + _check_header_value(
                _run_command(access.token_command), "the output of token-command"
            )
        if access.token_file:
            return "Bearer " + _check_header_value(
                _read_secret_file(access.token_file), f"{access.token_file}"
            )
        if access.token_env:
            return "Bearer " + _check_header_value(_read_variable(access.token_env), access.token_env)
        return ""


def _read_variable(variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise ConfigError(
            f"the environment variable {variable} is not set: it is to hold a secret for the archive"
        )
    return value


def _read_secret_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}, which is to hold a secret for the archive, cannot be read: {error}"
        ) from error


def _run_command(command: str) -> str:
    """What a command prints; what it says on standard error is not shown: it may be part of a secret."""
    try:
        done = subprocess.run(
            shlex.split(command), capture_output=True, text=True, timeout=_COMMAND_TIMEOUT, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"token-command could not be run: {type(error).__name__}") from error
    if done.returncode:
        raise ConfigError(f"token-command failed with exit code {done.returncode}")
    return done.stdout.strip()


def _check_header_value(value: str, what: str) -> str:
    if not _HEADER_VALUE.fullmatch(value):
        raise ConfigError(
            f"{what} is nothing that can stand in a header of HTTP: one line of plain characters"
        )
    return value
