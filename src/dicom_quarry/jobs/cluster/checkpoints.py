"""The checkpoints of verifications as rows: any host with the images can go on where another one stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.cluster.locks import AdvisoryLock

#: Findings that are read at once.
_PAGE = 1000


class CheckpointRows:
    """A document and findings in the schema of a job."""

    def __init__(self, cluster: Cluster, number: int, name: str, folder: Path) -> None:
        self.folder = folder
        self._cluster = cluster
        self._name = name
        schema = cluster.location(number).schema
        self._documents, self._findings = f"{schema}.checkpoints", f"{schema}.checkpoint_findings"
        self._lock = AdvisoryLock(cluster, f"checkpoint {name}", number)
        self._connection: Any = None
        self._pending: list[tuple[str, int, str]] = []
        self._length = 0

    def acquire(self) -> None:
        """Take a lock in the database, and open a connection."""
        self._lock.acquire(timeout=0)
        self._connection = self._cluster.open_connection()

    def load(self) -> Any:
        """Read the document."""
        found = self._execute(
            f"SELECT document FROM {self._documents} WHERE name = %s", self._name
        ).fetchone()
        try:
            return json.loads(found[0]) if found else None
        except ValueError:
            return None

    def has_findings(self, length: int) -> bool:
        """Count the rows."""
        found = self._execute(f"SELECT count(*) FROM {self._findings} WHERE name = %s", self._name).fetchone()
        return bool(found[0] >= length)

    def begin(self, length: int) -> None:
        """Delete the rows beyond a length."""
        self._execute(f"DELETE FROM {self._findings} WHERE name = %s AND number > %s", self._name, length)
        self._length = length

    def add(self, finding: Mapping[str, Any]) -> None:
        """Keep a row for the next document."""
        self._length += 1
        self._pending.append((self._name, self._length, json.dumps(finding)))

    def length(self) -> int:
        """Return the number of findings."""
        return self._length

    def save(self, document: Mapping[str, Any]) -> None:
        """Write the rows and the document in one transaction."""
        with self._cluster.described(), self._connection.transaction():
            self._insert_pending()
            self._connection.execute(
                f"INSERT INTO {self._documents} (name, document) VALUES (%s, %s)"
                " ON CONFLICT (name) DO UPDATE SET document = excluded.document",
                (self._name, json.dumps(document)),
            )

    def findings(self) -> Iterator[dict[str, Any]]:
        """Read the rows, some at a time."""
        with self._cluster.described(), self._connection.transaction():
            self._insert_pending()
        last = 0
        while rows := self._execute(
            f"SELECT number, finding FROM {self._findings} WHERE name = %s AND number > %s"
            f" ORDER BY number LIMIT {_PAGE}",
            self._name,
            last,
        ).fetchall():
            last = rows[-1][0]
            yield from (json.loads(finding) for _, finding in rows)

    def remove(self) -> None:
        """Delete the rows."""
        with self._cluster.described(), self._connection.transaction():
            for table in (self._documents, self._findings):
                self._connection.execute(f"DELETE FROM {table} WHERE name = %s", (self._name,))

    def close(self) -> None:
        """Close the connection, and release the lock."""
        self._connection.close()
        self._lock.release()

    def _insert_pending(self) -> None:
        statement = f"INSERT INTO {self._findings} (name, number, finding) VALUES (%s, %s, %s)"
        self._connection.cursor().executemany(statement, self._pending)
        self._pending.clear()

    def _execute(self, sql: str, *values: object) -> Any:
        with self._cluster.described():
            return self._connection.execute(sql, values)
