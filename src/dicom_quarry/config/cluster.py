"""Settings of the database that has the jobs of many hosts; they name the place of the password alone."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, model_validator

from dicom_quarry.config.credentials import AbsolutePath, FrozenModel
from dicom_quarry.system.durations import Duration

#: Parameters of a connection that are secrets.
_SECRETS = {"password", "sslpassword"}


class ClusterSettings(FrozenModel):
    """The database of jobs, ``[cluster]`` in quarry.toml.

    ``ledger`` is a URL of PostgreSQL without a password. ``password_file`` has the password; without it
    PostgreSQL's own places are used, the variable PGPASSWORD and ``~/.pgpass``. A worker without a sign of
    life for ``vanished_after`` seconds has its studies given to others.
    """

    ledger: str = ""
    password_file: AbsolutePath | None = None
    vanished_after: Annotated[Duration, Field(ge=1)] = 30.0

    @model_validator(mode="after")
    def _check_ledger(self) -> Self:
        # A check of the field would show its value, with the password, in the message.
        if problem := find_url_problem(self.ledger) if self.ledger else "":
            raise ValueError(f"ledger: {problem}")
        return self


def find_url_problem(url: str) -> str:
    """Return why a URL cannot be the database of jobs, without its text; empty if it can be."""
    try:
        parts = urlsplit(url)
        has_secret = bool(parts.password) or bool(_SECRETS & {*parse_qs(parts.query, keep_blank_values=True)})
    except ValueError:
        return 'this is not a URL: write it as "postgresql://USER@HOST/DATABASE"'
    if has_secret or "password=" in url.replace(" ", "").lower():
        return (
            "there is a password in the URL, where other users of this computer can read it. Take it out, "
            "and write it to ~/.pgpass (HOST:PORT:DATABASE:USER:PASSWORD, then chmod 600 ~/.pgpass), to the "
            "variable PGPASSWORD, or to a file of yours that password-file names"
        )
    if parts.scheme not in ("postgresql", "postgres"):
        return 'write it as "postgresql://USER@HOST/DATABASE"'
    return ""
