"""Connections to the SQLite file: by the driver, and by SQLAlchemy over the same driver."""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import QueuePool

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.migrations import create_or_upgrade
from dicom_quarry.ledger.statements import CompiledStatement, driver_connection

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
            create_or_upgrade(connection)
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


T = TypeVar("T")
Work = Callable[[Connection], T]

#: At most this many pieces of work share one commit, so that a waiting thread waits for milliseconds.
_MAX_COMMIT_GROUP = 256


class Database:
    """One SQLite file with one writer thread.

    ``write`` runs a piece of work in a transaction, shared with whatever else is waiting; it returns when the
    commit is durable. A piece that raises is undone alone, and its exception goes to its caller. Another
    process may write to the file, too: a transaction takes the write lock as it begins, so that what it has
    read still holds when it commits.
    """

    def __init__(self, path: Path) -> None:
        # It names patients: SQLite gives the mode of this file to those that it puts beside it.
        if not path.exists():  # its time tells whether it was written to
            path.touch(mode=0o600)
        self._engine = open_engine(path)
        try:
            with self._engine.begin() as connection:
                create_or_upgrade(connection)
        except DatabaseError as error:
            self._engine.dispose()
            raise LedgerError(f"the ledger {path} cannot be opened: {error.orig}") from error
        self._connection = self._engine.connect()
        self._read_engine = open_engine(path, read_only=True)
        self.read_pool = ReadPool(path)
        self._queue: queue.SimpleQueue[tuple[Work[object], Future[object]] | None] = queue.SimpleQueue()
        self._deferred: deque[tuple[CompiledStatement, Mapping[str, object]]] = deque()
        self._closed = False
        self._close_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run_writer, name="ledger", daemon=True)
        self._thread.start()

    def write(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction; returns when it is durable."""
        return self.submit(work).result()

    def submit(self, work: Work[T]) -> Future[T]:
        """Run ``work`` in a transaction soon; nothing may lean on it before the future is done."""
        future: Future[T] = Future()
        with self._close_lock:
            if self._closed:
                raise LedgerError("the ledger is closed")
            self._queue.put((work, future))  # type: ignore[arg-type]
        return future

    def defer(self, insert: CompiledStatement, row: Mapping[str, object]) -> None:
        """Insert a row with the next transaction that is made anyway; for what nothing leans on."""
        self._deferred.append((insert, row))

    def read(self, work: Work[T]) -> T:
        """Run ``work`` on a snapshot of what is committed."""
        with self._read_engine.connect() as connection:
            return work(connection)

    def fetch_all(self, statement: CompiledStatement, **values: object) -> list[Any]:
        """The rows of one statement, as they are committed now."""
        return self.read_pool.fetch_all(statement, **values)

    def close(self) -> None:
        """Commit what is waiting and close the file."""
        with self._close_lock:
            # Nothing can come after the end of the queue, where nobody would ever take it up.
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        self.read_pool.close()
        self._read_engine.dispose()
        self._engine.dispose()

    def _run_writer(self) -> None:
        open_ = True
        while open_:
            first = self._queue.get()
            group = [] if first is None else [first]
            open_ = first is not None
            while open_ and len(group) < _MAX_COMMIT_GROUP and not self._queue.empty():
                item = self._queue.get()
                open_ = item is not None
                if item is not None:
                    group.append(item)
            self._commit(group)
        self._connection.close()

    def _commit(self, group: list[tuple[Work[object], Future[object]]]) -> None:
        """Do a group in one transaction.

        It is the driver's, and so are its savepoints: SQLAlchemy's cost more than the statements that they
        are for. A piece that runs SQLAlchemy's statements has it join in.
        """
        below = driver_connection(self._connection)
        try:
            below.execute("BEGIN IMMEDIATE")
            self._insert_deferred(self._connection)
            done = self._run_group(below, group)
            below.commit()
        except Exception as error:  # noqa: BLE001 - a disk that fails must reach every caller, not end this thread
            for _, future in group:
                if not future.done():
                    future.set_exception(LedgerError(f"the ledger could not be written: {error}"))
        else:
            for future, result in done:
                future.set_result(result)
        finally:
            # What did not come to its commit is undone, and over for SQLAlchemy, too, if it had joined in.
            # Where a disk fails here the next group cannot begin, and is told so.
            with suppress(sqlite3.Error, DatabaseError):
                below.rollback()
                self._connection.rollback()

    def _run_group(
        self, below: sqlite3.Connection, group: list[tuple[Work[object], Future[object]]]
    ) -> list[tuple[Future[object], object]]:
        """Do the pieces of a transaction; what they gave, but for those that raised, and are undone."""
        done: list[tuple[Future[object], object]] = []
        for work, future in group:
            below.execute("SAVEPOINT piece")
            try:
                done.append((future, work(self._connection)))
            except (OperationalError, sqlite3.OperationalError):
                raise
            except Exception as error:  # noqa: BLE001 - it belongs to the caller who waits for the future
                # Where SQLite has undone the transaction by itself this raises, and all of the group fails.
                below.execute("ROLLBACK TO piece")
                future.set_exception(error)
            below.execute("RELEASE piece")
        return done

    def _insert_deferred(self, connection: Connection) -> None:
        rows: dict[CompiledStatement, list[Mapping[str, object]]] = {}
        # Not more than there are now: others go on adding.
        for _ in range(len(self._deferred)):
            statement, row = self._deferred.popleft()
            rows.setdefault(statement, []).append(row)
        for statement, values in rows.items():
            statement.run_many(connection, values)
