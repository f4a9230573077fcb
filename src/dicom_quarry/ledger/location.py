"""The place of a ledger: a file, or a schema of a PostgreSQL database."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.errors import ConfigError

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class PostgresLocation:
    """A schema of a PostgreSQL database; ``url`` is a connection URI or string as libpq takes it.

    ``password_file`` has the password; without it libpq looks at the variable PGPASSWORD and ``~/.pgpass``.

    Every job has a schema of its own, so that no statement names the job: the connection's ``search_path``
    chooses it. Raises ConfigError for a name that is not lower-case letters, digits and underscores.
    """

    url: str
    schema: str
    password_file: Path | None = None

    def __post_init__(self) -> None:
        if not _SCHEMA.fullmatch(self.schema) or self.schema.startswith("pg_"):
            raise ConfigError(
                f"'{self.schema}' cannot be the name of a schema: use lower-case letters, digits and _"
            )

    def __str__(self) -> str:
        return f"schema {self.schema}"  # the URL may have a password


#: A ledger is in this file, or in this schema.
LedgerLocation = Path | PostgresLocation
