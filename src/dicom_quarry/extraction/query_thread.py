"""A thread of queries without a receiver, for a plan or a comparison with the archive, and its progress."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Mapping

from dicom_quarry.extraction.archive_client import ArchiveClient
from dicom_quarry.extraction.query_context import QueryContext
from dicom_quarry.jobs.progress import QueryProgress
from dicom_quarry.system.service_loop import start_thread
from dicom_quarry.system.shutdown import ABANDON_AFTER, Shutdown, Stopped

#: Seconds between two reports of the progress.
_POLL_INTERVAL = 0.25


class QueryThread(threading.Thread):
    """A thread that queries until nothing is left, or until it is stopped.

    ``completed`` counts the results that are durable; ``error`` is the exception that ended the thread.
    """

    def __init__(self, name: str, clients: Mapping[str, ArchiveClient], shutdown: Shutdown) -> None:
        super().__init__(name=name, daemon=True)
        self.clients = clients
        self.shutdown = shutdown
        self.completed = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        """Send the queries, then release the associations."""
        try:
            self.run_queries()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - run_with_progress raises it in the main thread
            self.error = error
        finally:
            for client in self.clients.values():
                client.archive.release_thread()

    @abstractmethod
    def run_queries(self) -> None:
        """Send the queries; may raise Stopped."""


def run_with_progress(
    context: QueryContext, thread: QueryThread, unit: str, total: int, already_done: int
) -> None:
    """Run a thread to its end and report its progress; raises the error that ended it.

    ``total`` is the number of rows or studies (``unit``); an earlier run queried ``already_done`` of them.
    """
    began, stop_reported = time.monotonic(), False
    start_thread(thread)
    while thread.is_alive():
        thread.join(_POLL_INTERVAL)
        if context.shutdown.requested and not stop_reported:
            stop_reported = True
            context.status_board.report("stopping; run the same command again to continue")
        if context.shutdown.cancel_requested:
            for client in thread.clients.values():
                client.archive.close()
        if context.shutdown.seconds_since_cancel >= ABANDON_AFTER:
            break
        for message in context.status_board.take_messages():
            context.observer.on_message(message)
        elapsed = time.monotonic() - began
        context.observer.on_query_progress(
            _query_progress(context, unit, total, already_done, thread.completed, elapsed)
        )
    if thread.error is not None:
        raise thread.error


def _query_progress(
    context: QueryContext, unit: str, total: int, already_done: int, completed: int, elapsed: float
) -> QueryProgress:
    rate = completed / max(elapsed, 0.001)
    return QueryProgress(
        unit=unit,
        total=total,
        done=already_done + completed,
        per_second=rate,
        seconds_left=(total - already_done - completed) / rate if completed else None,
        waiting_for=context.status_board.waiting_for,
        stopping=context.shutdown.requested,
    )
