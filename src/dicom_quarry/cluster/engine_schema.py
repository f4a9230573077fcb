"""The engine's tables: made, and upgraded by the engine's own statements in their order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import psycopg
from procrastinate.schema import SchemaManager

from dicom_quarry.jobs.cluster.versions import Revision, own_revision
from dicom_quarry.jobs.cluster.workers import ENGINE_SCHEMA, ENGINE_TABLE

#: A file of statements begins with the version of the engine and its place within it: 03.04.00_50_post_….
_NUMBERS: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)_(\d+)_")

#: The revision of the engine whose tables were made before its revision was recorded.
_FIRST: Final = (3, 4, 0, 50)


def is_prepared(connection: psycopg.Connection) -> bool:
    """Return True if the tables of the engine are there."""
    return connection.execute("SELECT to_regclass(%s)", (ENGINE_TABLE,)).fetchone() != (None,)


def create_schema(connection: psycopg.Connection) -> bool:
    """Make the engine's schema and its tables; return False if they are there."""
    if is_prepared(connection):
        return False
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {ENGINE_SCHEMA}")
    with connection.transaction():
        connection.execute(f"SET LOCAL search_path = {ENGINE_SCHEMA}")
        connection.execute(SchemaManager.get_schema())
    return True


def upgrade_schema(connection: psycopg.Connection, found: Revision) -> None:
    """Upgrade the engine's tables within a transaction; ``found`` is the revision of the database."""
    before = found[2:] or _FIRST
    connection.execute(f"SET LOCAL search_path = {ENGINE_SCHEMA}")
    for numbers, path in _list_statements():
        if numbers > before:
            connection.execute(path.read_bytes())


def worker_revision() -> Revision:
    """Return the revision of this build, with the engine's part."""
    numbers, _ = _list_statements()[-1]
    return (*own_revision(), *numbers)


def _list_statements() -> list[tuple[Revision, Path]]:
    """Return the files with the engine's statements, in their order."""
    found = []
    for path in Path(SchemaManager.get_migrations_path()).glob("*.sql"):
        if match := _NUMBERS.match(path.name):
            found.append((tuple(map(int, match.groups())), path))
    return sorted(found)
