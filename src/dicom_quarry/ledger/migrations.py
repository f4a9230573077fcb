"""The version of a ledger's schema, and the functions that upgrade an older ledger.

A ledger names its version in the table ``schema_version``. Version 1 is the schema of Quarry 0.1.0. To change
the schema, change schema.py and append a function to ``MIGRATIONS``. A function gets a connection within the
transaction of the whole upgrade; it uses SQLAlchemy Core, so that it serves other databases than SQLite too.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    insert,
    inspect,
    select,
    text,
    update,
)

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.dialects import act_as_owner
from dicom_quarry.ledger.schema import job, metadata


def _add_claims(connection: Connection) -> None:
    """Add the claims of workers."""
    big = BigInteger().with_variant(Integer, "sqlite")
    words = Text().with_variant(Text(collation="C"), "postgresql")
    Table(
        "claims",
        MetaData(),
        Column("kind", words, primary_key=True),
        Column("item", big, primary_key=True, autoincrement=False),
        Column("worker", words, nullable=False),
        Column("number", big, nullable=False),
        Column("claimed_at", Float, nullable=False),
        sqlite_with_rowid=False,
    ).create(connection)


def _add_indexes_of_waiting_tasks(connection: Connection) -> None:
    """Replace the index of all tasks by two of those that wait: for all archives, and for one."""
    tasks = Table("tasks", MetaData(), autoload_with=connection)
    next(index for index in tasks.indexes if index.name == "tasks_by_state").drop(connection)
    in_order = tasks.c.not_before, tasks.c.id
    for name, columns, where in (
        ("tasks_waiting", in_order, text("state = 'waiting' AND id + 0 > 0")),
        ("tasks_waiting_for_archive", (tasks.c.archive, *in_order), text("state = 'waiting'")),
    ):
        Index(name, *columns, sqlite_where=where, postgresql_where=where).create(connection)


#: The function at index n upgrades a ledger of version n + 1 to version n + 2.
MIGRATIONS: list[Callable[[Connection], None]] = [_add_claims, _add_indexes_of_waiting_tasks]

_schema_version = Table("schema_version", MetaData(), Column("version", Integer, nullable=False))

#: The version of a ledger.
VERSION = CompiledStatement(select(_schema_version.c.version))


def schema_version() -> int:
    """Return the version of a ledger that this build of Quarry writes."""
    return 1 + len(MIGRATIONS)


def create_or_upgrade(connection: Connection, *, upgrades: bool = True) -> None:
    """Create the tables, or upgrade those of an older version of Quarry.

    Raises LedgerError if the ledger is of a newer version, or of one before version 1; of any older one
    unless this ``upgrades``.
    """
    if not inspect(connection).get_table_names():
        metadata.create_all(connection)
        _schema_version.create(connection)
        connection.execute(insert(_schema_version).values(version=schema_version()))
        return
    found = _read_version(connection)
    if found < schema_version() and not upgrades:
        raise LedgerError(describe_older(found))
    if found < schema_version():
        act_as_owner(connection)
        for migrate in MIGRATIONS[found - 1 :]:
            migrate(connection)
        connection.execute(update(_schema_version).values(version=schema_version()))


def describe_older(found: int) -> str:
    """Return the message about a ledger that others may be working on, in its older version."""
    return (
        f"the record of this job is of an older version of Quarry (ledger {found}, this one writes "
        f"{schema_version()}): have it upgraded by its role with  quarry cluster upgrade"
    )


def is_outdated(connection: Connection, *, upgrades: bool) -> bool:
    """Return True if the ledger must be upgraded before it is read.

    Raises LedgerError as ``create_or_upgrade`` does.
    """
    found = _read_version(connection)
    if found < schema_version() and not upgrades:
        raise LedgerError(describe_older(found))
    return found < schema_version()


def _read_version(connection: Connection) -> int:
    tables = inspect(connection)
    if tables.has_table(job.name) and not tables.has_table(_schema_version.name):
        raise LedgerError(
            "this job was written by a build of Quarry before 0.1.0, whose record this version cannot read; "
            "finish the job with that build, or extract to a new folder"
        )
    found = connection.scalar(select(_schema_version.c.version)) or 0
    if not 0 < found <= schema_version():
        raise LedgerError(
            f"this job was written by a newer version of Quarry (ledger {found}, this one knows "
            f"{schema_version()}); upgrade Quarry to go on with it"
        )
    return found
