"""An archive over DICOMweb: QIDO-RS finds and lists, WADO-RS fetches (PS3.18 10.4, 10.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from dicom_quarry.archive.attributes import SERIES, STUDY, series_of, studies_of
from dicom_quarry.archive.base import Answered, Answers, Ask, Found, Watch
from dicom_quarry.archive.dicomweb.http_client import Http
from dicom_quarry.archive.dicomweb.instance_receiver import Intake
from dicom_quarry.archive.dicomweb.qido import Qido
from dicom_quarry.archive.dicomweb.wado import Retrieval
from dicom_quarry.archive.dimse.identifier import is_uid
from dicom_quarry.archive.instance_listing import LISTING_CAP, Lister, value
from dicom_quarry.config.credentials import HttpAccess
from dicom_quarry.errors import LocalProtocolError
from dicom_quarry.model import BaseUri, InstanceRef, Level, Listing, SeriesInfo, Sink, Study, Task

#: Nobody has it (PS3.5 B.2, a UUID of zeros): asking for it costs an archive next to nothing.
_NOBODYS_STUDY = "2.25.0"

#: Threads that wait for the disk, over all retrievals at once.
_COMMITTERS = 16

_NO_ACCESS = HttpAccess()

_IMAGE = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID")


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
        access: HttpAccess = _NO_ACCESS,
        *,
        answer_cap: int = 10_000,
        connect: float = 10.0,
        silence: float = 60.0,
        before_query: Callable[[], None] = lambda: None,
        result_cap: int | None = None,
    ) -> None:
        """Raises ConfigError for certificates and secrets that cannot be used."""
        self._name = name
        self._http = Http(base, access, connect=connect)
        self._qido = Qido(self._http, silence=silence, before_query=before_query)
        self._pool = ThreadPoolExecutor(_COMMITTERS, thread_name_prefix="commit")
        self._answer_cap = answer_cap
        self._result_cap = result_cap

    @property
    def name(self) -> str:
        """The archive's name in the configuration."""
        return self._name

    def probe(self) -> None:
        """Ask for a study that nobody has: an answer shows that queries are answered, and to us."""
        self._query(Level.STUDY, {"StudyInstanceUID": _NOBODYS_STUDY}, ("StudyInstanceUID",))

    def find(self, keys: Mapping[str, str]) -> Found:
        """Studies that the archive returns for these keys, each Study UID once.

        An empty key is an attribute that the answers are to have.
        """
        if not any(keys.values()):
            raise LocalProtocolError("a query without a key would list the whole archive")
        more = tuple(keyword for keyword in keys if keyword not in STUDY)
        return studies_of(self._query(Level.STUDY, keys, (*STUDY, *more), self._answer_cap), more)

    def list_series(self, study: Study) -> tuple[SeriesInfo, ...]:
        """The series of a study; raises QueryFailed where the answer was cut short."""
        return series_of(self._query(Level.SERIES, {"StudyInstanceUID": study.study_uid}, SERIES))

    def list_instances(self, task: Task) -> Listing:
        """What the archive holds of the task: a study's instances at once, or by series where need be."""
        keys = {"StudyInstanceUID": task.study.study_uid}
        return self._at_once(task, keys) or Lister(self._query, task, keys, relational=True).run()

    def retrieve(self, ask: Ask, sink: Sink, watch: Watch) -> Answered:
        """WADO-RS: instances reach the sink, and are durable, before the return."""
        return Retrieval(self._http, Intake(sink, watch, self._pool, str(self._http.base)), watch).run(ask)

    def hang_up(self) -> None:
        """Close the calling thread's connection."""
        self._http.hang_up()

    def close(self) -> None:
        """Ask nothing more; calls in progress end as Lost."""
        self._http.close()
        self._pool.shutdown(wait=False)

    def _at_once(self, task: Task, keys: Mapping[str, str]) -> Listing | None:
        """One query for a study: where it gives the study's own count, a list of series proves no more."""
        claimed = task.study.instance_count
        if not claimed or task.selection.series:
            return None
        answers = self._query(Level.IMAGE, keys, _IMAGE)
        rows = [tuple(value(row, keyword) for keyword in _IMAGE) for row in answers.rows]
        refs = {
            sop_uid: InstanceRef(task.study.study_uid, series_uid, sop_uid, sop_class)
            for sop_uid, sop_class, series_uid in rows
            if is_uid(sop_uid) and is_uid(series_uid)
        }
        if answers.why or not len(refs) == len(rows) == claimed:
            return None
        series = dict.fromkeys(ref.series_uid for ref in refs.values())
        return Listing(tuple(refs.values()), tuple(series), count=claimed)

    def _query(
        self, level: Level, keys: Mapping[str, str], returns: Sequence[str], cap: int = LISTING_CAP
    ) -> Answers:
        answers = self._qido.run(level, keys, returns, cap)
        if self._result_cap is not None and len(answers.rows) >= self._result_cap:
            answers.why = answers.why or f"the archive never gives more than {self._result_cap} answers"
        return answers
