"""The database that has the jobs of many hosts: the schema ``quarry`` with a row for each job.

The record of job N is in the schema ``job_N``. psycopg is imported when a connection is made.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dicom_quarry.config.cluster import ClusterSettings
from dicom_quarry.errors import InputError, LedgerError
from dicom_quarry.jobs.cluster.actions import record_action
from dicom_quarry.jobs.cluster.list_schema import create_list, upgrade_list
from dicom_quarry.jobs.cluster.versions import (
    format_revision,
    own_revision,
    read_versions,
    write_revision,
)
from dicom_quarry.ledger.location import PostgresLocation
from dicom_quarry.ledger.postgres_errors import describe_failure
from dicom_quarry.system.processes import user_name

#: The schema with the list of jobs.
_SCHEMA = "quarry"

#: Held while the tables are made, so that two that make them do not collide.
_INIT_LOCK = 0x51554152

#: The server notices within half a minute that a host is gone, and releases its locks.
_SERVER_KEEPALIVE = (
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4"
)


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in the list: ``folder`` on ``host`` has its images, ``owner`` is the user who made it there.

    ``hand_overs`` counts how often it was given to the workers with other settings than before.
    """

    number: int
    name: str
    folder: Path
    host: str
    owner: str
    created: datetime
    hand_overs: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """The database of jobs; ``url`` has no password."""

    url: str
    password_file: Path | None = None

    @classmethod
    def of(cls, settings: ClusterSettings) -> Cluster:
        """Return the database of the settings."""
        return cls(settings.ledger, settings.password_file)

    @property
    def database(self) -> tuple[str, str]:
        """The hosts with their ports, and the database; role and options of the URL do not count."""
        parts = urlsplit(self.url)
        return parts.netloc.rpartition("@")[2].lower(), parts.path.strip("/")

    @property
    def settings(self) -> ClusterSettings:
        """The settings that name the database."""
        return ClusterSettings(ledger=self.url, password_file=self.password_file)

    def location(self, number: int) -> PostgresLocation:
        """Return the location of a job's record."""
        return PostgresLocation(self.url, f"job_{number}", self.password_file)

    def conninfo(self) -> str:
        """Return the connection string of libpq, with the password where a file has it."""
        from dicom_quarry.ledger.postgres import connection_string

        return connection_string(PostgresLocation(self.url, _SCHEMA, self.password_file), {})

    def open_connection(self) -> Any:
        """Open a connection of psycopg that commits each statement; raise LedgerError."""
        from dicom_quarry.ledger.postgres import PostgresBackend

        backend = PostgresBackend(PostgresLocation(self.url, _SCHEMA, self.password_file))
        import psycopg

        with self.described():
            try:
                connection: Any = backend.connect()
            except psycopg.ProgrammingError as error:
                raise InputError(f"{self.url} names no database: {_first_line(error)}") from error
            connection.execute(_SERVER_KEEPALIVE)
        return connection

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Lend a connection; raise InputError where the list of jobs is missing, and LedgerError."""
        with self.open_connection() as connection, self.described():
            yield connection

    def init(self) -> bool:
        """Make the list of jobs; return False if it was there. Raises LedgerError and InputError."""
        with self.connected() as connection, connection.transaction():
            connection.execute(f"SELECT pg_advisory_xact_lock({_INIT_LOCK})")
            if connection.execute("SELECT to_regclass('quarry.version')").fetchone() != (None,):
                self._check_version(connection)
                return False
            create_list(connection)
            write_revision(connection, own_revision())
        return True

    def upgrade_list(self, connection: Any, then: Callable[[], object]) -> None:
        """Upgrade the list of jobs in one transaction with what ``then`` does on the connection."""
        with connection.transaction():
            connection.execute(f"SELECT pg_advisory_xact_lock({_INIT_LOCK})")
            upgrade_list(connection, read_versions(connection).list)
            then()

    def find(self, name: str) -> JobRow | None:
        """Return the job with a name, None if there is none."""
        rows = self._select("WHERE name = %s", name)
        return rows[0] if rows else None

    def get(self, number: int) -> JobRow | None:
        """Return the job with a number, None if there is none."""
        rows = self._select("WHERE number = %s", number)
        return rows[0] if rows else None

    def list_all(self) -> list[JobRow]:
        """Return every job of a list of this version, whatever the version of the records."""
        with self.connected() as connection:
            return self._read_rows(connection, "ORDER BY number")

    def list_begun(self) -> list[JobRow]:
        """Return the jobs with tables that this user may read."""
        return self._select(
            "WHERE has_schema_privilege(to_regnamespace('job_' || number), 'USAGE')"
            " AND has_table_privilege(to_regclass('job_' || number || '.job'), 'SELECT') ORDER BY number"
        )

    def add(self, name: str, folder: Path) -> JobRow:
        """Add a job of this user on this host, or return that of the name, if there is one."""
        with self.connected() as connection, connection.transaction():
            self._check_version(connection)
            row = connection.execute(
                "INSERT INTO quarry.jobs (name, folder, host, owner) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (name) DO NOTHING RETURNING number",
                (name, str(folder), socket.gethostname(), user_name()),
            ).fetchone()
            # A schema of that number is of an earlier list of jobs, or a copy: its rows are not this job's.
            while row and connection.execute(
                "SELECT to_regnamespace(%s)", (self.location(row[0]).schema,)
            ).fetchone() != (None,):
                row = connection.execute(
                    "UPDATE quarry.jobs SET number = DEFAULT WHERE number = %s RETURNING number", row
                ).fetchone()
        found = self.find(name)
        assert found is not None
        return found

    def move(self, number: int, folder: Path) -> None:
        """Record that the folder of a job is at another path, or on this host."""
        with self.connected() as connection:
            connection.execute(
                "UPDATE quarry.jobs SET folder = %s, host = %s WHERE number = %s",
                (str(folder), socket.gethostname(), number),
            )

    def set_weight(self, job: JobRow, weight: float) -> None:
        """Record a job's share of the workers, relative to the other jobs."""
        with self.connected() as connection, connection.transaction():
            require_member(connection, job)
            record_action(connection, job.name, "weight", f"{weight:g}")
            connection.execute("UPDATE quarry.jobs SET weight = %s WHERE number = %s", (weight, job.number))

    def _select(self, condition: str, *values: object) -> list[JobRow]:
        with self.connected() as connection:
            self._check_version(connection)
            return self._read_rows(connection, condition, *values)

    def _read_rows(self, connection: Any, condition: str, *values: object) -> list[JobRow]:
        rows = connection.execute(
            f"SELECT number, name, folder, host, owner, created, hand_overs FROM quarry.jobs {condition}",
            values,
        ).fetchall()
        return [JobRow(number, name, Path(folder), *rest) for number, name, folder, *rest in rows]

    def _check_version(self, connection: Any) -> None:
        found = read_versions(connection)
        if found.is_older:
            raise LedgerError(_describe_older(self.url))
        if found.is_newer:
            raise LedgerError(
                f"{self.url} is of a newer version of Quarry ({format_revision(found.revision)}, this one "
                f"knows {format_revision(own_revision())}): use that version"
            )

    @contextmanager
    def described(self) -> Iterator[None]:
        """Raise the errors of psycopg as sentences for the user."""
        import psycopg

        try:
            yield
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            raise InputError(
                f"{self.url} has no list of jobs yet: make it once with  quarry cluster init {self.url}"
            ) from error
        except psycopg.errors.UndefinedColumn as error:
            raise LedgerError(_describe_older(self.url)) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise LedgerError(
                f"{self.url} does not give you the rights for this ({_first_line(error)}): have its "
                "administrator grant them, see docs/many-hosts.md"
            ) from error
        except psycopg.OperationalError as error:
            raise LedgerError(
                f"the database of the jobs cannot be used ({self.url}): {describe_failure(error)}"
            ) from error


def require_member(connection: Any, job: JobRow) -> None:
    """Raise InputError unless this role may change a job: the server would change nothing, without a word."""
    found = connection.execute(
        "SELECT role, EXISTS (SELECT FROM pg_roles WHERE rolname = role AND pg_has_role(oid, 'MEMBER'))"
        " FROM quarry.jobs WHERE number = %s",
        (job.number,),
    ).fetchone()
    if found and not found[1]:
        raise InputError(f"job:{job.name} is a job of the role {found[0]}: its members alone can change it")


def _describe_older(url: str) -> str:
    return f"{url} is of an older version of Quarry: have its owner run  quarry cluster upgrade {url}"


def _first_line(error: Exception) -> str:
    """Return the server's own words, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
