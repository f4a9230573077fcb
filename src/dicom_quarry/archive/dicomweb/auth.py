"""Credentials for a DICOMweb server: a user with a password, a bearer token, headers. Never logged."""

from __future__ import annotations

import base64
import os
import re
import threading
from pathlib import Path

from dicom_quarry.config.credentials import HttpSettings
from dicom_quarry.errors import ConfigError, OperatorActionRequired
from dicom_quarry.system.subprocess_runner import parse_command, run_command

#: A header's name and value (RFC 9110 5.1, 5.5); the end of a line would begin another header.
_HEADER_NAME = re.compile(r"[!#-'*+\-.0-9A-Z^_`a-z|~]+")
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")

#: Seconds that token-command may take.
_COMMAND_TIMEOUT = 60.0


class Credentials:
    """The request headers with the credentials, for any thread. A rejected token is read again."""

    def __init__(self, access: HttpSettings) -> None:
        """Raises ConfigError for a secret that is missing or cannot be read."""
        self._access = access
        self._lock = threading.Lock()
        self._static_headers = dict(access.headers)
        self._static_headers |= {
            name: _read_variable(variable) for name, variable in access.headers_env.items()
        }
        for name, value in self._static_headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ConfigError(f"{name!r} cannot be the name of an HTTP header")
            _check_header_value(value, f"the header {name}")
        self._authorization = self._load_authorization()

    def headers(self) -> dict[str, str]:
        """Return the headers for a request."""
        authorization = {"Authorization": self._authorization} if self._authorization else {}
        return {**self._static_headers, **authorization}

    def renew(self, rejected: str) -> bool:
        """Read the token or password again; return whether it differs from the ``rejected`` Authorization.

        Of several threads only the first reads it. Raises OperatorActionRequired where it cannot be read.
        """
        with self._lock:
            if self._authorization == rejected:
                try:
                    self._authorization = self._load_authorization()
                except ConfigError as error:
                    raise OperatorActionRequired(
                        f"the archive rejected the credentials, and no new ones can be read: {error}"
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
            f"the environment variable {variable} is not set. It must contain the secret for the archive"
        )
    return value


def _read_secret_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}, which must contain the secret for the archive, cannot be read: {error}"
        ) from error


def _run_command(command: str) -> str:
    """Return the output of a command. Its standard error is not shown: it may contain a part of a secret."""
    try:
        words = parse_command(command)
    except ValueError as error:
        raise ConfigError(f"token-command: {error}") from error
    done = run_command(words, "", timeout=_COMMAND_TIMEOUT, with_errors=False)
    if done.problem:
        raise ConfigError(f"token-command failed: {done.problem}")
    return done.output


def _check_header_value(value: str, source: str) -> str:
    if not _HEADER_VALUE.fullmatch(value):
        raise ConfigError(
            f"{source} cannot be sent in an HTTP header. It must be one line of plain ASCII characters"
        )
    return value
