"""The workers of a database: who they are, what they take, and when they last gave a sign of life."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from dicom_quarry.errors import StartError
from dicom_quarry.jobs.cluster.versions import Revision, format_revision
from dicom_quarry.system.worker_identity import is_gone
from dicom_quarry.version import __version__

#: The engine's schema, whose functions name its tables without one, and its table of work.
ENGINE_SCHEMA = "quarry_engine"
ENGINE_TABLE = f"{ENGINE_SCHEMA}.procrastinate_jobs"

#: The queue of the comparisons of files: any worker takes it that has the folder of the job.
FILES_QUEUE: Final = "files"

#: Seconds since the last sign of life. While the server was down nobody could give one.
SILENCE = (
    "extract(epoch FROM clock_timestamp() - greatest(beat, pg_postmaster_start_time()))::double precision"
)

_ADD = """
INSERT INTO quarry.workers
    (name, identity, host, process, receiver, root, queues, version, vanished_after, revision, archives)
VALUES (%(name)s, %(identity)s, %(host)s, %(process)s, %(receiver)s, %(root)s, %(queues)s::jsonb, %(version)s,
    %(vanished_after)s, %(revision)s, %(archives)s::jsonb)
ON CONFLICT (name) DO UPDATE
SET queues = EXCLUDED.queues, beat = clock_timestamp(), state = %(state)s, idle = %(idle)s,
    archives = EXCLUDED.archives
WHERE workers.identity = EXCLUDED.identity
"""
_LIST = f"""
SELECT name, identity, host, process, receiver, root, queues, version, vanished_after, started, state,
    archives, {SILENCE} AS silent, revision, idle
FROM quarry.workers ORDER BY name
"""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker: ``receiver`` is its AE title and port, ``root`` the folder below which it may write.

    ``identity`` is in its claims, ``queues`` is the number of tokens at once by queue, ``archives`` is what
    it knows of each, by name, ``silent`` are the seconds since its last sign of life. ``revision`` is that of
    the databases with which it works, ``idle`` is True while it has no job open and takes none.
    """

    name: str
    identity: str
    host: str
    process: int
    receiver: str
    root: str
    queues: Mapping[str, int]
    version: str
    vanished_after: float
    started: datetime
    state: str
    archives: Mapping[str, Any]
    silent: float
    revision: str
    idle: bool

    @property
    def has_vanished(self) -> bool:
        """True if its studies are given to others."""
        return self.silent >= self.vanished_after

    def reason_to_leave(self, label: str) -> str:
        """Return why it leaves a job to the others; empty if it does not."""
        return self.state.partition(f"{label}: ")[2].partition("; job:")[0]


@dataclass(frozen=True, slots=True)
class Registration:
    """This process as a worker; ``identity`` is that of its claims, ``vanished_after`` is in seconds.

    ``revision`` is that of the databases with which it works.
    """

    name: str
    identity: str
    receiver: str
    root: str
    vanished_after: float = 30.0
    revision: Revision = ()

    def enter(self, connection: Any) -> None:
        """Enter the list; raise StartError if a living worker has the name, which is that of the receiver."""
        with connection.transaction():
            found = [one for one in list_workers(connection) if one.name == self.name]
            if found and not found[0].has_vanished and not is_gone(found[0].identity):
                raise StartError(
                    f"a worker {self.name} runs already: process {found[0].process} on {found[0].host}. Give "
                    "this one an AE title of its own, with --as; if that one was killed, it is given up "
                    f"after {found[0].vanished_after:g} s without a sign of life"
                )
            connection.execute("DELETE FROM quarry.workers WHERE name = %s", (self.name,))
            self.beat(connection, {})

    def beat(
        self,
        connection: Any,
        queues: Mapping[str, int],
        state: str = "",
        archives: Mapping[str, Any] | None = None,
        *,
        idle: bool = False,
    ) -> bool:
        """Give a sign of life; ``queues`` is what it takes now, and ``state`` what it waits for.

        ``idle``: it has no job open, and takes none.

        Returns False if another worker has taken the name, as from one that was frozen for long.
        """
        values = {
            "name": self.name,
            "identity": self.identity,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "receiver": self.receiver,
            "root": self.root,
            "queues": json.dumps(dict(queues)),
            "version": __version__,
            "vanished_after": self.vanished_after,
            "state": state,
            "archives": json.dumps(archives or {}),
            "revision": format_revision(self.revision),
            "idle": idle,
        }
        return bool(connection.execute(_ADD, values).rowcount)

    def remove(self, connection: Any) -> None:
        """Leave the list."""
        connection.execute(
            "DELETE FROM quarry.workers WHERE name = %s AND identity = %s", (self.name, self.identity)
        )


def list_workers(connection: Any) -> list[WorkerRow]:
    """Return all workers, by name; those that vanished, too."""
    return [WorkerRow(*row) for row in connection.execute(_LIST)]


def describe_missing_worker(workers: Sequence[WorkerRow], label: str) -> str:
    """Return what a job waits for while no living worker works on it; empty if one may."""
    living = [one for one in workers if not one.has_vanished]
    if not living:
        return "a worker: none gives signs of life"
    reasons = {one.name: one.reason_to_leave(label) for one in living}
    if not all(reasons.values()):
        return ""
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return f"a worker that can work on it: {listed}"


def find_refusals(workers: Sequence[WorkerRow], since: float, label: str) -> dict[str, str]:
    """Return the archives that no living worker can use before a person has acted, each with the reasons.

    ``since``: each worker has tried it after this time of the database. Workers that leave the job of the
    ``label`` to others do not count.
    """
    living = [one for one in workers if not (one.has_vanished or one.reason_to_leave(label))]
    if not all(one.archives for one in living):
        return {}  # one has just started
    known: dict[str, dict[str, str]] = defaultdict(dict)
    for one in living:
        for archive, facts in one.archives.items():
            is_new = facts.get("refused_at", 0.0) > since
            known[archive][one.name] = facts.get("refusal", "") if is_new else ""
    return {
        archive: "; ".join(f"{worker}: {reason.rstrip('.')}" for worker, reason in reasons.items())
        for archive, reasons in known.items()
        if all(reasons.values())
    }


def list_roots(connection: Any) -> list[str]:
    """Return the roots of the workers that give signs of life."""
    return sorted({one.root for one in list_workers(connection) if not one.has_vanished})


def forget_vanished(connection: Any, seconds: float = 86400.0) -> None:
    """Remove the workers that vanished long ago."""
    connection.execute(
        "DELETE FROM quarry.workers WHERE beat < clock_timestamp() - %s * interval '1 s'", (seconds,)
    )


def total_capacity(workers: Sequence[WorkerRow]) -> Counter[str]:
    """Return the number of tokens at once, of the workers that are there, by queue."""
    total: Counter[str] = Counter()
    for worker in workers:
        if not worker.has_vanished:
            total.update(worker.queues)
    return total
