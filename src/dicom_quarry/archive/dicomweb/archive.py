"""An archive over DICOMweb: QIDO-RS finds and lists, WADO-RS fetches (PS3.18 10.4, 10.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from dicom_quarry.archive.attributes import SERIES_RETURN_KEYS, STUDY_RETURN_KEYS, parse_series, parse_studies
from dicom_quarry.archive.base import (
    QueryRows,
    RetrieveMonitor,
    RetrieveRequest,
    RetrieveResult,
    StudyQueryResult,
)
from dicom_quarry.archive.dicomweb.http_client import HttpClient
from dicom_quarry.archive.dicomweb.qido import QidoClient
from dicom_quarry.archive.dicomweb.wado import InstanceReceiver, WadoRetrieval
from dicom_quarry.archive.dimse.identifier import is_uid
from dicom_quarry.archive.instance_listing import LISTING_CAP, InstanceLister, get_text
from dicom_quarry.config.credentials import HttpSettings
from dicom_quarry.errors import LocalProtocolError
from dicom_quarry.model import BaseUri, InstanceRef, Level, Listing, SeriesInfo, Sink, Study, Task

#: Nobody has it (PS3.5 B.2, a UUID of zeros): asking for it costs an archive next to nothing.
_PROBE_STUDY_UID = "2.25.0"

#: Threads that wait for the disk, over all retrievals at once.
_COMMIT_THREADS = 16

_NO_ACCESS = HttpSettings()

_IMAGE_KEYS = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID")


class DicomWebArchive:
    """A PACS with web services at ``base``.

    More than ``answer_cap`` studies for one question are not read; ``silence`` is how long a query may take
    to say anything, in seconds. ``before_query`` is called before every request of a query, and returns when
    it may be sent. ``result_cap`` is the number of answers at which the archive silently stops.
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
        self._qido = QidoClient(self._http, read_timeout=read_timeout, before_query=before_query)
        self._commit_pool = ThreadPoolExecutor(_COMMIT_THREADS, thread_name_prefix="commit")
        self._max_studies = max_studies
        self._result_cap = result_cap

    @property
    def name(self) -> str:
        """The archive's name in the configuration."""
        return self._name

    def probe(self) -> None:
        """Ask for a study that nobody has: an answer shows that queries are answered, and to us."""
        self._query(Level.STUDY, {"StudyInstanceUID": _PROBE_STUDY_UID}, ("StudyInstanceUID",))

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        """Studies that the archive returns for these keys, each Study UID once.

        An empty key is an attribute that the answers are to have.
        """
        if not any(keys.values()):
            raise LocalProtocolError("a query without a key would list the whole archive")
        extra_keywords = tuple(keyword for keyword in keys if keyword not in STUDY_RETURN_KEYS)
        return parse_studies(
            self._query(Level.STUDY, keys, (*STUDY_RETURN_KEYS, *extra_keywords), self._max_studies),
            extra_keywords,
        )

    def list_series(self, study: Study) -> tuple[SeriesInfo, ...]:
        """The series of a study; raises QueryFailed where the answer was cut short."""
        return parse_series(
            self._query(Level.SERIES, {"StudyInstanceUID": study.study_uid}, SERIES_RETURN_KEYS)
        )

    def list_instances(self, task: Task) -> Listing:
        """What the archive holds of the task: a study's instances at once, or by series where need be."""
        keys = {"StudyInstanceUID": task.study.study_uid}
        return (
            self._list_in_one_query(task, keys)
            or InstanceLister(self._query, task, keys, relational_queries=True).run()
        )

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        """WADO-RS: instances reach the sink, and are durable, before the return."""
        return WadoRetrieval(
            self._http, InstanceReceiver(sink, monitor, self._commit_pool, str(self._http.base)), monitor
        ).run(request)

    def release_thread(self) -> None:
        """Close the calling thread's connection."""
        self._http.release_thread()

    def close(self) -> None:
        """Ask nothing more; calls in progress end as Lost."""
        self._http.close()
        self._commit_pool.shutdown(wait=False)

    def _list_in_one_query(self, task: Task, keys: Mapping[str, str]) -> Listing | None:
        """One query for a study: where it gives the study's own count, a list of series proves no more."""
        claimed = task.study.instance_count
        if not claimed or task.selection.series:
            return None
        answers = self._query(Level.IMAGE, keys, _IMAGE_KEYS)
        rows = [tuple(get_text(row, keyword) for keyword in _IMAGE_KEYS) for row in answers.rows]
        refs = {
            sop_uid: InstanceRef(task.study.study_uid, series_uid, sop_uid, sop_class)
            for sop_uid, sop_class, series_uid in rows
            if is_uid(sop_uid) and is_uid(series_uid)
        }
        if answers.incomplete_reason or not len(refs) == len(rows) == claimed:
            return None
        series = dict.fromkeys(ref.series_uid for ref in refs.values())
        return Listing(tuple(refs.values()), tuple(series), count=claimed)

    def _query(
        self, level: Level, keys: Mapping[str, str], returns: Sequence[str], cap: int = LISTING_CAP
    ) -> QueryRows:
        answers = self._qido.search(level, keys, returns, cap)
        if self._result_cap is not None and len(answers.rows) >= self._result_cap:
            answers.incomplete_reason = (
                answers.incomplete_reason or f"the archive never gives more than {self._result_cap} answers"
            )
        return answers
