"""One archive with several transports: one adapter finds and lists, one for each transport fetches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from dicom_quarry.archive.base import (
    Archive,
    RetrieveMonitor,
    RetrieveRequest,
    RetrieveResult,
    StudyQueryResult,
    Verdict,
)
from dicom_quarry.errors import ArchiveError, OperatorActionRequired, Rejected
from dicom_quarry.model import Listing, SeriesInfo, Sink, Study, Task, Transport


class MultiTransportArchive:
    """Sends queries to ``finder``, and each retrieval to the fetcher of the transport that it names.

    While another transport is open, a connection failure is returned as a RetrieveResult so that the caller
    can fall back. On the last one ArchiveError is raised, and retried by the caller. ``open_transports``
    returns those that are still in use.
    """

    def __init__(
        self,
        finder: Archive,
        fetchers: Mapping[Transport, Archive],
        open_transports: Callable[[], Sequence[Transport]],
    ) -> None:
        self._finder = finder
        self._fetchers = fetchers
        self._open_transports = open_transports
        self._thread_local = threading.local()

    @property
    def name(self) -> str:
        """The archive's name in the configuration."""
        return self._finder.name

    def probe(self) -> None:
        """Verify that the archive answers queries; and the fetcher, too, if only one is left."""
        self._finder.probe()
        transports = self._open_transports()
        if len(transports) == 1 and self._fetchers[transports[0]] is not self._finder:
            self._fetchers[transports[0]].probe()

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        """Return the studies that the archive finds for these keys."""
        return self._finder.find(keys)

    def count_studies(self, patient_id: str) -> int | None:
        """Return the archive's own number of a patient's studies, None if it gives none."""
        return self._finder.count_studies(patient_id)

    def list_series(self, study: Study, attributes: Collection[str] = ()) -> tuple[SeriesInfo, ...]:
        """Return the series of a study, with these attributes where the archive returns them."""
        return self._finder.list_series(study, attributes)

    def stop_requesting_counts(self) -> None:
        """Have the adapter for queries stop."""
        self._finder.stop_requesting_counts()

    def list_instances(self, task: Task) -> Listing:
        """List the instances of the task."""
        return self._finder.list_instances(task)

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        """Fetch by the request's transport. A permanent rejection is CONFIGURATION, no connection LOST."""
        fetcher = self._fetchers[request.transport]
        self._release_other(fetcher)
        try:
            result = fetcher.retrieve(request, sink, monitor)
        except ArchiveError as error:
            rejected = isinstance(error, Rejected) and error.permanent
            # A permanent rejection is reported together with the results of the other transports, if any.
            if len(self._open_transports()) == 1 and not (rejected and len(self._fetchers) > 1):
                raise
            permanent = rejected or isinstance(error, OperatorActionRequired)
            return RetrieveResult(Verdict.CONFIGURATION if permanent else Verdict.LOST, comment=str(error))
        if result.verdict is Verdict.CONFIGURATION:
            # dcmqrscp keeps its index locked for all clients on the association of a C-MOVE that it refused.
            fetcher.release_thread()
        return result

    def _release_other(self, fetcher: Archive) -> None:
        """Release the connection of the transport that this thread used before, if that was another."""
        before = getattr(self._thread_local, "fetcher", fetcher)
        if before is not fetcher:
            before.release_thread()
        self._thread_local.fetcher = fetcher

    def release_thread(self) -> None:
        """Release the calling thread's connections."""
        self._finder.release_thread()
        for fetcher in self._distinct_fetchers():
            fetcher.release_thread()

    def release_idle(self) -> None:
        """Release the connections that no thread uses now."""
        self._finder.release_idle()
        for fetcher in self._distinct_fetchers():
            fetcher.release_idle()

    def close(self) -> None:
        """Close every connection; calls in progress end as ConnectionLost."""
        self._finder.close()
        for fetcher in self._distinct_fetchers():
            fetcher.close()

    def _distinct_fetchers(self) -> list[Archive]:
        return [fetcher for fetcher in self._fetchers.values() if fetcher is not self._finder]
