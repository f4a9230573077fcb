"""The SQLite file of a ledger: connections, a pool for readers, and the thread that writes.

A connection is the driver's (``sqlite3``), or SQLAlchemy's over the same driver.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import stat
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import QueuePool

from dicom_quarry.errors import LedgerError, LedgerFull
from dicom_quarry.ledger.migrations import create_or_upgrade
from dicom_quarry.ledger.statements import CompiledStatement, driver_connection
from dicom_quarry.system.ownership import NotOwned, open_own_file, require_own_file, require_own_folder
from dicom_quarry.system.service_loop import start_thread

#: Page cache of one connection, in kB. A job has a dozen connections, and each would fill a larger cache as
#: the ledger grows; other pages are in the cache of the operating system, which all connections share.
_CACHE_KB = 2000

#: Size in bytes to which SQLite cuts the write-ahead log after a large transaction.
_WAL_SIZE_LIMIT = 64 << 20

#: Seconds for which a writer waits for the writer of another process, which may be suspended. Readers never
#: wait for a writer.
_BUSY_TIMEOUT = 600


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a connection of the driver, with WAL and synchronous FULL: a commit survives a power cut."""
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


def open_engine(path: Path, *, read_only: bool = False) -> Engine:
    """Make an engine whose transactions begin with the write lock or, if ``read_only``, with a snapshot.

    SQLAlchemy's statements join a transaction that the driver has begun.
    """
    engine = create_engine(
        "sqlite://", creator=lambda: connect(path, read_only=read_only), poolclass=QueuePool
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if not driver_connection(connection).in_transaction:
            connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


#: SQLite's errors for what happened to the file, without their subclasses, which are defects of statements.
_DISK_ERRORS = (sqlite3.OperationalError, sqlite3.DatabaseError)


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


def _require_own_files(path: Path) -> None:
    """Raise NotOwned if a ledger, or a file that SQLite keeps next to it, is a link or another user's."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        require_own_file(path.with_name(path.name + suffix))


def upgrade_ledger(path: Path) -> None:
    """Upgrade the ledger of an older version of Quarry; raises LedgerError if it cannot be written."""
    try:
        require_own_folder(path.parent)
        _require_own_files(path)
    except NotOwned as error:
        raise LedgerError(f"the ledger {path} is of an older version of Quarry: {error}") from None
    engine = open_engine(path)
    try:
        with engine.begin() as connection:
            create_or_upgrade(connection)
    except DatabaseError as error:
        raise LedgerError(
            f"the ledger {path} is of an older version of Quarry, and cannot be upgraded: {error.orig}; "
            "give Quarry write access to its folder, or to a copy of it"
        ) from error
    finally:
        engine.dispose()


def _is_read_only_copy(path: Path) -> bool:
    """Return True if the folder is read-only and there is no write-ahead log: a copy of a job's folder.

    SQLite needs files next to a database in WAL mode, unless the database is declared immutable
    (sqlite.org/wal.html, read-only databases).
    """
    return not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()


class ReadPool:
    """Read-only connections for any thread; a connection that is given back is kept for the next use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False

    def fetch_all(self, statement: CompiledStatement, **values: object) -> list[Any]:
        """Return the rows of one statement, as they are committed now."""
        with self._borrow() as connection:
            return statement.fetch_all(connection, **values)

    def stream(self, statement: CompiledStatement, **values: object) -> Generator[Any, None, None]:
        """Yield the rows of one statement, as they are committed when the first is taken."""
        with self._borrow() as connection, closing(statement.execute(connection, values)) as cursor:
            yield from map(statement.make_row, cursor)

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection whose statements all see the same moment."""
        with self._borrow() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:  # SQLite rolls back by itself on some errors
                    connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the idle connections; each of the others is closed when it is given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _borrow(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._idle.pop()
        except IndexError:
            try:
                connection = connect(self._path, read_only=True)
            except sqlite3.DatabaseError as error:
                raise ledger_error(self._path, error) from error
        try:
            yield connection
        except sqlite3.DatabaseError as error:
            if type(error) not in _DISK_ERRORS:
                raise
            raise ledger_error(self._path, error) from error
        finally:
            self._idle.append(connection)
            if self._closed:
                self.close()


T = TypeVar("T")
Work = Callable[[Connection], T]


class _JoiningFuture(Future[T]):
    """The result of work that joins the next transaction; a thread that waits for it causes one."""

    def __init__(self, commit_soon: Callable[[], object]) -> None:
        super().__init__()
        self._commit_soon = commit_soon

    def result(self, timeout: float | None = None) -> T:
        if not self.done():
            self._commit_soon()
        return super().result(timeout)


#: At most this many pieces of work share one commit, so that a waiting thread waits for milliseconds.
_MAX_COMMIT_GROUP = 256


class Database:
    """One SQLite file with one writer thread.

    ``write`` runs a function in a transaction and returns when the commit is durable. Functions that wait at
    the same time share a transaction. A function that raises is rolled back alone, and its caller gets the
    exception. Another process may write to the file too: a transaction takes the write lock as it begins, so
    that what it has read is still true when it commits.
    """

    def __init__(self, path: Path) -> None:
        # The ledger names patients. SQLite gives its other files the mode of this one.
        if not os.path.lexists(path):
            os.close(open_own_file(path, os.O_RDWR | os.O_CREAT))
        _require_own_files(path)
        self._engine = open_engine(path)
        try:
            with self._engine.begin() as connection:
                create_or_upgrade(connection)
        except DatabaseError as error:
            self._engine.dispose()
            raise ledger_error(path, error, "cannot be opened") from error
        self._path = path
        self._connection = self._engine.connect()
        self._read_engine = open_engine(path, read_only=True)
        self.read_pool = ReadPool(path)
        self._queue: queue.SimpleQueue[tuple[Work[object], Future[object]] | None] = queue.SimpleQueue()
        self._deferred: deque[tuple[CompiledStatement, Mapping[str, object]]] = deque()
        self._joining: deque[tuple[Work[object], Future[object]]] = deque()
        self._closed = False
        self._close_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run_writer, name="ledger", daemon=True)
        start_thread(self._thread)

    def write(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction; return when it is durable."""
        return self.submit(work).result()

    def submit(self, work: Work[T]) -> Future[T]:
        """Queue ``work`` for a transaction; it is durable when the future is done."""
        future: Future[T] = Future()
        with self._close_lock:
            if self._closed:
                raise LedgerError("the ledger is closed")
            self._queue.put((work, future))  # type: ignore[arg-type]
        return future

    def submit_joining(self, work: Work[T]) -> Future[T]:
        """Queue ``work`` for the next transaction, before what is queued later; it causes none by itself.

        It is durable when the future is done. A thread that waits for the result need not wait for others.
        """
        future: Future[T] = _JoiningFuture(lambda: self.submit(_do_nothing))
        with self._close_lock:
            if self._closed:
                raise LedgerError("the ledger is closed")
            self._joining.append((work, future))  # type: ignore[arg-type]
        return future

    def defer(self, insert: CompiledStatement, row: Mapping[str, object]) -> None:
        """Insert a row with the next transaction; a crash before that loses it."""
        self._deferred.append((insert, row))

    def read(self, work: Work[T]) -> T:
        """Run ``work`` on a snapshot of the committed rows."""
        try:
            with self._read_engine.connect() as connection:
                return work(connection)
        except DatabaseError as error:
            if type(error.orig) not in _DISK_ERRORS:
                raise
            raise ledger_error(self._path, error) from error

    def fetch_all(self, statement: CompiledStatement, **values: object) -> list[Any]:
        """Return the rows of one statement, as they are committed now."""
        return self.read_pool.fetch_all(statement, **values)

    def close(self) -> None:
        """Commit what is queued and close the file."""
        with self._close_lock:
            # Under the lock, so that no work is queued behind the end mark, where it would never run.
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        self.read_pool.close()
        self._read_engine.dispose()
        self._engine.dispose()

    def _run_writer(self) -> None:
        group: list[tuple[Work[object], Future[object]]] = []
        open_ = True
        try:
            while open_:
                open_ = self._take_group(group)
                self._commit(group)
                group.clear()
        except BaseException as error:  # noqa: BLE001 - no caller may wait for a thread that has ended
            self._fail_all(group, error)
        self._connection.close()

    def _take_group(self, group: list[tuple[Work[object], Future[object]]]) -> bool:
        """Wait for work, and add what is queued to ``group``; return False at the end mark."""
        while not group or (len(group) < _MAX_COMMIT_GROUP and not self._queue.empty()):
            item = self._queue.get()
            # Queued before it, and what it does may rely on that.
            group += [self._joining.popleft() for _ in range(len(self._joining))]
            if item is None:
                return False
            group.append(item)
        return True

    def _fail_all(self, group: list[tuple[Work[object], Future[object]]], error: BaseException) -> None:
        """Give everything that waits, or is queued later, the error that ended the writer."""
        with self._close_lock:
            self._closed = True
        while not self._queue.empty():
            item = self._queue.get()
            if item is not None:
                group.append(item)
        group += self._joining
        for _, future in group:
            if not future.done():
                future.set_exception(LedgerError(f"the ledger {self._path} could not be written: {error!r}"))

    def _commit(self, group: list[tuple[Work[object], Future[object]]]) -> None:
        """Run a group in one transaction.

        Transaction and savepoints are the driver's: SQLAlchemy's cost more than the statements between them.
        SQLAlchemy's statements join the transaction.
        """
        below = driver_connection(self._connection)
        try:
            below.execute("BEGIN IMMEDIATE")
            self._insert_deferred(self._connection)
            done = self._run_group(below, group)
            below.commit()
        except Exception as error:  # noqa: BLE001 - every caller must get a disk's failure
            for _, future in group:
                if not future.done():
                    future.set_exception(ledger_error(self._path, error, "could not be written"))
        else:
            for future, result in done:
                future.set_result(result)
        finally:
            # Rolls back what was not committed, and ends SQLAlchemy's part of the transaction. If the disk
            # fails here, the next BEGIN fails and its callers get the error.
            with suppress(sqlite3.Error, DatabaseError):
                below.rollback()
                self._connection.rollback()

    def _run_group(
        self, below: sqlite3.Connection, group: list[tuple[Work[object], Future[object]]]
    ) -> list[tuple[Future[object], object]]:
        """Run the functions of a transaction; return the results of those that did not raise."""
        done: list[tuple[Future[object], object]] = []
        for work, future in group:
            below.execute("SAVEPOINT piece")
            try:
                done.append((future, work(self._connection)))
            except (OperationalError, sqlite3.OperationalError):
                raise
            except Exception as error:  # noqa: BLE001 - the caller gets it from the future
                # If SQLite has rolled back the whole transaction this raises, and the group fails.
                below.execute("ROLLBACK TO piece")
                future.set_exception(error)
            below.execute("RELEASE piece")
        return done

    def _insert_deferred(self, connection: Connection) -> None:
        rows: dict[CompiledStatement, list[Mapping[str, object]]] = {}
        # Only those that are queued now: other threads go on adding.
        for _ in range(len(self._deferred)):
            statement, row = self._deferred.popleft()
            rows.setdefault(statement, []).append(row)
        for statement, values in rows.items():
            statement.run_many(connection, values)


def _do_nothing(_connection: Connection) -> None:
    """Be the work of a transaction that commits what joins it."""
