"""Connections to the SQLite file: by the driver, and by SQLAlchemy over the same driver."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger import schema
from dicom_quarry.ledger.compiled_statements import CompiledStatement, driver_connection

#: Pages that a connection keeps, in kB. There are a dozen connections, each of which would fill a larger one
#: as the ledger grows; what is not in it is in the system's own cache, which all of them share.
_CACHE_KB = 2000

#: The write-ahead log is cut back to so many bytes once a large transaction, a table's rows, is in the file.
_WAL_SIZE_LIMIT = 64 << 20

#: Seconds for which a writer waits for one of another process, which may be suspended: the job's threads wait
#: with it. Readers never wait for a writer.
_BUSY_TIMEOUT = 600


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection of the driver: WAL and synchronous FULL, so a commit survives a power cut."""
    query = "mode=ro" if read_only else "mode=rwc"
    if read_only and _is_read_only_copy(path):
        query += "&immutable=1"
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?{query}",
        uri=True,
        timeout=30 if read_only else _BUSY_TIMEOUT,
        # The driver's own transaction handling would commit before savepoints; ours begins explicitly.
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


def open_engine(path: Path, *, read_only: bool = False) -> Engine:
    """An engine of such connections, whose transactions begin with the write lock, or with a snapshot.

    Where the driver has begun one already, SQLAlchemy's statements join it.
    """
    engine = create_engine(
        "sqlite://", creator=lambda: connect(path, read_only=read_only), poolclass=QueuePool
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if not driver_connection(connection).in_transaction:
            connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def upgrade_ledger(path: Path) -> None:
    """Upgrade the ledger of an older version of Quarry; raises LedgerError where it cannot be written."""
    engine = open_engine(path)
    try:
        with engine.begin() as connection:
            schema.create_or_upgrade(connection)
    except DatabaseError as error:
        raise LedgerError(
            f"the ledger {path} is of an older version of Quarry, and cannot be upgraded: {error.orig}; "
            "let Quarry write to its folder, or to a copy of it"
        ) from error
    finally:
        engine.dispose()


def _is_read_only_copy(path: Path) -> bool:
    """Whether nobody can write here and nothing waits in a log, as on a read-only copy of a job's folder.

    SQLite opens a database with a write-ahead log only where it can put files beside it, unless it is told
    that nothing changes (sqlite.org/wal.html, read-only databases).
    """
    return not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()


class ReadPool:
    """Connections that only read, for any thread: as many as were ever in use at once, kept for the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False

    def fetch_all(self, statement: CompiledStatement, **values: object) -> list[Any]:
        """The rows of one statement, as they are committed now."""
        with self._borrow() as connection:
            return statement.fetch_all(connection, **values)

    def stream(self, statement: CompiledStatement, **values: object) -> Iterator[Any]:
        """The rows of one statement, one by one, as they are committed when the first is taken."""
        with self._borrow() as connection, closing(statement.execute(connection, values)) as cursor:
            yield from map(statement.make_row, cursor)

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection for several statements, all of which see the same moment."""
        with self._borrow() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:  # not where SQLite has undone it by itself
                    connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close those that nobody uses; each of the others follows as it is given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _borrow(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = connect(self._path, read_only=True)
        try:
            yield connection
        finally:
            self._idle.append(connection)
            if self._closed:
                self.close()
