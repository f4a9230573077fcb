"""A ledger in a file of SQLite."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from dicom_quarry.errors import LedgerError, LedgerFull
from dicom_quarry.ledger.backend import DriverConnection, driver_connection
from dicom_quarry.system.ownership import NotOwned, open_own_file, require_own_file, require_own_folder

#: Page cache of one connection, in kB. A job has a dozen connections, and each would fill a larger cache as
#: the ledger grows; other pages are in the cache of the operating system, which all connections share.
_CACHE_KB = 2000

#: Size in bytes to which SQLite cuts the write-ahead log after a large transaction.
_WAL_SIZE_LIMIT = 64 << 20

#: Seconds for which a writer waits for the writer of another process, which may be suspended. Readers never
#: wait for a writer.
_BUSY_TIMEOUT = 600


class SqliteBackend:
    """The file of a ledger, with a write-ahead log."""

    errors: tuple[type[Exception], ...] = (sqlite3.DatabaseError,)

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self) -> None:
        """Make the file if it is new; raises NotOwned for a link, or another user's file."""
        # The ledger names patients. SQLite gives its other files the mode of this one.
        if not os.path.lexists(self._path):
            os.close(open_own_file(self._path, os.O_RDWR | os.O_CREAT))
        self._require_own_files()

    def require_job(self) -> None:
        """Raise LedgerError if there is no such file."""
        if not self._path.is_file():
            raise LedgerError(f"there is no job in {self._path.parent}")

    def prepare_upgrade(self) -> None:
        """Raise LedgerError if the file is not this user's."""
        try:
            require_own_folder(self._path.parent)
            self._require_own_files()
        except NotOwned as error:
            raise LedgerError(f"the ledger {self._path} is of an older version of Quarry: {error}") from None

    def connect(self, *, read_only: bool = False) -> DriverConnection:
        """Open a connection with WAL and synchronous FULL: a commit survives a power cut."""
        if read_only:
            self._roll_back()
        return _connect(self._path, read_only=read_only)

    def open_engine(self, *, read_only: bool = False) -> Engine:
        """Make an engine whose transactions begin with the write lock or, if ``read_only``, with a snapshot.

        SQLAlchemy's statements join a transaction that the driver has begun.
        """
        engine = create_engine(
            "sqlite://", creator=lambda: self.connect(read_only=read_only), poolclass=QueuePool
        )

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            below: Any = driver_connection(connection)
            if not below.in_transaction:
                connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

        return engine

    def begin(self, connection: DriverConnection) -> object:
        """Begin a transaction with the write lock."""
        connection.execute("BEGIN IMMEDIATE")
        return None

    def identify(self, begun: object) -> object:  # noqa: ARG002 - a commit is never in doubt
        """Return None."""
        return None

    def begin_snapshot(self, connection: DriverConnection) -> None:
        """Begin a transaction that takes the write lock only if it writes."""
        connection.execute("BEGIN")

    def end_snapshot(self, connection: Any) -> None:
        """End it; SQLite rolls back by itself on some errors."""
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def stream(self, connection: DriverConnection, sql: str, values: Mapping[str, object]) -> Any:
        """Run a query: SQLite finds each row when it is fetched."""
        return closing(connection.execute(sql, values))

    def is_alive(self, connection: DriverConnection) -> bool:  # noqa: ARG002 - there is no server to lose
        """Return True: the file is always there."""
        return True

    def is_lost(self, connection: DriverConnection) -> bool:  # noqa: ARG002
        """Return False: the file is always there."""
        return False

    def is_storage_error(self, error: BaseException) -> bool:
        """Return True for what happened to the file; subclasses of these errors are defects of statements."""
        return type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError)

    def ends_transaction(self, error: BaseException) -> bool:
        """Return True for a full or failing disk."""
        return isinstance(getattr(error, "orig", error), sqlite3.OperationalError)

    def is_temporary(self, error: BaseException) -> bool:  # noqa: ARG002
        """Return False: a failing disk is for the user to mend."""
        return False

    def was_committed(self, connection: DriverConnection, token: object) -> bool:  # noqa: ARG002
        """Return False: a commit that raises has not committed."""
        return False

    def lacks_tables(self, error: Exception) -> bool:
        """Return True for SQLite's sentence about a table that does not exist."""
        return "no such table" in str(getattr(error, "orig", None) or error)

    def describe(self, error: Exception, problem: str = "cannot be read") -> LedgerError:
        """Return the error for the user from one of SQLite's, which SQLAlchemy may have wrapped."""
        return ledger_error(self._path, error, problem)

    def _roll_back(self) -> None:
        """Roll back what a process began that was killed before the file had a write-ahead log.

        A reader may not do so, and cannot read before (sqlite.org/rescode.html, SQLITE_READONLY_ROLLBACK).
        """
        if not self._path.with_name(f"{self._path.name}-journal").exists():
            return
        try:
            require_own_folder(self._path.parent)
            self._require_own_files()
        except NotOwned:
            return  # the journal of another user could name other files
        with closing(_connect(self._path, read_only=False)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")

    def _require_own_files(self) -> None:
        """Raise NotOwned if the file, or one that SQLite keeps next to it, is a link or another user's."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            require_own_file(self._path.with_name(self._path.name + suffix))


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    _reject_link(path)
    query = "mode=ro" if read_only else "mode=rwc"
    if read_only and _is_read_only_copy(path):
        query += "&immutable=1"
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?{query}",
        uri=True,
        timeout=30 if read_only else _BUSY_TIMEOUT,
        # The driver's own transaction handling would commit before savepoints; here each BEGIN is explicit.
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_SIZE_LIMIT}")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KB}")
    except BaseException:
        connection.close()
        raise
    return connection


def ledger_error(path: Path, error: Exception, problem: str = "cannot be read") -> LedgerError:
    """Return the error for the user from one of SQLite's, which SQLAlchemy may have wrapped."""
    cause = getattr(error, "orig", None) or error
    code = (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF  # without the details of an extended code
    if code == sqlite3.SQLITE_FULL:
        return LedgerFull(
            f"disk full: {path}, the job's record, cannot be written. Free some space, then run the same "
            "command again: what is stored stays stored"
        )
    remedy = ". Have that disk checked, then run again" if code == sqlite3.SQLITE_IOERR else ""
    return LedgerError(f"the ledger {path} {problem}: {cause}{remedy}")


def _reject_link(path: Path) -> None:
    """Raise LedgerError if a ledger is a link, which could lead to any file, or no file at all."""
    try:
        found = path.lstat()
    except OSError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise LedgerError(f"{path} is a link or a device, not a ledger: look where it comes from")


def _is_read_only_copy(path: Path) -> bool:
    """Return True if the folder is read-only and there is no write-ahead log: a copy of a job's folder.

    SQLite needs files next to a database in WAL mode, unless the database is declared immutable
    (sqlite.org/wal.html, read-only databases).
    """
    return not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
