"""The database of a ledger, and the thread that writes.

A connection is the driver's (``sqlite3`` or psycopg), or SQLAlchemy's over the same driver.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.backend import Backend, DriverConnection, backend_of, driver_connection
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.migrations import create_or_upgrade
from dicom_quarry.ledger.outages import MAX_OUTAGE, retry_while_away
from dicom_quarry.ledger.read_pool import ReadPool
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


Work = Callable[[Connection], T]


def do_nothing(_connection: Connection) -> None:
    """Be work without an effect."""


_DeferredRows = dict[CompiledStatement, list[Mapping[str, object]]]


class _LedFuture(Future[T]):
    """The result of work that no thread has been woken for: the thread that waits for it commits."""

    def __init__(self, lead: Callable[[Future[Any]], None]) -> None:
        super().__init__()
        self._lead = lead

    def result(self, timeout: float | None = None) -> T:
        if not self.done():
            self._lead(self)
        return super().result(timeout)


#: At most this many pieces of work share one commit, so that a waiting thread waits for milliseconds.
_MAX_COMMIT_GROUP = 256


@dataclass(slots=True)
class _Piece:
    """A piece of work with its future; its result, or its own error, is known before the commit."""

    work: Work[object]
    future: Future[object]
    repeatable: bool
    result: object = None
    error: Exception | None = None

    def settle(self) -> None:
        """Give the caller what the piece has ended with."""
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def _is_repeatable(group: list[_Piece]) -> bool:
    return bool(group) and all(piece.repeatable for piece in group)


class Database:
    """The database of one ledger, with one connection that writes.

    ``write`` runs a function in a transaction and returns when the commit is durable. Functions that wait at
    the same time share a transaction, in the thread of one of them, or in the ledger's own; if one raises,
    its caller gets the exception, and the others are run again without it. Another process may write to the
    ledger too: a transaction takes the write lock as it begins, so that what it has read is still true when
    it commits. A server that is away is waited for, and a transaction that it has lost is run again: a
    function has no effect but in the database.
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
        self._pieces: deque[_Piece] = deque()
        #: Whoever has it writes: to wake the ledger's own thread takes longer than many a commit.
        self._turn = threading.Lock()
        self._wakeups: queue.SimpleQueue[bool] = queue.SimpleQueue()  # False at the end
        self._deferred: deque[tuple[CompiledStatement, Mapping[str, object]]] = deque()
        self._closed = False
        self._close_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run_writer, name="ledger", daemon=True)
        start_thread(self._thread)

    def write(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction; return when it is durable."""
        return self.submit_joining(work).result()

    def submit(self, work: Work[T]) -> Future[T]:
        """Queue ``work`` for a transaction; it is durable when the future is done."""
        future: Future[T] = Future()
        self._append(_Piece(work, future, repeatable=False))  # type: ignore[arg-type]
        self._wakeups.put(True)
        return future

    def submit_joining(self, work: Work[T], *, repeatable: bool = False) -> Future[T]:
        """Queue ``work`` for the next transaction, before what is queued later; it causes none by itself.

        It is durable when the future is done. To wait for the result causes a transaction. ``repeatable``:
        the work may be committed twice, so that a transaction of such work alone need not be identified.
        """
        future: Future[T] = _LedFuture(self._lead)
        self._append(_Piece(work, future, repeatable))  # type: ignore[arg-type]
        return future

    def _append(self, piece: _Piece) -> None:
        with self._close_lock:
            if self._closed:
                raise LedgerError("the ledger is closed")
            self._pieces.append(piece)

    def defer(self, insert: CompiledStatement, row: Mapping[str, object]) -> None:
        """Insert a row with one of the next transactions; a crash before that loses it."""
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
            # Under the lock, so that no work is queued behind the end, where it would never run.
            if self._closed:
                return
            self._closed = True
            self._wakeups.put(False)
        self._thread.join()
        self.read_pool.close()
        self._read_engine.dispose()
        self._engine.dispose()

    def _run_writer(self) -> None:
        while self._wakeups.get():
            while self._pieces:
                self._commit_next()
        self._commit_next()
        while self._pieces:
            self._commit_next()
        with self._turn:
            self._connection.close()

    def _lead(self, future: Future[Any]) -> None:
        """Commit what is queued, up to the piece of a future; in the main thread let another do so.

        The main thread may be interrupted (Ctrl-C), also between a commit and the word of it.
        """
        if threading.current_thread() is threading.main_thread():
            self._wakeups.put(True)
            return
        while not future.done():
            self._commit_next(future)

    def _commit_next(self, wanted: Future[Any] | None = None) -> None:
        """Commit the pieces that are queued, or the first of many, unless the wanted one is done by then."""
        with self._turn:
            if wanted is not None and wanted.done():
                return
            group = [self._pieces.popleft() for _ in range(min(len(self._pieces), _MAX_COMMIT_GROUP))]
            try:
                self._commit(group)
            except BaseException as error:  # noqa: BLE001 - no caller may wait for a writer that has ended
                self._fail_all(group, error)

    def _fail_all(self, group: list[_Piece], error: BaseException) -> None:
        """Give everything that waits the error that ended the writer, and queue nothing more."""
        with self._close_lock:
            self._closed = True
            self._wakeups.put(False)
        group += self._pieces
        self._pieces.clear()
        for piece in group:
            if not piece.future.done():
                piece.future.set_exception(
                    LedgerError(f"the ledger {self._location} could not be written: {error!r}")
                )

    def _commit(self, group: list[_Piece]) -> None:
        """Run a group in one transaction, and settle its futures."""
        deferred = {} if _is_repeatable(group) else self._take_deferred()
        try:
            self._run(group, deferred)
        except Exception as error:  # noqa: BLE001 - every caller must get a disk's failure
            if self._backend.ends_transaction(error):
                for piece in group:
                    piece.error = self._backend.describe(error, "could not be written")
            else:
                self._commit_apart(group, deferred, error)
        for piece in group:
            piece.settle()

    def _commit_apart(self, group: list[_Piece], deferred: _DeferredRows, error: Exception) -> None:
        """Give a piece its own error; if there are several, each gets a transaction of its own."""
        if len(group) == 1:
            group[0].error = self._describe(error)
        apart = [[piece] for piece in group] if len(group) > 1 else []
        for pieces in [[], *apart] if deferred else apart:
            try:
                self._run(pieces, {} if pieces else deferred)
            except Exception as own:  # noqa: BLE001 - it is the caller's
                for piece in pieces:
                    piece.error = self._describe(own)

    def _run(self, group: list[_Piece], deferred: _DeferredRows) -> None:
        """Run pieces in one transaction, again if the server has lost it."""
        transaction = _Transaction(self._backend, self._connection, group, deferred)
        retry_while_away(self._backend, transaction.run, MAX_OUTAGE)

    def _describe(self, error: Exception) -> Exception:
        """Return a piece's error as a sentence for the user, unless it is its own, or a defect."""
        cause = getattr(error, "orig", None) or error
        if isinstance(cause, self._backend.errors) and self._backend.is_storage_error(cause):
            return self._backend.describe(error, "could not be written")
        return error

    def _take_deferred(self) -> _DeferredRows:
        rows: _DeferredRows = {}
        # Only those that are queued now: other threads go on adding.
        for _ in range(len(self._deferred)):
            statement, row = self._deferred.popleft()
            rows.setdefault(statement, []).append(row)
        return rows


class _Transaction:
    """A group of pieces in one transaction, which may have to be run more than once.

    The transaction is the driver's: SQLAlchemy's costs more than the statements in it, which join it.
    """

    def __init__(
        self,
        backend: Backend,
        connection: Connection,
        group: list[_Piece],
        deferred: _DeferredRows,
    ) -> None:
        self._backend, self._connection = backend, connection
        self._group, self._deferred = group, deferred
        self._in_doubt: object = None

    def run(self) -> None:
        """Run the pieces and commit; raises their errors, and the database's."""
        below = driver_connection(self._connection)
        try:
            begun = self._backend.begin(below)
            if self._in_doubt is not None and self._backend.was_committed(below, self._in_doubt):
                return
            for statement, rows in self._deferred.items():
                statement.run_many(self._connection, rows)
            for piece in self._group:
                piece.result = piece.work(self._connection)
            if not _is_repeatable(self._group):
                self._in_doubt = self._backend.identify(begun)
            below.commit()
        finally:
            self._end(below)

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
