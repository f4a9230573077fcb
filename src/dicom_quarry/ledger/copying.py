"""The rows of one ledger, for another one in another database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Table, delete, func, insert, select, text

from dicom_quarry.ledger.backend import backend_of
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.schema import job, metadata

#: Rows that are read and inserted at once.
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class LedgerRows:
    """The rows of a ledger at one moment; ``metadata`` are the facts about its job, which are no rows."""

    connection: Connection
    metadata: Mapping[str, str]

    def replace(self, other: Connection) -> None:
        """Replace the rows of a ledger on PostgreSQL, without facts about a job, by these."""
        tables = [table for table in metadata.sorted_tables if table is not job]
        for table in reversed(tables):
            other.execute(delete(table))
        for table in tables:
            self._copy(table, other)

    def _copy(self, table: Table, other: Connection) -> None:
        for rows in self.connection.execute(select(table)).mappings().partitions(_CHUNK):
            other.execute(insert(table), [dict(row) for row in rows])
        if table.autoincrement_column is not None:  # its next number is behind those that were copied
            last = select(func.max(table.autoincrement_column)).scalar_subquery()
            sequence = func.pg_get_serial_sequence(table.name, table.autoincrement_column.name)
            other.execute(select(func.setval(sequence, func.coalesce(last, 0) + 1, text("false"))))


@contextmanager
def snapshot_of(location: LedgerLocation) -> Iterator[LedgerRows]:
    """Lend the rows of a ledger."""
    engine = backend_of(location).open_engine(read_only=True)
    try:
        with engine.connect() as connection:
            facts = {row.name: row.value for row in connection.execute(select(job))}
            yield LedgerRows(connection, facts)
    finally:
        engine.dispose()
