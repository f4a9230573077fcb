"""An archive over DIMSE: C-ECHO, C-FIND, and C-MOVE or C-GET (PS3.4 annexes A and C)."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dicom_quarry.archive.attributes import SERIES_RETURN_KEYS, STUDY_RETURN_KEYS, parse_series, parse_studies
from dicom_quarry.archive.base import (
    QueryRows,
    RetrieveMonitor,
    RetrieveRequest,
    RetrieveResult,
    StudyQueryResult,
)
from dicom_quarry.archive.dimse import find
from dicom_quarry.archive.dimse.associations import AssociationFactory, AssociationPool, Timeouts
from dicom_quarry.archive.dimse.identifier import MODELS, UTF_8, ModelName, encode, is_uid, tag
from dicom_quarry.archive.dimse.retrieval import GetRetriever, MoveRetriever, Retriever
from dicom_quarry.archive.dimse.status import describe, interpret_find
from dicom_quarry.archive.instance_listing import LISTING_CAP, InstanceLister
from dicom_quarry.errors import ConnectionLost, LocalProtocolError, QueryFailed
from dicom_quarry.model import AE, Level, Listing, SeriesInfo, Sink, Study, Task
from dicom_quarry.wire.dimse import VERIFICATION, c_echo_rq


@dataclass(frozen=True, slots=True)
class QueryCapabilities:
    """How an archive wants to be asked: the lowest level that it answers at, whether it lists a whole study's
    instances at once (relational queries), and whether retrievals in Study Root need the Patient ID, too.
    """

    lowest_level: Level = Level.IMAGE
    relational_queries: bool = False
    patient_id_in_move: bool = False


class DimseArchive:
    """A PACS that is queried by C-FIND, and sends by C-MOVE to ``destination``, or by C-GET (``retrieve``).

    ``model`` is the information model: Study Root, or Patient Root for archives that know no other; the
    latter wants the Patient ID with every question. ``charset`` is for keys that are not ASCII. More than
    ``answer_cap`` studies for one question are cancelled. ``before_query`` is called before every C-FIND, and
    returns when it may be sent. ``result_cap`` is the number of answers at which the archive silently stops.
    ``habits`` are how it wants to be asked.
    """

    def __init__(
        self,
        name: str,
        peer: AE,
        *,
        calling: str,
        destination: str,
        model: ModelName = "study",
        charset: str = UTF_8,
        max_studies: int = 10_000,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 (frozen)
        tls: ssl.SSLContext | None = None,
        before_query: Callable[[], None] = lambda: None,
        result_cap: int | None = None,
        capabilities: QueryCapabilities = QueryCapabilities(),
        retrieve: Literal["move", "get"] = "move",
    ) -> None:
        self._name = name
        self._factory = AssociationFactory(peer, calling, timeouts, tls)
        self._model = MODELS[model]
        self._requires_patient_id = model == "patient"
        self._charset = charset
        self._max_studies = max_studies
        self._before_query = before_query
        self._result_cap = result_cap
        self._capabilities = capabilities
        self._associations = AssociationPool(self._factory.associate)
        self._retriever: Retriever
        if retrieve == "get":
            self._retriever = GetRetriever(self._factory, self._model.get, self._encode_identifier)
        else:
            self._retriever = MoveRetriever(
                self._factory, self._model.move, destination, self._encode_identifier
            )

    @property
    def name(self) -> str:
        """The archive's name in the configuration."""
        return self._name

    def probe(self) -> None:
        """C-ECHO (PS3.4 A.4) over an association of its own: an old one would prove nothing of today."""
        association = self._factory.associate(VERIFICATION)
        try:
            request = c_echo_rq(association.next_message_id())
            association.send_request(request)
            message = association.receive_response(request, self._factory.timeouts.query)
            if message is None:
                association.requestor.abort()
                raise ConnectionLost(f"{self._factory.peer} does not answer C-ECHO")
            if message.command.status != 0x0000:
                detail = describe(interpret_find(message.command.status), message.command.error_comment)
                raise QueryFailed(detail, status=message.command.status)
        finally:
            association.requestor.release()

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        """Studies that the archive returns for these keys (PS3.4 C.4.1), each Study UID once.

        An empty key is an attribute that the answers are to have (PS3.4 C.2.2.1.3).
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
        keys = self._study_keys(study.study_uid, study.patient_id)
        return parse_series(self._query(Level.SERIES, keys, SERIES_RETURN_KEYS))

    def list_instances(self, task: Task) -> Listing:
        """What the archive holds of the task: SERIES level, then IMAGE level of every series."""
        keys = self._study_keys(task.study.study_uid, task.study.patient_id)
        capabilities = self._capabilities
        return InstanceLister(
            self._query,
            task,
            keys,
            lowest_level=capabilities.lowest_level,
            relational_queries=capabilities.relational_queries,
        ).run()

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        """By UIDs only: other keys are refused, or ignored, by too many archives (PS3.4 C.4.2.1.4)."""
        for uid in (request.study_uid, *request.series_uids, *request.sop_uids):
            if not is_uid(uid):
                raise LocalProtocolError(f"a retrieval by {uid!r}, which does not name one object")
        return self._retriever.retrieve(request, sink, monitor)

    def release_thread(self) -> None:
        """Release the calling thread's associations."""
        self._associations.release_thread()
        self._retriever.release_thread()

    def close(self) -> None:
        """End every association; calls in progress end as Lost."""
        self._associations.close()
        self._retriever.close()

    def _encode_identifier(self, request: RetrieveRequest) -> bytes:
        """The identifier of a retrieval."""
        keys = self._study_keys(request.study_uid, request.patient_id)
        keys["QueryRetrieveLevel"] = request.level.value
        if self._capabilities.patient_id_in_move and request.patient_id:
            keys["PatientID"] = request.patient_id
        if request.series_uids:
            keys["SeriesInstanceUID"] = "\\".join(request.series_uids)
        if request.sop_uids:
            keys["SOPInstanceUID"] = "\\".join(request.sop_uids)
        return encode(keys, self._charset)

    def _study_keys(self, study_uid: str, patient_id: str) -> dict[str, str]:
        keys = {"StudyInstanceUID": study_uid}
        if self._requires_patient_id:
            keys["PatientID"] = patient_id
        return keys

    def _query(
        self, level: Level, keys: Mapping[str, str], returns: Sequence[str], cap: int = LISTING_CAP
    ) -> QueryRows:
        identifier = encode(
            {**dict.fromkeys(returns, ""), **keys, "QueryRetrieveLevel": level.value}, self._charset
        )
        tags = [tag(keyword) for keyword in returns]
        self._before_query()
        answers = self._associations.run(
            self._model.find,
            lambda line: find.run_find(line, identifier, tags, cap=cap, timeout=self._factory.timeouts.query),
        )
        if self._result_cap is not None and len(answers.rows) >= self._result_cap:
            answers.incomplete_reason = (
                answers.incomplete_reason or f"the archive never gives more than {self._result_cap} answers"
            )
        return answers
