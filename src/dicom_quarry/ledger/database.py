"""SQLite through SQLAlchemy: durable, one writer thread that commits in groups, readers beside it."""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import QueuePool

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger import schema

T = TypeVar("T")
Work = Callable[[Connection], T]

#: Pages that a connection keeps, in kB. There are a dozen connections, each of which would fill a larger one
#: as the ledger grows; what is not in it is in the system's own cache, which all of them share.
_CACHE = 2000

#: The write-ahead log is cut back to so many bytes once a large transaction, a table's rows, is in the file.
_LOG_LIMIT = 64 << 20

#: Seconds for which a writer waits for one of another process, which may be suspended: the job's threads wait
#: with it. Readers never wait for a writer.
_BUSY = 600

#: At most this many pieces of work share one commit, so that a waiting thread waits for milliseconds.
_GROUP = 256


def open_engine(path: Path, *, read_only: bool = False) -> Engine:
    """An engine for the SQLite file: WAL and synchronous FULL, so a commit survives a power cut."""
    query = {"mode": "ro" if read_only else "rwc", "uri": "true"}
    if read_only and _at_rest(path):
        query["immutable"] = "1"
    # Made from its parts: as text, SQLAlchemy would undo the quoting that SQLite needs.
    file = f"file:{quote(str(path))}"
    engine = create_engine(
        URL.create("sqlite", database=file, query=query),
        poolclass=QueuePool,
        connect_args={"check_same_thread": False, "timeout": 30 if read_only else _BUSY},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own transaction handling would commit before savepoints; ours begins explicitly below.
        connection.isolation_level = None
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA journal_size_limit={_LOG_LIMIT}")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA cache_size=-{_CACHE}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def bring_up_to_date(path: Path) -> None:
    """Upgrade the ledger of an older version of Quarry; raises LedgerError where it cannot be written."""
    engine = open_engine(path)
    try:
        with engine.begin() as connection:
            schema.prepare(connection)
    except DatabaseError as error:
        raise LedgerError(
            f"the ledger {path} is of an older version of Quarry, and cannot be upgraded: {error.orig}; "
            "let Quarry write to its folder, or to a copy of it"
        ) from error
    finally:
        engine.dispose()


def _at_rest(path: Path) -> bool:
    """Whether nobody can write here and nothing waits in a log, as on a read-only copy of a job's folder.

    SQLite opens a database with a write-ahead log only where it can put files beside it, unless it is told
    that nothing changes (sqlite.org/wal.html, read-only databases).
    """
    return not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()


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
                schema.prepare(connection)
        except DatabaseError as error:
            self._engine.dispose()
            raise LedgerError(f"the ledger {path} cannot be opened: {error.orig}") from error
        self._reader = open_engine(path, read_only=True)
        self._queue: queue.SimpleQueue[tuple[Work[object], Future[object]] | None] = queue.SimpleQueue()
        self._deferred: deque[tuple[Table, Mapping[str, object]]] = deque()
        self._closed = False
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def write(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction; returns when it is durable."""
        return self.submit(work).result()

    def submit(self, work: Work[T]) -> Future[T]:
        """Run ``work`` in a transaction soon; nothing may lean on it before the future is done."""
        future: Future[T] = Future()
        with self._closing:
            if self._closed:
                raise LedgerError("the ledger is closed")
            self._queue.put((work, future))  # type: ignore[arg-type]
        return future

    def defer(self, table: Table, row: Mapping[str, object]) -> None:
        """Insert a row with the next transaction that is made anyway; for what nothing leans on."""
        self._deferred.append((table, row))

    def read(self, work: Work[T]) -> T:
        """Run ``work`` on a snapshot of what is committed."""
        with self._reader.connect() as connection:
            return work(connection)

    def close(self) -> None:
        """Commit what is waiting and close the file."""
        with self._closing:
            # Nothing can come after the end of the queue, where nobody would ever take it up.
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        self._reader.dispose()
        self._engine.dispose()

    def _run(self) -> None:
        open_ = True
        while open_:
            first = self._queue.get()
            group = [] if first is None else [first]
            open_ = first is not None
            while open_ and len(group) < _GROUP and not self._queue.empty():
                item = self._queue.get()
                open_ = item is not None
                if item is not None:
                    group.append(item)
            self._commit(group)

    def _commit(self, group: list[tuple[Work[object], Future[object]]]) -> None:
        done: list[tuple[Future[object], object]] = []
        try:
            with self._engine.begin() as connection:
                self._insert_deferred(connection)
                for work, future in group:
                    try:
                        with connection.begin_nested():
                            done.append((future, work(connection)))
                    except OperationalError:
                        raise
                    except Exception as error:  # noqa: BLE001 - it belongs to the caller who waits for the future
                        future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - a disk that fails must reach every caller, not end this thread
            for _, future in group:
                if not future.done():
                    future.set_exception(LedgerError(f"the ledger could not be written: {error}"))
            return
        for future, result in done:
            future.set_result(result)

    def _insert_deferred(self, connection: Connection) -> None:
        rows: dict[Table, list[Mapping[str, object]]] = {}
        # Not more than there are now: others go on adding.
        for _ in range(len(self._deferred)):
            table, row = self._deferred.popleft()
            rows.setdefault(table, []).append(row)
        for table, values in rows.items():
            connection.execute(insert(table), values)


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert the rows that are not there yet; those that are stay as they stand."""
    if rows:
        connection.execute(insert(table).on_conflict_do_nothing(), list(rows))
