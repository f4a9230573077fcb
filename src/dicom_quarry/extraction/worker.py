"""The means of a process to work on jobs: receiver, archive clients with their limits, and threads.

A job has its settings, ledger, audit log and store (``JobContext``). A worker runs the tasks of one job or of
several, which share its port and its limits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dicom_quarry.errors import InstanceRefused
from dicom_quarry.extraction.archive_client import ArchiveClient
from dicom_quarry.extraction.inbound_sink import InboundSink
from dicom_quarry.model import InstanceInfo, Writer
from dicom_quarry.receiver.stats import ReceiverStats

#: Studies of one thread whose files and outcomes are being made durable while the next one is retrieved.
MAX_ENDING: Final = 2

#: C-STORE status "not authorised" (PS3.7 C.5.20).
_NOT_AUTHORIZED = 0x0124

#: Seconds after which a thread that waits for its turn checks for the end of the job.
_POLL_INTERVAL = 0.5


class StudyTurns:
    """The studies in work on a worker: two tasks with the same study take turns, of one job or of two.

    The receiver gets the instances of both, and could not know for which of the two one was sent.
    """

    def __init__(self) -> None:
        self._owners: dict[str, object] = {}
        self._changed = threading.Condition()

    def take(self, study_uid: str, owner: object, check: Callable[[], None]) -> None:
        """Wait until no other owner has the study; ``check`` is called now and then, and may raise."""
        with self._changed:
            while self._owners.setdefault(study_uid, owner) is not owner:
                self._changed.wait(_POLL_INTERVAL)
                check()

    def end(self, study_uid: str, owner: object) -> None:
        """End a turn, unless it has ended."""
        with self._changed:
            if self._owners.get(study_uid) is owner:
                del self._owners[study_uid]
                self._changed.notify_all()


class StoredTotals(NamedTuple):
    """The totals of a worker's sinks: what they have stored, whatever the transport, and refused."""

    instances: int = 0
    size: int = 0
    refused: int = 0


class JobSinks:
    """The sink of a worker's receiver: each instance goes to the job that it was requested for."""

    def __init__(self, *sinks: InboundSink) -> None:
        self._sinks = sinks
        self._closed = StoredTotals()
        self._lock = threading.Lock()

    @property
    def totals(self) -> StoredTotals:
        """The totals of all sinks, those that are closed, too."""
        with self._lock:
            open_ones = (StoredTotals(*one.totals, one.refused) for one in self._sinks)
            return StoredTotals(*map(sum, zip(self._closed, *open_ones, strict=True)))

    @contextmanager
    def open(self, sink: InboundSink) -> Iterator[None]:
        """Receive for a job, too, while the context lasts."""
        with self._lock:
            self._sinks = (*self._sinks, sink)
        try:
            yield
        finally:
            with self._lock:
                ended = StoredTotals(*sink.totals, sink.refused)
                self._closed = StoredTotals(*map(sum, zip(self._closed, ended, strict=True)))
                self._sinks = tuple(one for one in self._sinks if one is not sink)

    def begin(self, arrival: InstanceInfo) -> Writer:
        """Start one instance. Raises InstanceRefused, or OutOfSpace.

        One that no request or list ties to a job goes to the first: it may have come late.
        """
        sinks = self._sinks
        if len(sinks) == 1:
            return sinks[0].begin(arrival)
        if not sinks:
            raise InstanceRefused("no job runs", status=_NOT_AUTHORIZED)
        return next((one for one in sinks if one.expects(arrival)), sinks[0]).begin(arrival)

    def add_sender(self, reason: str, *, is_lasting: bool) -> None:
        """Note a refused association in the log of every job: any of them may have waited for it."""
        for sink in self._sinks:
            sink.refusals.add_sender(reason, is_lasting=is_lasting)


@dataclass(frozen=True, slots=True)
class Worker:
    """The collaborators of the threads of a process, whatever job they work on.

    ``clients`` are the archives by name, in the order of the settings, each with its limits.
    ``receiver_stats`` returns the counters of the receiver. ``ending`` makes files and outcomes of studies
    durable while the next ones are retrieved.
    """

    clients: Mapping[str, ArchiveClient]
    receiver_stats: Callable[[], ReceiverStats]
    ending: Executor
    turns: StudyTurns = field(default_factory=StudyTurns)

    @property
    def max_parallel(self) -> int:
        """The largest number of retrievals at once."""
        return max(client.throttle.max_parallel for client in self.clients.values())

    @property
    def settle_seconds(self) -> float:
        """The longest time for which instances may come after a final response."""
        return max(client.profile.settle for client in self.clients.values())

    def release_thread(self) -> None:
        """Release the associations of the calling thread."""
        for client in self.clients.values():
            client.archive.release_thread()

    def close_archives(self) -> None:
        """Cut all associations with archives."""
        for client in self.clients.values():
            client.archive.close()


@contextmanager
def open_worker(
    clients: Mapping[str, ArchiveClient], receiver_stats: Callable[[], ReceiverStats]
) -> Iterator[Worker]:
    """Make a worker with its threads; at the end one that a disk holds is not waited for."""
    parallel = max(client.throttle.max_parallel for client in clients.values())
    ending = ThreadPoolExecutor((1 + MAX_ENDING) * parallel, thread_name_prefix="ending")
    try:
        yield Worker(clients, receiver_stats, ending)
    finally:
        ending.shutdown(wait=False, cancel_futures=True)
