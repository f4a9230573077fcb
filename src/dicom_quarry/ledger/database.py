"""SQLite, durable: one writer thread that commits in groups, readers beside it."""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, OperationalError

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger import schema
from dicom_quarry.ledger.compiled_statements import CompiledStatement, driver_connection
from dicom_quarry.ledger.connections import ReadPool, open_engine

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
                schema.create_or_upgrade(connection)
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
