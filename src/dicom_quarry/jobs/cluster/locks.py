"""Locks of a job in the database. The server releases a lock when the connection of its process ends."""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from typing import Any, Self

from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.system.locks import LockHeld

#: Seconds between two attempts at a lock that another process has.
_POLL_INTERVAL = 0.1


def lock_key(name: str) -> int:
    """Return the number of a kind of lock: the first of an advisory lock's two, the second is the job's."""
    return zlib.crc32(f"quarry {name}".encode()) & 0x7FFFFFFF


def try_lock(connection: Any, name: str, number: int) -> bool:
    """Lock a job for one kind of work, until the connection ends; False if another process has the lock."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (lock_key(name), number)).fetchone()
    return bool(row[0])


class AdvisoryLock:
    """A lock of a job, with a connection of its own; as a context manager it waits for the lock."""

    def __init__(self, cluster: Cluster, name: str, number: int) -> None:
        self._cluster = cluster
        self._name = name
        self._number = number
        self._connection: Any = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self, timeout: float | None = None) -> None:
        """Wait up to ``timeout`` seconds, None for ever; raise LockHeld then, and LedgerError."""
        connection = self._cluster.open_connection()
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while not try_lock(connection, self._name, self._number):
                if deadline is not None and time.monotonic() >= deadline:
                    raise LockHeld(Path(self._name), None)
                time.sleep(_POLL_INTERVAL)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def release(self) -> None:
        """Give the lock back, if this has it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
