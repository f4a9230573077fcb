"""Statements of the hot path: written with SQLAlchemy Core, compiled once, run by the driver itself.

SQLite runs most of them in less than ten microseconds. To build a statement with SQLAlchemy for each
execution would take the interpreter, which all threads share, twenty times as long. On PostgreSQL a
statement is sent when its result is looked at, with all that wait: see ``pipelined.py``.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from typing import Any, NamedTuple, cast

from sqlalchemy import ClauseElement, Connection, Float, LargeBinary, SelectBase
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from dicom_quarry.ledger.backend import DriverConnection, driver_connection
from dicom_quarry.ledger.dialects import InsertNew

_SQLITE = SQLiteDialect_pysqlite(paramstyle="named")

#: PostgreSQL's numbers of the types that its texts do not name; 0 is for the others.
_TYPE_NUMBERS = {Float: 701, LargeBinary: 17}


@cache
def _postgresql(paramstyle: str) -> Dialect:
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg  # only where there is a server

    return PGDialect_psycopg(paramstyle=paramstyle)  # type: ignore[no-untyped-call]


class NumberedText(NamedTuple):
    """A statement for PostgreSQL itself, with $1 for the first of ``names``; ``fixed`` has values of some."""

    sql: bytes
    names: tuple[str, ...]
    types: tuple[int, ...]
    fixed: Mapping[str, object]


class CompiledStatement:
    """A statement that is compiled once a database; values of its ``bindparam``s and ``columns`` have names.

    ``columns`` are those that an INSERT or UPDATE sets. The statement is compiled when it is first run, so
    that unused ones do not delay the start of a command. The driver gets and returns values without
    conversion, which the types of the schema do not need (see the tests).
    """

    def __init__(self, statement: ClauseElement | InsertNew, *columns: str) -> None:
        self._statement = statement
        self._columns = columns

    def run(self, connection: Connection, **values: object) -> Any:
        """Run the statement in the transaction of a SQLAlchemy connection; return the driver's cursor."""
        return self.execute(driver_connection(connection), values)

    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Run the statement for each of the rows, in the transaction of a SQLAlchemy connection."""
        below: Any = driver_connection(connection)
        if isinstance(below, sqlite3.Connection):
            sql, fixed = self._for_sqlite
            below.executemany(sql, [{**fixed, **row} for row in rows] if fixed else rows)
            return
        for row in rows:
            below.send(self._for_postgresql, row)

    def find(self, connection: Connection, **values: object) -> Iterable[Any]:
        """Return the rows of a query as tuples, as they are before what is run next."""
        found = self.run(connection, **values)
        return found.fetchall() if isinstance(found, sqlite3.Cursor) else found

    def require_one(self, connection: Connection, error: Exception, **values: object) -> None:
        """Raise the error, at the latest before the commit, unless one row is changed, or found."""
        found = self.run(connection, **values)
        if not isinstance(found, sqlite3.Cursor):
            found.require_one(error)
        elif (found.rowcount if found.description is None else len(found.fetchall())) != 1:
            raise error

    def execute(self, connection: DriverConnection, values: Mapping[str, object]) -> Any:
        """Run the statement on a connection of the driver; return its cursor."""
        if isinstance(connection, sqlite3.Connection):
            sql, fixed = self._for_sqlite
            return connection.execute(sql, {**fixed, **values} if fixed else values)
        return cast(Any, connection).send(self._for_postgresql, values)

    def fetch_all(self, connection: DriverConnection, **values: object) -> list[Any]:
        """Return all rows on a connection of the driver, as named tuples."""
        return list(map(self.make_row, self.execute(connection, values)))

    def for_stream(self, connection: DriverConnection) -> tuple[str, dict[str, object]]:
        """Return the text for a cursor of the driver, and the values that are fixed in the statement."""
        return self._for_sqlite if isinstance(connection, sqlite3.Connection) else self._for_psycopg

    @cached_property
    def make_row(self) -> Callable[[Iterable[object]], Any]:
        """The function that makes a named tuple of a row of the driver."""
        assert isinstance(self._statement, SelectBase)
        row: Any = namedtuple("Row", self._statement.selected_columns.keys())  # type: ignore[misc]
        return cast(Callable[[Iterable[object]], Any], row._make)

    # Two threads may both compile a statement.

    @cached_property
    def _for_sqlite(self) -> tuple[str, dict[str, object]]:
        compiled, fixed = self._compile(_SQLITE)
        return str(compiled), fixed

    @cached_property
    def _for_psycopg(self) -> tuple[str, dict[str, object]]:
        compiled, fixed = self._compile(_postgresql("pyformat"))
        return str(compiled), fixed

    @cached_property
    def _for_postgresql(self) -> NumberedText:
        compiled, fixed = self._compile(_postgresql("numeric_dollar"))
        names = tuple(compiled.positiontup or ())
        # SQLAlchemy takes the number in ``column * 1.0`` for one of the column's type.
        kinds = [
            Float if type(fixed.get(name)) is float else type(compiled.binds[name].type) for name in names
        ]
        types = tuple(_TYPE_NUMBERS.get(kind, 0) for kind in kinds)
        return NumberedText(str(compiled).encode(), names, types, fixed)

    def _compile(self, dialect: Dialect) -> tuple[SQLCompiler, dict[str, object]]:
        statement = self._statement
        if isinstance(statement, InsertNew):
            statement = statement.for_dialect(dialect)
        elif isinstance(statement, Insert):
            statement = statement.inline()  # without PostgreSQL's RETURNING of the primary key
        compiled = statement.compile(dialect=dialect, column_keys=self._columns or None)
        assert isinstance(compiled, SQLCompiler)
        fixed = {name: value for name, value in compiled.params.items() if not compiled.binds[name].required}
        for column in compiled.insert_prefetch:
            fixed[column.key] = cast(ScalarElementColumnDefault, column.default).arg
        return compiled, fixed


def new_id(inserted: Any) -> int | None:
    """Return the id of the row of an InsertNew that was run, None if there was such a row before."""
    if isinstance(inserted, sqlite3.Cursor):
        return inserted.lastrowid if inserted.rowcount == 1 else None
    row = inserted.fetchone()
    return row[0] if row else None
