"""The tables that a job in a database has besides its ledger: what is in files next to a SQLite ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Identity, MetaData, Table, Text, insert, select

from dicom_quarry.jobs.audit_log import COLUMNS, AuditLog
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.database import Database, Work
from dicom_quarry.ledger.dialects import act_as_owner
from dicom_quarry.ledger.location import PostgresLocation
from dicom_quarry.ledger.read_pool import ReadPool

_metadata = MetaData()

#: The audit log, in the order of ``id``; its cells are those of audit.csv.
audit = Table(
    "audit",
    _metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    *(Column(name, Text, nullable=False) for name in COLUMNS),
)

#: The positions and the findings of interrupted verifications, see checkpoints.py.
Table(
    "checkpoints",
    _metadata,
    Column("name", Text, primary_key=True),
    Column("document", Text, nullable=False),
)
Table(
    "checkpoint_findings",
    _metadata,
    Column("name", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("finding", Text, nullable=False),
)

#: The identifiers of the exclusion lists, see exclusions.py: many a row, as JSON, which has any character.
exclusions = Table(
    "exclusions",
    _metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("keyword", Text, nullable=False),
    Column("identifiers", Text, nullable=False),
)

_INSERT_AUDIT = CompiledStatement(insert(audit), *COLUMNS)
_SELECT_AUDIT = CompiledStatement(select(*(audit.c[name] for name in COLUMNS)).order_by(audit.c.id))


def create_tables(connection: Connection) -> None:
    """Make the tables that are not there."""
    act_as_owner(connection)
    _metadata.create_all(connection)


class AuditTable(AuditLog):
    """The audit log in a table of the job's schema.

    A line is committed before the ledger records the same event, or in the same transaction: a line is never
    missing, and lines have the order of their commits.
    """

    def __init__(self, database: Database, protocol: str) -> None:
        super().__init__(protocol)
        self._database = database

    def close(self) -> None:
        """Do nothing: each line is committed, and the ledger has the connection."""

    def _append_durably(self, cells: Sequence[str]) -> None:
        self._database.write(self._append_with(cells))

    def _append_with(self, cells: Sequence[str]) -> Work[object]:
        # As in a file: what is no text is escaped, and not refused.
        texts = [cell.encode("utf-8", "backslashreplace").decode() for cell in cells]
        line = dict(zip(COLUMNS, texts, strict=True))
        return lambda connection: _INSERT_AUDIT.run(connection, **line)


class _Lines(AuditLog):
    """The audit log for a single line, on a connection of the list of jobs."""

    def __init__(self, connection: Any, table: str, protocol: str) -> None:
        super().__init__(protocol)
        self._connection = connection
        self._table = table

    def close(self) -> None:
        """Do nothing: the connection is another's."""

    def _append_durably(self, cells: Sequence[str]) -> None:
        names = ", ".join(f'"{name}"' for name in COLUMNS)
        places = ", ".join(["%s"] * len(COLUMNS))
        self._connection.execute(f"INSERT INTO {self._table} ({names}) VALUES ({places})", list(cells))


def append_audit_line(connection: Any, schema: str, event: str, details: str) -> None:
    """Append a line within a transaction; nothing is done if this role may not write the log."""
    table = f"{schema}.audit"
    (may_write,) = connection.execute(
        "SELECT coalesce(has_table_privilege(to_regclass(%s), 'INSERT'), false)", (table,)
    ).fetchone()
    if not may_write:
        return
    (protocol,) = connection.execute(
        f"SELECT coalesce(max(value::jsonb ->> 'protocol'), '') FROM {schema}.job WHERE name = 'settings'"
    ).fetchone()
    _Lines(connection, table, protocol).write(event, details=details)


def read_audit_table(location: PostgresLocation) -> Iterator[dict[str, str]]:
    """Yield the records of the audit log, without empty cells; raise LedgerError."""
    with closing(ReadPool(location)) as pool:
        for row in pool.stream(_SELECT_AUDIT):
            yield {name: cell for name, cell in zip(COLUMNS, row, strict=True) if cell}
