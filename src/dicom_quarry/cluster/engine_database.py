"""The engine's talk with the database, which may go away and come back in the midst of it.

Of Procrastinate's loops a part that meets a lost connection ends, and nothing notices it: signs of life stop,
notifications do not come any more, a token stays in work for ever. Here each part goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

import procrastinate
import psycopg
from procrastinate.connector import Notify
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from procrastinate.utils import utcnow

_log = logging.getLogger(__name__)

#: Seconds between two tries.
_RETRY_INTERVAL = 1.0

_LOST = """
SELECT id FROM procrastinate_jobs
WHERE worker_id = %(worker)s AND status = 'doing' AND id <> ALL (%(held)s)
"""


def is_away(error: ConnectorException) -> bool:
    """Return True if a statement failed because the database is away, and not for what it says."""
    return isinstance(error.__cause__, (psycopg.OperationalError, psycopg.InterfaceError))


class Connector(procrastinate.PsycopgConnector):
    """Listens again after a lost connection."""

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        """Listen until this is cancelled."""
        channels = list(channels)
        while True:
            try:
                await super().listen_notify(on_notification, channels)
            except ConnectorException as error:
                if not is_away(error):
                    raise
            await asyncio.sleep(_RETRY_INTERVAL)


class Tokens(JobManager):
    """The statements about tokens and workers; ``is_stopping`` ends the wait for a database that is away."""

    def __init__(self, connector: Connector, is_stopping: Callable[[], bool]) -> None:
        super().__init__(connector)
        self._is_stopping = is_stopping
        #: The tokens in work, the loops, and those of them that may have tokens of which they do not know:
        #: an answer was lost, or the end of a token.
        self._held: set[int] = set()
        self._loops: set[int] = set()
        self._in_doubt: set[int] = set()

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        """Take a token; none while the database is away."""
        self._loops.add(worker_id)
        try:
            if worker_id in self._in_doubt:
                await self._give_back_lost(worker_id)
            token = await super().fetch_job(queues=queues, worker_id=worker_id)
        except ConnectorException as error:
            self._note_absence(error)
            _log.warning("the engine: the database does not answer; trying again")
            return None
        if token is not None and token.id is not None:
            self._held.add(token.id)
        return token

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        """End a token; wait for a database that is away."""
        try:
            while True:
                try:
                    return await super().finish_job(job=job, status=status, delete_job=delete_job)
                except ConnectorException as error:
                    self._note_absence(error)
                    if self._is_stopping():
                        raise
                await asyncio.sleep(_RETRY_INTERVAL)
        finally:
            self._held.discard(job.id or 0)

    async def update_heartbeat(self, worker_id: int) -> None:
        """Give a sign of life, if the database is there."""
        try:
            await super().update_heartbeat(worker_id=worker_id)
        except ConnectorException as error:
            self._note_absence(error)

    async def list_jobs_to_abort_async(self, queue: str | None = None) -> Iterable[int]:  # noqa: ARG002
        """Return none: a job that is stopped cancels its retrievals itself."""
        return ()

    def _note_absence(self, error: ConnectorException) -> None:
        """Raise an error that is none of an absence of the database."""
        if not is_away(error):
            raise error
        self._in_doubt |= self._loops

    async def _give_back_lost(self, worker_id: int) -> None:
        """Give back the tokens of a loop of which it does not know."""
        rows = await self.connector.execute_query_all_async(_LOST, worker=worker_id, held=[*self._held])
        for row in rows:
            await self.retry_job_by_id_async(job_id=row["id"], retry_at=utcnow())
        self._in_doubt.discard(worker_id)
