"""Questions put to archives one after another, without a receiver: for a plan, and to look again."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from dicom_quarry.cohort.exclusion_list import NO_EXCLUSIONS, ExclusionList
from dicom_quarry.config.settings import Settings
from dicom_quarry.extraction.job_context import ArchiveClient
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.jobs.progress import QueryProgress, StatusBoard
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.shutdown import Shutdown, Stopped

#: Seconds between two looks at who asks.
_POLL_INTERVAL = 0.25


@dataclass(frozen=True, slots=True)
class QueryContext:
    """What questions are put with: the settings, manners and ears of a run."""

    settings: Settings
    throttles: Mapping[str, ArchiveThrottle]
    shutdown: Shutdown
    status_board: StatusBoard
    observer: JobObserver
    exclusions: ExclusionList = NO_EXCLUSIONS


class QueryThread(threading.Thread):
    """A thread that asks until nothing is left to ask, or it is stopped; ``error`` is what ended it before.

    ``settled`` counts what was answered and is durable.
    """

    def __init__(self, name: str, clients: Mapping[str, ArchiveClient], shutdown: Shutdown) -> None:
        super().__init__(name=name, daemon=True)
        self.clients = clients
        self.shutdown = shutdown
        self.completed = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        """Ask."""
        try:
            self.run_queries()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever ends the thread is raised by who waits for it
            self.error = error
        finally:
            for client in self.clients.values():
                client.archive.release_thread()

    @abstractmethod
    def run_queries(self) -> None:
        """Put the questions; may raise Stopped."""


def run_with_progress(
    context: QueryContext, thread: QueryThread, unit: str, total: int, already_done: int
) -> None:
    """Tell how it gets on, to its end; raises the error that ended it.

    ``number`` of ``what``, rows or the like, are asked about; ``before`` were in an earlier run.
    """
    began, stop_reported = time.monotonic(), False
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_INTERVAL)
        if context.shutdown.requested and not stop_reported:
            stop_reported = True
            context.status_board.report("stopping: run the same command again to go on")
        if context.shutdown.cancel_requested:
            for client in thread.clients.values():
                client.archive.close()
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
