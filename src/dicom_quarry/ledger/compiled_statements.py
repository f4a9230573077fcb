"""Statements of the hot path: written with SQLAlchemy Core, compiled once, run by the driver itself.

SQLite answers most of them in less than ten microseconds; to build one, and what SQLAlchemy keeps of each
execution, takes twenty times that of the one interpreter that all threads share.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, cast

from sqlalchemy import ClauseElement, Connection, SelectBase
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.schema import ScalarElementColumnDefault

_DIALECT = SQLiteDialect_pysqlite(paramstyle="named")


class CompiledStatement:
    """A statement whose ``bindparam``s, and ``columns`` that an INSERT or UPDATE sets, are given by name.

    It is compiled when it is first run, as what a command does not run should not delay its start. Values go
    to the driver, and come from it, as they are: no type of the schema needs more (see its tests).
    """

    def __init__(self, statement: ClauseElement, *columns: str) -> None:
        self._statement = statement
        self._columns = columns

    def run(self, connection: Connection, **values: object) -> sqlite3.Cursor:
        """Run it in the transaction of a SQLAlchemy connection."""
        return self.execute(driver_connection(connection), values)

    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Run it in that transaction for every one of the rows."""
        sql, fixed = self._compiled
        driver_connection(connection).executemany(sql, [fixed | row for row in rows] if fixed else rows)  # type: ignore[operator]

    def execute(self, connection: sqlite3.Connection, values: Mapping[str, object]) -> sqlite3.Cursor:
        """Run it on a connection of the driver."""
        sql, fixed = self._compiled
        return connection.execute(sql, {**fixed, **values} if fixed else values)

    def fetch_all(self, connection: sqlite3.Connection, **values: object) -> list[Any]:
        """All rows that it gives on a connection of the driver, as named tuples."""
        return list(map(self.make_row, self.execute(connection, values)))

    @cached_property
    def make_row(self) -> Callable[[Iterable[object]], Any]:
        """Makes a row of the driver's a named tuple."""
        assert isinstance(self._statement, SelectBase)
        row: Any = namedtuple("Row", self._statement.selected_columns.keys())  # type: ignore[misc]
        return cast(Callable[[Iterable[object]], Any], row._make)

    @cached_property
    def _compiled(self) -> tuple[str, dict[str, object]]:
        """The text, and the values that stand in the statement itself. Two threads may both make it."""
        compiled = self._statement.compile(dialect=_DIALECT, column_keys=self._columns or None)
        assert isinstance(compiled, SQLCompiler)
        fixed = {name: value for name, value in compiled.params.items() if not compiled.binds[name].required}
        for column in compiled.insert_prefetch:
            fixed[column.key] = cast(ScalarElementColumnDefault, column.default).arg
        return str(compiled), fixed


def driver_connection(connection: Connection) -> sqlite3.Connection:
    """The driver's connection below a SQLAlchemy one: what runs on either is in the same transaction."""
    return connection.connection.driver_connection  # type: ignore[return-value]
