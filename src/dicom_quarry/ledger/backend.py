"""The two databases below a ledger: the operations in which SQLite and PostgreSQL differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.location import LedgerLocation


class DriverCursor(Protocol):
    """A cursor of the driver, ``sqlite3`` or psycopg."""

    @property
    def rowcount(self) -> int:
        """The number of rows that the last statement changed."""

    def executemany(self, sql: str, rows: Any, /) -> object:
        """Run a statement for each of the rows."""

    def fetchone(self) -> Any:
        """Return the next row, None after the last."""

    def __iter__(self) -> Iterator[Any]: ...

    def close(self) -> None:
        """Give up the rows that were not fetched."""


class DriverConnection(Protocol):
    """A connection of the driver, ``sqlite3`` or psycopg."""

    def execute(self, sql: str, values: Mapping[str, object] | Sequence[object] = ..., /) -> Any:
        """Run a statement; return its cursor."""

    def cursor(self) -> Any:
        """Make a cursor."""

    def commit(self) -> None:
        """Commit the transaction."""

    def rollback(self) -> None:
        """Undo the transaction."""

    def close(self) -> None:
        """Close the connection."""


class Backend(Protocol):
    """A database that has a ledger."""

    #: The driver's errors.
    errors: tuple[type[Exception], ...]

    def prepare(self) -> None:
        """Make the place of the ledger if it is new, and check its owner; raises LedgerError or NotOwned."""

    def require_job(self) -> None:
        """Raise LedgerError if there is no ledger."""

    def prepare_upgrade(self) -> None:
        """Raise LedgerError if this user may not upgrade the ledger."""

    def connect(self, *, read_only: bool = False) -> DriverConnection:
        """Open a connection of the driver; that of a reader begins no transaction by itself."""

    def open_engine(self, *, read_only: bool = False) -> Engine:
        """Make an engine whose transactions hold the write lock or, if ``read_only``, see one moment."""

    def begin(self, connection: DriverConnection) -> object:
        """Begin a transaction with the ledger's write lock; return what ``identify`` needs."""

    def identify(self, begun: object) -> object:
        """Return a token of a transaction that has begun, for ``was_committed``."""

    def begin_snapshot(self, connection: DriverConnection) -> None:
        """Begin a transaction that only reads, and sees one moment."""

    def end_snapshot(self, connection: DriverConnection) -> None:
        """End such a transaction, unless the database has ended it."""

    def stream(self, connection: DriverConnection, sql: str, values: Mapping[str, object]) -> Any:
        """Run a query whose rows are fetched a few at a time; return a context manager of its cursor."""

    def is_alive(self, connection: DriverConnection) -> bool:
        """Return True if an idle connection works; queries the server, if there is one."""

    def is_lost(self, connection: DriverConnection) -> bool:
        """Return True if a connection has been found broken."""

    def is_storage_error(self, error: BaseException) -> bool:
        """Return True if an error means damage, a full disk or a lost server; False for a defect."""

    def ends_transaction(self, error: BaseException) -> bool:
        """Return True if an error ends the whole transaction, not only the piece of work that raised it."""

    def is_temporary(self, error: BaseException) -> bool:
        """Return True if the same transaction may succeed when it is tried again."""

    def was_committed(self, connection: DriverConnection, token: object) -> bool:
        """Return True if the transaction of ``token``, whose connection was lost, is committed."""

    def lacks_tables(self, error: Exception) -> bool:
        """Return True if an error means that the tables of a ledger are not there."""

    def describe(self, error: Exception, problem: str = "cannot be read") -> LedgerError:
        """Return the error for the user from one of the driver's, which SQLAlchemy may have wrapped."""


def backend_of(location: LedgerLocation) -> Backend:
    """Return the database of a ledger's location; psycopg is imported for PostgreSQL alone."""
    if isinstance(location, Path):
        from dicom_quarry.ledger.sqlite import SqliteBackend

        return SqliteBackend(location)
    from dicom_quarry.ledger.postgres import PostgresBackend

    return PostgresBackend(location)


def driver_connection(connection: Connection) -> DriverConnection:
    """Return the driver's connection below a SQLAlchemy one; both are in the same transaction."""
    return connection.connection.driver_connection  # type: ignore[return-value]


def raise_described(engine: Engine, backend: Backend) -> None:
    """Have an engine raise LedgerError for damage and a lost server, also where it connects."""

    @event.listens_for(engine, "handle_error")
    def _describe(context: ExceptionContext) -> None:
        error = context.original_exception
        if not context.is_pre_ping and isinstance(error, backend.errors) and backend.is_storage_error(error):
            raise backend.describe(error) from error
