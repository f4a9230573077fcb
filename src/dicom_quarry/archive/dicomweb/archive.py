"""An archive over DICOMweb: QIDO-RS finds and lists, WADO-RS fetches (PS3.18 10.4, 10.6)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from dicom_quarry.archive.attributes import STUDY_RETURN_KEYS, parse_studies
from dicom_quarry.archive.base import (
    QueryRows,
    RetrieveMonitor,
    RetrieveRequest,
    RetrieveResult,
    StudyQueryResult,
)
from dicom_quarry.archive.dicomweb.http_client import HttpClient
from dicom_quarry.archive.dicomweb.instance_receiver import InstanceReceiver
from dicom_quarry.archive.dicomweb.qido import QidoClient
from dicom_quarry.archive.dicomweb.wado import WadoRetrieval
from dicom_quarry.archive.instance_listing import LISTING_CAP, InstanceLister, StudyLister
from dicom_quarry.archive.series_listing import list_series
from dicom_quarry.config.credentials import HttpSettings
from dicom_quarry.errors import LocalProtocolError
from dicom_quarry.model import BaseUri, Level, Listing, SeriesInfo, Sink, Study, Task
from dicom_quarry.plurals import format_count

#: A study that cannot exist (PS3.5 B.2, a UUID of zeros): its query costs an archive next to nothing.
_PROBE_STUDY_UID = "2.25.0"

_NO_ACCESS = HttpSettings()


class DicomWebArchive:
    """A PACS with web services at ``base``.

    ``max_studies`` is the most studies that are read from one query. ``connect_timeout`` and ``read_timeout``
    (the longest silence in a query) are in seconds. ``before_query`` is called before every request of a
    query and returns when it may be sent. ``result_cap`` is the number of results at which the archive
    silently stops, where it is known.
    """

    def __init__(
        self,
        name: str,
        base: BaseUri,
        access: HttpSettings = _NO_ACCESS,
        *,
        max_studies: int = 10_000,
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
        before_query: Callable[[], None] = lambda: None,
        result_cap: int | None = None,
    ) -> None:
        """Raises ConfigError for certificates and secrets that cannot be used."""
        self._name = name
        self._http = HttpClient(base, access, connect_timeout=connect_timeout)
        self._qido = QidoClient(
            self._http,
            read_timeout=read_timeout,
            before_query=before_query,
            longest_page=result_cap or 0,
        )
        self._max_studies = max_studies
        self._result_cap = result_cap
        self._study_lister = StudyLister()

    @property
    def name(self) -> str:
        """The archive's name in the configuration."""
        return self._name

    def probe(self) -> None:
        """Query a study that does not exist: a response shows that the archive accepts our queries."""
        self._query(Level.STUDY, {"StudyInstanceUID": _PROBE_STUDY_UID}, ("StudyInstanceUID",))

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        """Return the studies that the archive finds for these keys, each Study UID once.

        An empty key requests the attribute. Raises LocalProtocolError for a query without any key.
        """
        if not any(keys.values()):
            raise LocalProtocolError("a query without a key would list the whole archive")
        extra_keywords = tuple(keyword for keyword in keys if keyword not in STUDY_RETURN_KEYS)
        return parse_studies(
            self._query(Level.STUDY, keys, (*STUDY_RETURN_KEYS, *extra_keywords), cap=self._max_studies),
            extra_keywords,
        )

    def count_studies(self, patient_id: str) -> int | None:  # noqa: ARG002 (the interface)
        """Return None: QIDO-RS has no search for patients (PS3.18 10.6.1.1)."""
        return None

    def list_series(self, study: Study, attributes: Collection[str] = ()) -> tuple[SeriesInfo, ...]:
        """Return the series of a study; raises QueryFailed where the list is incomplete."""

        def query(level: Level, keys: Mapping[str, str], returns: Sequence[str]) -> QueryRows:
            return self._query(level, keys, returns, study.series_count if level is Level.SERIES else None)

        return list_series(query, {"StudyInstanceUID": study.study_uid}, attributes)

    def stop_requesting_counts(self) -> None:
        """Do nothing: QIDO-RS has no such archives."""

    def list_instances(self, task: Task) -> Listing:
        """Return the task's instances: from one query where their number is right, else by series."""
        keys = {"StudyInstanceUID": task.study.study_uid}
        if listing := self._study_lister.run(self._query, task, keys):
            return listing
        return InstanceLister(
            self._query, task, keys, relational_queries=self._study_lister.is_supported
        ).run()

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        """Fetch by WADO-RS: instances are in the sink before this returns."""
        receiver = InstanceReceiver(sink, monitor, str(self._http.base))
        return WadoRetrieval(self._http, receiver, monitor).run(request)

    def release_thread(self) -> None:
        """Close the calling thread's connection."""
        self._http.release_thread()

    def release_idle(self) -> None:
        """Close the connections that no thread uses now."""
        self._http.release_idle()

    def close(self) -> None:
        """Refuse further requests; calls in progress end as ConnectionLost."""
        self._http.close()

    def _query(
        self,
        level: Level,
        keys: Mapping[str, str],
        returns: Sequence[str],
        expected_count: int | None = None,
        *,
        cap: int = LISTING_CAP,
    ) -> QueryRows:
        result = self._qido.search(level, keys, returns, cap, expected_count=expected_count)
        if self._result_cap is not None and result.answer_count >= self._result_cap:
            result.incomplete_reason = (
                result.incomplete_reason
                or f"the archive never gives more than {format_count(self._result_cap, 'answer')}"
            )
        return result
