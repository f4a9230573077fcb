"""The database of a ledger: a pool for readers, and the thread that writes.

A connection is the driver's (``sqlite3`` or psycopg), or SQLAlchemy's over the same driver.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.backend import Backend, DriverConnection, backend_of, driver_connection
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.migrations import create_or_upgrade
from dicom_quarry.ledger.statements import CompiledStatement
from dicom_quarry.system.service_loop import start_thread

_log = logging.getLogger("dicom_quarry.ledger")


def upgrade_ledger(location: LedgerLocation) -> None:
    """Upgrade the ledger of an older version of Quarry; raises LedgerError if it cannot be written."""
    backend = backend_of(location)
    backend.prepare_upgrade()
    engine = backend.open_engine()
    try:
        with engine.begin() as connection:
            create_or_upgrade(connection)
    except DatabaseError as error:
        reason = " ".join(str(error.orig).split())
        remedy = "; give Quarry write access to its folder, or to a copy of it"
        raise LedgerError(
            f"the ledger {location} is of an older version of Quarry, and cannot be upgraded: {reason}"
            f"{remedy if isinstance(location, Path) else ''}"
        ) from error
    finally:
        engine.dispose()


def upgrades_itself(location: LedgerLocation) -> bool:
    """Return True if who opens an older ledger upgrades it.

    Processes of the older version may work on one in a database, on other computers.
    """
    return isinstance(location, Path)


T = TypeVar("T")


class ReadPool:
    """Read-only connections for any thread; a connection that is given back is kept for the next use.

    A server that is away is waited for, ``max_outage`` seconds at most: before the first row of a stream, and
    at any moment of the other reads.
    """

    def __init__(self, location: LedgerLocation, *, max_outage: float = 0) -> None:
        self._backend = backend_of(location)
        self._max_outage = max_outage
        self._idle: deque[DriverConnection] = deque()
        self._closed = False

    def fetch_all(self, statement: CompiledStatement, **values: object) -> list[Any]:
        """Return the rows of one statement, as they are committed now."""

        def fetch() -> list[Any]:
            with self._borrow() as connection:
                return statement.fetch_all(connection, **values)

        return retry_while_away(self._backend, fetch, self._max_outage)

    def stream(self, statement: CompiledStatement, **values: object) -> Generator[Any, None, None]:
        """Yield the rows of one statement, as they are committed when the first is taken."""
        with self._borrow(check=True) as connection:
            sql, fixed = statement.compile_for(connection)
            with self._backend.stream(connection, sql, {**fixed, **values}) as cursor:
                yield from map(statement.make_row, cursor)

    def read_snapshot(self, work: Callable[[DriverConnection], T]) -> T:
        """Run ``work`` on a connection whose statements all see the same moment, again if that is lost."""

        def read() -> T:
            with self.snapshot() as connection:
                return work(connection)

        return retry_while_away(self._backend, read, self._max_outage)

    @contextmanager
    def snapshot(self) -> Iterator[DriverConnection]:
        """Lend a connection whose statements all see the same moment."""
        with self._borrow(check=True) as connection:
            self._backend.begin_snapshot(connection)
            try:
                yield connection
            finally:
                self._backend.end_snapshot(connection)

    def close(self) -> None:
        """Close the idle connections; each of the others is closed when it is given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _borrow(self, *, check: bool = False) -> Iterator[DriverConnection]:
        """Lend a connection; ``check``: one that works, for rows that cannot be fetched a second time."""
        try:
            connection = retry_while_away(self._backend, lambda: self._take(check=check), self._max_outage)
        except self._backend.errors as error:
            raise self._backend.describe(error) from error
        try:
            yield connection
        except self._backend.errors as error:
            if not self._backend.is_storage_error(error):
                raise
            raise self._backend.describe(error) from error
        finally:
            if not self._backend.is_lost(connection):
                self._idle.append(connection)
            if self._closed:
                self.close()

    def _take(self, *, check: bool) -> DriverConnection:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if not check or self._backend.is_alive(connection):
                    return connection
        return self._backend.connect(read_only=True)


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

#: Seconds for which a running job waits for a server that is away: a restart, or a fail-over.
MAX_OUTAGE = 600.0


