"""The engine that gives work to workers: Procrastinate, in a schema of its own.

What lies with the engine are tokens: "the next study of this job from this archive", "the next rows of this
job", "the next files of this job". A ledger's claims decide what a token stands for, so that one that is
delivered twice, or late, finds something else or nothing. A token is deleted when its work has ended; that of
a worker that vanished is given to another one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import procrastinate
import psycopg
from procrastinate.exceptions import ConnectorException
from psycopg_pool import PoolTimeout

from dicom_quarry.cluster.engine_database import Connector, Tokens
from dicom_quarry.config.settings import COMMAND_PREFIX
from dicom_quarry.jobs.cluster.workers import ENGINE_SCHEMA
from dicom_quarry.system.service_loop import start_thread

_log = logging.getLogger(__name__)

#: Names of the queues and of the tasks. A queue of studies is that of an archive.
ROWS_QUEUE, ROWS_TASK, STUDY_TASK, COMMAND_TASK, FILES_TASK = "rows", "rows", "study", "command", "files"
_STUDIES = "studies:"

#: Seconds between two signs of life, and between two looks for the tokens of workers that vanished.
_BEAT_INTERVAL = 5.0
_RESCUE_INTERVAL = 5.0

#: Seconds between two looks for tokens. A notification comes sooner, unless its connection was lost.
_POLL_INTERVAL = 1.0

#: Seconds for which a connection of the pool is waited for.
_POOL_TIMEOUT = 5.0

#: Seconds before the engine's loop is begun again after it has lost the database.
_RESTART_INTERVAL = 1.0

#: Does the work of a token: the number of the job, and the archive, or the command, where there is one.
Work = Callable[[int, str], None]


def study_queue(archive: str) -> str:
    """Return the queue of an archive's studies."""
    return f"{_STUDIES}{archive}"


def is_command_queue(queue: str) -> bool:
    """Return True for the queue of a command for complete studies: it has the name of the command."""
    return queue.startswith(COMMAND_PREFIX)


def command_queue(name: str) -> str:
    """Return the queue of a command for complete studies."""
    return f"{COMMAND_PREFIX}{name}"


def archive_of(queue: str) -> str:
    """Return the archive of a queue of studies."""
    return queue.removeprefix(_STUDIES)


class Engine:
    """The engine's loops of one worker: one for each queue, with a thread for each of its tokens at once.

    ``threads`` is the number of tokens at once by queue, ``vanished_after`` is in seconds.
    """

    def __init__(
        self,
        conninfo: str,
        worker: str,
        threads: Mapping[str, int],
        work: Mapping[str, Work],
        *,
        vanished_after: float,
    ) -> None:
        self._conninfo = conninfo
        self._worker = worker
        self._threads = dict(threads)
        self._work = dict(work)
        self._vanished_after = vanished_after
        self._stopping = threading.Event()
        self._cancel: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Take tokens until ``stop``."""
        start_thread(self._thread)

    def stop(self) -> None:
        """Take no more tokens; return when the work on those that were taken has ended."""
        self._stopping.set()
        self._cancel()
        if self._thread.ident is not None:  # it was started
            self._thread.join()

    def _run(self) -> None:
        """Begin the loops again whenever they end: without the database they end as if they were stopped."""
        while not self._stopping.is_set():
            with asyncio.Runner() as runner:
                try:
                    runner.run(self._serve())
                except asyncio.CancelledError:
                    return
                except (ConnectorException, psycopg.Error, PoolTimeout) as error:
                    _log.warning("the engine has lost the database (%s)", type(error).__name__)
            self._stopping.wait(_RESTART_INTERVAL)

    async def _serve(self) -> None:
        """Take tokens until this is cancelled, or the database is lost."""
        loop, main = asyncio.get_running_loop(), asyncio.current_task()
        assert main is not None
        # asyncio's own executor has few threads, whatever the number of tokens at once.
        loop.set_default_executor(
            ThreadPoolExecutor(sum(self._threads.values()), thread_name_prefix="retrieve")
        )
        loop.set_exception_handler(_log_error)
        self._cancel = partial(_cancel_soon, loop, main)
        if self._stopping.is_set():
            return
        # The pool's own tries come at growing intervals, the longest of which would pass after the absence.
        await (await psycopg.AsyncConnection.connect(self._conninfo)).close()
        app = self._make_app()
        async with app.open_async():
            tasks = [asyncio.create_task(self._take_tokens(app, queue)) for queue in self._threads]
            tasks.append(asyncio.create_task(self._rescue(app)))
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # raises what has ended it
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _make_app(self) -> procrastinate.App:
        connector = Connector(
            conninfo=self._conninfo,
            min_size=1,
            # A listening connection for each queue, and one for what else it does.
            max_size=2 * len(self._threads) + 2,
            timeout=_POOL_TIMEOUT,
            reconnect_timeout=_POOL_TIMEOUT,
            # A crash of the server may lose the last tokens, or what became of them: the window is filled up
            # again, and a token that comes twice finds the claim of the first one.
            kwargs={"options": f"-c search_path={ENGINE_SCHEMA} -c timezone=UTC -c synchronous_commit=off"},
        )
        app = procrastinate.App(connector=connector)
        app.job_manager = Tokens(connector, self._stopping.is_set)
        for name, work in self._work.items():
            app.task(name=name)(partial(_do_work, work))
        return app

    async def _take_tokens(self, app: procrastinate.App, queue: str) -> None:
        await app.run_worker_async(
            queues=[queue],
            name=f"{self._worker} {queue}",
            concurrency=self._threads[queue],
            install_signal_handlers=False,
            delete_jobs="always",
            fetch_job_polling_interval=_POLL_INTERVAL,
            update_heartbeat_interval=min(_BEAT_INTERVAL, self._vanished_after / 4),
            stalled_worker_timeout=self._vanished_after,
        )

    async def _rescue(self, app: procrastinate.App) -> None:
        """Give the tokens of vanished workers to others; every worker looks for them."""
        while True:
            await asyncio.sleep(min(_RESCUE_INTERVAL, self._vanished_after / 4))
            stalled = await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=self._vanished_after)
            for token in stalled:
                with suppress(ConnectorException):  # another worker has just done so
                    await app.job_manager.retry_job(token)


def _log_error(_: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
    """Log an error of the engine in a line: it may have given a token to another worker meanwhile."""
    error = context.get("exception")
    reason = getattr(error, "__cause__", None) or error or context.get("message")
    _log.warning("the engine: %s", " ".join(str(reason).split()))


def _cancel_soon(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(task.cancel)


def _do_work(work: Work, job: int, archive: str = "") -> None:
    work(job, archive)
