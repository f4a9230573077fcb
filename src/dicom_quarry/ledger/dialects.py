"""The differences in SQL between SQLite and PostgreSQL: INSERTs, two functions, and roles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ClauseElement, Column, Connection, Executable, Integer, Select, Table, Text
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

#: Has what a transaction makes belong to the role of a schema, whichever of its members it is.
AS_OWNER = "SELECT set_config('role', pg_get_userbyid(nspowner), true) FROM pg_namespace WHERE nspname = "


def act_as_owner(connection: Connection) -> None:
    """Be the role of the ledger's schema until the end of the transaction; a file has no roles."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"{AS_OWNER}current_schema()")


@dataclass(frozen=True, slots=True)
class InsertNew:
    """An INSERT that leaves a row as it is if there is one with the same key; PostgreSQL returns ``key``.

    The rows are those of the query ``source``, with all columns of the table, if there is one.
    """

    table: Table
    key: Column[int] | None = None
    source: Select[Any] | None = None

    def for_dialect(self, dialect: Dialect) -> ClauseElement:
        """Return the dialect's own statement; SQLite gives the key without RETURNING, which 3.34 lacks."""
        names = [column.name for column in self.table.columns]
        if dialect.name == "sqlite":
            made = sqlite.insert(self.table)
            return (
                made if self.source is None else made.from_select(names, self.source)
            ).on_conflict_do_nothing()
        from sqlalchemy.dialects import postgresql  # only where there is a server

        statement = postgresql.insert(self.table)
        if self.source is not None:
            statement = statement.from_select(names, self.source)
        statement = statement.on_conflict_do_nothing()
        return statement.inline() if self.key is None else statement.returning(self.key)


def upsert(table: Table, rows: Sequence[Mapping[str, object]], dialect: Dialect) -> Executable:
    """Return the INSERT of rows that replace those with the same keys.

    With a DELETE before it, two processes could not write a new row at once: each finds none to delete.
    """
    make: Callable[[Table], Any] = sqlite.insert
    if dialect.name != "sqlite":
        from sqlalchemy.dialects import postgresql  # only where there is a server

        make = postgresql.insert
    statement = make(table).values(rows)
    values = {column.name: statement.excluded[column.name] for column in table.c if not column.primary_key}
    found: Executable = statement.on_conflict_do_update(index_elements=table.primary_key.columns, set_=values)
    return found


class join_distinct(FunctionElement[str]):
    """The different texts of a group, with commas between them, in any order."""

    type = Text()
    inherit_cache = True


@compiles(join_distinct, "sqlite")
def _join_on_sqlite(element: join_distinct, compiler: SQLCompiler, **options: Any) -> str:
    return f"group_concat(DISTINCT {compiler.process(element.clauses, **options)})"


@compiles(join_distinct, "postgresql")
def _join_on_postgresql(element: join_distinct, compiler: SQLCompiler, **options: Any) -> str:
    return f"string_agg(DISTINCT {compiler.process(element.clauses, **options)}, ',')"


class whole(FunctionElement[int]):
    """A positive number without its fraction."""

    type = Integer()
    inherit_cache = True


@compiles(whole, "sqlite")
def _whole_on_sqlite(element: whole, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS INTEGER)"


@compiles(whole, "postgresql")
def _whole_on_postgresql(element: whole, compiler: SQLCompiler, **options: Any) -> str:
    # A cast would round.
    return f"CAST(floor({compiler.process(element.clauses, **options)}) AS BIGINT)"