def retry_while_away(backend: Backend, work: Callable[[], T], max_outage: float) -> T:
    """Call ``work`` again while its error is a temporary one, for ``max_outage`` seconds at most."""
    give_up_at, pause = time.monotonic() + max_outage, 0.1
    while True:
        try:
            return work()
        except Exception as error:
            cause = error.__cause__ if isinstance(error, LedgerError) else error
            if cause is None or not backend.is_temporary(cause) or time.monotonic() + pause > give_up_at:
                raise
            _log.warning("the database does not answer; trying again in %.1f s", pause)
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


@dataclass(slots=True)
class _Piece:
    """A piece of work with its future; its result, or its own error, is known before the commit."""

    work: Work[object]
    future: Future[object]
    result: object = None
    error: Exception | None = None

    def settle(self) -> None:
        """Give the caller what the piece has ended with."""
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Database:
    """The database of one ledger with one writer thread.

    ``write`` runs a function in a transaction and returns when the commit is durable. Functions that wait at
    the same time share a transaction. A function that raises is rolled back alone, and its caller gets the
    exception. Another process may write to the ledger too: a transaction takes the write lock as it begins,
    so that what it has read is still true when it commits. A server that is away is waited for, and a
    transaction that it has lost is run again: a function has no effect but in the database.
    """

    def __init__(self, location: LedgerLocation) -> None:
        self._backend = backend_of(location)
        self._backend.prepare()
        self._engine = self._backend.open_engine()
        try:
            with self._engine.begin() as connection:
                create_or_upgrade(connection, upgrades=upgrades_itself(location))
        except LedgerError:
            self._engine.dispose()
            raise
        except DatabaseError as error:
            self._engine.dispose()
            raise self._backend.describe(error, "cannot be opened") from error
        self._location = location
        self._connection = self._engine.connect()
        self._read_engine = self._backend.open_engine(read_only=True)
        self.read_pool = ReadPool(location, max_outage=MAX_OUTAGE)
        self._queue: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._deferred: deque[tuple[CompiledStatement, Mapping[str, object]]] = deque()
        self._joining: deque[_Piece] = deque()
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
            self._queue.put(_Piece(work, future))  # type: ignore[arg-type]
        return future

    def submit_joining(self, work: Work[T]) -> Future[T]:
        """Queue ``work`` for the next transaction, before what is queued later; it causes none by itself.

        It is durable when the future is done. A thread that waits for the result need not wait for others.
        """
        future: Future[T] = _JoiningFuture(lambda: self.submit(_do_nothing))
        with self._close_lock:
            if self._closed:
                raise LedgerError("the ledger is closed")
            self._joining.append(_Piece(work, future))  # type: ignore[arg-type]
        return future

    def defer(self, insert: CompiledStatement, row: Mapping[str, object]) -> None:
        """Insert a row with the next transaction; a crash before that loses it."""
        self._deferred.append((insert, row))

    def read(self, work: Work[T]) -> T:
        """Run ``work`` on a snapshot of the committed rows."""

        def run() -> T:
            with self._read_engine.connect() as connection:
                return work(connection)

        try:
            return retry_while_away(self._backend, run, MAX_OUTAGE)
        except DatabaseError as error:
            if error.orig is None or not self._backend.is_storage_error(error.orig):
                raise
            raise self._backend.describe(error) from error

    def fetch_all(self, statement: CompiledStatement, **values: object) -> list[Any]:
        """Return the rows of one statement, as they are committed now."""
        return self.read_pool.fetch_all(statement, **values)

    def close(self) -> None:
        """Commit what is queued and close the ledger."""
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
        group: list[_Piece] = []
        open_ = True
        try:
            while open_:
                open_ = self._take_group(group)
                self._commit(group)
                group.clear()
        except BaseException as error:  # noqa: BLE001 - no caller may wait for a thread that has ended
            self._fail_all(group, error)
        self._connection.close()

    def _take_group(self, group: list[_Piece]) -> bool:
        """Wait for work, and add what is queued to ``group``; return False at the end mark."""
        while not group or (len(group) < _MAX_COMMIT_GROUP and not self._queue.empty()):
            item = self._queue.get()
            # Queued before it, and what it does may rely on that.
            group += [self._joining.popleft() for _ in range(len(self._joining))]
            if item is None:
                return False
            group.append(item)
        return True

    def _fail_all(self, group: list[_Piece], error: BaseException) -> None:
        """Give everything that waits, or is queued later, the error that ended the writer."""
        with self._close_lock:
            self._closed = True
        while not self._queue.empty():
            item = self._queue.get()
            if item is not None:
                group.append(item)
        group += self._joining
        for piece in group:
            if not piece.future.done():
                piece.future.set_exception(
                    LedgerError(f"the ledger {self._location} could not be written: {error!r}")
                )

    def _commit(self, group: list[_Piece]) -> None:
        """Run a group in one transaction, again if the server has lost it, and settle its futures."""
        deferred = self._take_deferred()
        transaction = _Transaction(self._backend, self._connection, group, deferred)
        try:
            retry_while_away(self._backend, transaction.run, MAX_OUTAGE)
        except Exception as error:  # noqa: BLE001 - every caller must get a disk's failure
            for piece in group:
                piece.error = piece.error or self._backend.describe(error, "could not be written")
        for piece in group:
            piece.settle()

    def _take_deferred(self) -> dict[CompiledStatement, list[Mapping[str, object]]]:
        rows: dict[CompiledStatement, list[Mapping[str, object]]] = {}
        # Only those that are queued now: other threads go on adding.
        for _ in range(len(self._deferred)):
            statement, row = self._deferred.popleft()
            rows.setdefault(statement, []).append(row)
        return rows


