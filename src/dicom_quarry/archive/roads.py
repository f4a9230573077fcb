"""One archive over several roads: one adapter finds and lists, one for each road fetches."""

from __future__ import annotations

from collections.abc import Mapping

from dicom_quarry.archive.port import Answered, Archive, Ask, Found, Verdict, Watch
from dicom_quarry.errors import ArchiveError, Rejected, Unusable
from dicom_quarry.model import Listing, Road, SeriesInfo, Sink, Study, Task


class ManyRoads:
    """An archive whose questions go to ``finder``, and whose retrievals go the road that each names.

    A road that cannot be walked is an answer, not an error: there are others. So nobody waits for it, and
    whoever asked decides which road is next.
    """

    def __init__(self, finder: Archive, fetchers: Mapping[Road, Archive]) -> None:
        self._finder = finder
        self._fetchers = fetchers

    @property
    def name(self) -> str:
        """The archive's name in the configuration."""
        return self._finder.name

    def probe(self) -> None:
        """Verify that questions are answered; and retrievals, where there is one road for them."""
        self._finder.probe()
        if len(self._fetchers) == 1:
            for fetcher in self._distinct():
                fetcher.probe()

    def find(self, keys: Mapping[str, str]) -> Found:
        """Studies that the archive returns for these keys."""
        return self._finder.find(keys)

    def list_series(self, study: Study) -> tuple[SeriesInfo, ...]:
        """The series that the archive holds of a study."""
        return self._finder.list_series(study)

    def list_instances(self, task: Task) -> Listing:
        """What the archive holds of the task."""
        return self._finder.list_instances(task)

    def retrieve(self, ask: Ask, sink: Sink, watch: Watch) -> Answered:
        """Fetch by the road of the question. A permanent rejection is CONFIGURATION, no connection LOST."""
        fetcher = self._fetchers[ask.road]
        try:
            answered = fetcher.retrieve(ask, sink, watch)
        except ArchiveError as error:
            if len(self._fetchers) == 1:
                raise
            permanent = isinstance(error, Unusable) or (isinstance(error, Rejected) and error.permanent)
            return Answered(Verdict.CONFIGURATION if permanent else Verdict.LOST, comment=str(error))
        if answered.verdict is Verdict.CONFIGURATION:
            # dcmqrscp keeps its index locked, for everybody, on the association of a C-MOVE that it refused.
            fetcher.hang_up()
        return answered

    def hang_up(self) -> None:
        """Release the calling thread's associations."""
        self._finder.hang_up()
        for fetcher in self._distinct():
            fetcher.hang_up()

    def close(self) -> None:
        """End every association; calls in progress end as Lost."""
        self._finder.close()
        for fetcher in self._distinct():
            fetcher.close()

    def _distinct(self) -> list[Archive]:
        return [fetcher for fetcher in self._fetchers.values() if fetcher is not self._finder]
