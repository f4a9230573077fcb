"""The connections of a ledger's readers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from dicom_quarry.ledger.backend import DriverConnection, backend_of
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.outages import retry_while_away

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
        (rows,) = self.fetch_together((statement, values))
        return rows

    def fetch_together(self, *reads: tuple[CompiledStatement, Mapping[str, object]]) -> list[list[Any]]:
        """Return the rows of each of several statements, for which a server is waited for once."""

        def fetch() -> list[list[Any]]:
            connection = self._take(check=False)
            try:
                results = [(statement, statement.execute(connection, values)) for statement, values in reads]
                return [list(map(statement.make_row, rows)) for statement, rows in results]
            except self._backend.errors as error:
                self._raise_described(error)
                raise
            finally:
                self._give_back(connection)

        return retry_while_away(self._backend, fetch, self._max_outage)

    def stream(self, statement: CompiledStatement, **values: object) -> Generator[Any, None, None]:
        """Yield the rows of one statement, as they are committed when the first is taken."""
        with self._borrow(check=True) as connection:
            sql, fixed = statement.for_stream(connection)
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
        connection = retry_while_away(self._backend, lambda: self._take(check=check), self._max_outage)
        try:
            yield connection
        except self._backend.errors as error:
            self._raise_described(error)
            raise
        finally:
            self._give_back(connection)

    def _take(self, *, check: bool) -> DriverConnection:
        while self._idle:
            with suppress(IndexError):  # another thread was faster
                connection = self._idle.pop()
                if not check or self._backend.is_alive(connection):
                    return connection
        try:
            return self._backend.connect(read_only=True)
        except self._backend.errors as error:
            raise self._backend.describe(error) from error

    def _give_back(self, connection: DriverConnection) -> None:
        if not self._backend.is_lost(connection):
            self._idle.append(connection)
        if self._closed:
            self.close()

    def _raise_described(self, error: Exception) -> None:
        """Raise an error as a sentence for the user, unless it is a defect."""
        if self._backend.is_storage_error(error):
            raise self._backend.describe(error) from error