class _Transaction:
    """A group of pieces in one transaction, which may have to be run more than once.

    Transaction and savepoints are the driver's: SQLAlchemy's cost more than the statements between them.
    SQLAlchemy's statements join the transaction.
    """

    def __init__(
        self,
        backend: Backend,
        connection: Connection,
        group: list[_Piece],
        deferred: Mapping[CompiledStatement, list[Mapping[str, object]]],
    ) -> None:
        self._backend, self._connection = backend, connection
        self._group, self._deferred = group, deferred
        self._in_doubt: object = None

    def run(self) -> None:
        """Run the pieces and commit; raises the database's errors."""
        below = driver_connection(self._connection)
        try:
            token = self._backend.begin(below)
            if self._in_doubt is not None and self._backend.was_committed(below, self._in_doubt):
                return
            self._insert_deferred()
            if len(self._group) > 1:
                for piece in self._group:
                    self._run_piece(below, piece)
            elif self._group and not self._run_alone(below, self._group[0]):
                token = self._backend.begin(below)
                self._insert_deferred()
            self._in_doubt = token
            below.commit()
        finally:
            self._end(below)

    def _insert_deferred(self) -> None:
        for statement, values in self._deferred.items():
            statement.run_many(self._connection, values)

    def _run_alone(self, below: DriverConnection, piece: _Piece) -> bool:
        """Run a piece that has the transaction for itself; return False if it failed, and is rolled back.

        Savepoints would be two more messages to a server.
        """
        piece.error = None
        try:
            piece.result = piece.work(self._connection)
        except Exception as error:
            if self._backend.ends_transaction(error):
                raise
            below.rollback()
            piece.error = self._describe(error)
            return False
        return True

    def _run_piece(self, below: DriverConnection, piece: _Piece) -> None:
        piece.error = None
        below.execute("SAVEPOINT piece")
        try:
            piece.result = piece.work(self._connection)
        except Exception as error:
            if self._backend.ends_transaction(error):
                raise
            # If the database has rolled back the whole transaction this raises, and the group fails.
            below.execute("ROLLBACK TO piece")
            piece.error = self._describe(error)
        below.execute("RELEASE piece")

    def _describe(self, error: Exception) -> Exception:
        """Return a piece's error as a sentence for the user, unless it is its own, or a defect."""
        cause = getattr(error, "orig", None) or error
        if isinstance(cause, self._backend.errors) and self._backend.is_storage_error(cause):
            return self._backend.describe(error, "could not be written")
        return error

    def _end(self, below: DriverConnection) -> None:
        """Roll back what was not committed, and end SQLAlchemy's part of the transaction.

        If the disk fails here, the next BEGIN fails and its callers get the error.
        """
        with suppress(*self._backend.errors, DatabaseError):
            below.rollback()
            self._connection.rollback()
        if self._backend.is_lost(below):
            self._connection.invalidate()
            self._connection.rollback()


def _do_nothing(_connection: Connection) -> None:
    """Be the work of a transaction that commits what joins it."""
