"""One archive over several roads: one adapter finds and lists, one for each road fetches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
    """An archive whose questions go to ``finder``, and whose retrievals go the road that each names.

    A road that cannot be walked is an answer, not an error, as long as others are open: nobody waits for it,
    and whoever asked decides which is next. The last that is open is waited for. ``still_open`` tells them.
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

    @property
    def name(self) -> str:
        """The archive's name in the configuration."""
        return self._finder.name

    def probe(self) -> None:
        """Verify that questions are answered; and retrievals, where one road is left for them."""
        self._finder.probe()
        transports = self._open_transports()
        if len(transports) == 1 and self._fetchers[transports[0]] is not self._finder:
            self._fetchers[transports[0]].probe()

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        """Studies that the archive returns for these keys."""
        return self._finder.find(keys)

    def list_series(self, study: Study) -> tuple[SeriesInfo, ...]:
        """The series that the archive holds of a study."""
        return self._finder.list_series(study)

    def list_instances(self, task: Task) -> Listing:
        """What the archive holds of the task."""
        return self._finder.list_instances(task)

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        """Fetch by the road of the question. A permanent rejection is CONFIGURATION, no connection LOST."""
        fetcher = self._fetchers[request.transport]
        try:
            result = fetcher.retrieve(request, sink, monitor)
        except ArchiveError as error:
            rejected = isinstance(error, Rejected) and error.permanent
            # What is not offered is told with what became of the other roads, if there were any.
            if len(self._open_transports()) == 1 and not (rejected and len(self._fetchers) > 1):
                raise
            permanent = rejected or isinstance(error, OperatorActionRequired)
            return RetrieveResult(Verdict.CONFIGURATION if permanent else Verdict.LOST, comment=str(error))
        if result.verdict is Verdict.CONFIGURATION:
            # dcmqrscp keeps its index locked, for everybody, on the association of a C-MOVE that it refused.
            fetcher.release_thread()
        return result

    def release_thread(self) -> None:
        """Release the calling thread's associations."""
        self._finder.release_thread()
        for fetcher in self._distinct_fetchers():
            fetcher.release_thread()

    def close(self) -> None:
        """End every association; calls in progress end as Lost."""
        self._finder.close()
        for fetcher in self._distinct_fetchers():
            fetcher.close()

    def _distinct_fetchers(self) -> list[Archive]:
        return [fetcher for fetcher in self._fetchers.values() if fetcher is not self._finder]
