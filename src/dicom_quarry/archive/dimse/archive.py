"""Archive adapter for DIMSE: C-ECHO, C-FIND, and C-MOVE or C-GET (PS3.4 annexes A and C)."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dicom_quarry.archive.attributes import (
    PATIENT_RETURN_KEYS,
    STUDY_COUNT_KEYS,
    STUDY_RETURN_KEYS,
    parse_studies,
    parse_study_count,
)
from dicom_quarry.archive.base import (
    QueryRows,
    RetrieveMonitor,
    RetrieveRequest,
    RetrieveResult,
    StudyQueryResult,
    Verdict,
)
from dicom_quarry.archive.dimse import find
from dicom_quarry.archive.dimse.association_limit import AssociationLimit
from dicom_quarry.archive.dimse.associations import AssociationFactory, AssociationPool, Timeouts
from dicom_quarry.archive.dimse.identifier import (
    MODELS,
    UTF_8,
    InformationModel,
    ModelName,
    can_encode,
    encode,
    is_uid,
    tag,
)
from dicom_quarry.archive.dimse.retrieval import GetRetriever, MoveRetriever, Retriever
from dicom_quarry.archive.dimse.status import describe, interpret_find
from dicom_quarry.archive.instance_listing import LISTING_CAP, InstanceLister, StudyLister, get_text
from dicom_quarry.archive.series_listing import list_series
from dicom_quarry.errors import ConnectionLost, LocalProtocolError, QueryFailed, Rejected, ServiceNotOffered
from dicom_quarry.model import AE, Level, Listing, SeriesInfo, Sink, Study, Task
from dicom_quarry.plurals import format_count
from dicom_quarry.wire.dimse import VERIFICATION, c_echo_rq

#: Studies whose counts are checked without a result: those of some archives are wrong for every study.
_COUNT_CHECKS = 10

#: A query for one of these makes some archives merge their answers.
_COUNT_KEYS = STUDY_COUNT_KEYS | {"NumberOfSeriesRelatedInstances"}

_LATIN_1 = "ISO_IR 100"


def _is_short_of_counts(listing: Listing, task: Task) -> bool:
    """Return True if the archive's counts are larger than the list, for no reason that the list has."""
    if not listing.lists_instances or not listing.complete:
        return False
    series_count = None if task.selection.series else task.study.series_count
    return len(listing.instances) < (listing.count or 0) or len(listing.series_uids) < (series_count or 0)


@dataclass(frozen=True, slots=True)
class QueryCapabilities:
    """Capabilities of an archive's query service."""

    lowest_level: Level = Level.IMAGE  # the lowest level that it supports in queries
    relational_queries: bool | None = None  # lists a study at once (PS3.4 C.4.1.2.2.1); None: to be tried
    patient_id_in_move: bool = False  # retrievals in the Study Root model need the Patient ID, too


class _NoAnswer(ConnectionLost):
    """The archive accepted the association, and was silent to the request."""


class DimseArchive:
    """A PACS that is queried by C-FIND, and sends by C-MOVE to ``destination``, or by C-GET (``retrieve``).

    ``model`` is the information model: Study Root, or Patient Root for archives that support no other; the
    latter needs the Patient ID in every query. ``charset`` is for keys that are not ASCII. A query with more
    than ``max_studies`` studies is cancelled. ``before_query`` is called before every C-FIND, and returns
    when it may be sent. ``result_cap`` is the number of answers at which the archive stops without a notice.
    Adapters of one archive share its ``association_limit``.
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
        association_limit: AssociationLimit | None = None,
    ) -> None:
        self._name = name
        limit = association_limit or AssociationLimit()
        self._factory = AssociationFactory(peer, calling, timeouts, tls, limit)
        self._model = MODELS[model]
        self._requires_patient_id = model == "patient"
        self._charset = charset
        self._answer_charset = ""
        self._requests_counts = True
        self._count_checks_left = _COUNT_CHECKS
        self._has_separate_answers = False
        self._found_without_counts: set[str] = set()
        self._max_studies = max_studies
        self._before_query = before_query
        self._result_cap = result_cap
        self._capabilities = capabilities
        self._study_lister = StudyLister(gives_up=not capabilities.relational_queries)
        if capabilities.relational_queries is False or capabilities.lowest_level is not Level.IMAGE:
            self._study_lister.is_supported = False
        self._associations = AssociationPool(self._factory)
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
        """Verify that the archive answers; raises Unreachable, Rejected or ConnectionLost.

        A failure status of C-ECHO is an answer, too. An archive that refuses C-ECHO otherwise, or does not
        offer it, has to accept an association for queries.
        """
        try:
            self.echo()
        except QueryFailed:
            return
        except _NoAnswer:
            raise
        except (ServiceNotOffered, ConnectionLost):
            self._factory.associate(self._model.find).requestor.release()

    def echo(self) -> None:
        """Send a C-ECHO over a new association, since a kept one proves nothing about new ones (PS3.4 A.4).

        Its answer may take as long as that to an association request: an archive that is busy for a moment
        is not one that is absent, however short the time-out of a query is.

        Raises Unreachable, Rejected, ConnectionLost or QueryFailed.
        """
        association = self._factory.associate(VERIFICATION)
        try:
            request = c_echo_rq(association.next_message_id())
            association.send_request(request)
            message = association.receive_response(request, self._factory.timeouts.associate)
            if message is None:
                association.requestor.abort()
                raise _NoAnswer(f"{self._factory.peer} does not answer C-ECHO")
            if message.command.status != 0x0000:
                detail = describe(interpret_find(message.command.status), message.command.error_comment)
                raise QueryFailed(detail, status=message.command.status)
        finally:
            association.requestor.release()

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        """Find the studies that match these keys (PS3.4 C.4.1), each Study Instance UID once.

        An empty key requests an attribute (PS3.4 C.2.2.1.3). If nothing matches keys that are not ASCII, they
        are sent once more in the character set of the archive's answers: some archives compare bytes.
        """
        if not any(keys.values()):
            raise LocalProtocolError("a query without a key would list the whole archive")
        extra_keywords = tuple(keyword for keyword in keys if keyword not in STUDY_RETURN_KEYS)
        returns = (*STUDY_RETURN_KEYS, *extra_keywords)
        found = self._query_studies(keys, returns)
        if not found.rows and (other := self._other_charset(keys)):
            found = self._query_studies(keys, returns, charset=other)
            if found.rows:
                self._charset = other
        return parse_studies(found, extra_keywords)

    def _query_studies(
        self, keys: Mapping[str, str], returns: Sequence[str], *, charset: str = ""
    ) -> QueryRows:
        """Query at STUDY level; if the archive merges answers with counts, query those study by study."""
        if self._requests_counts:
            return self._query(Level.STUDY, keys, returns, self._max_studies, charset=charset)
        plain = [keyword for keyword in returns if keyword not in STUDY_COUNT_KEYS]
        found = self._query(Level.STUDY, keys, plain, self._max_studies, charset=charset)
        for row in found.rows:
            uid = get_text(row, "StudyInstanceUID")
            if not is_uid(uid):
                continue
            own = self._query(Level.STUDY, self._study_keys(uid, get_text(row, "PatientID")), returns)
            if len(own.rows) == 1 and get_text(own.rows[0], "StudyInstanceUID") == uid:
                row.update({number: value for number, value in own.rows[0].items() if not row.get(number)})
            self._found_without_counts.add(uid)
        return found

    def _other_charset(self, keys: Mapping[str, str]) -> str:
        """Return the character set to try for keys that matched nothing; empty if there is none."""
        values = list(keys.values())
        if all(value.isascii() for value in values):
            return ""
        sent = self._charset if can_encode(values, self._charset) else UTF_8
        # An archive that declared nothing so far has Latin-1 more often than anything else.
        own = self._answer_charset or _LATIN_1
        return own if own != sent and can_encode(values, own) else ""

    def count_studies(self, patient_id: str) -> int | None:
        """Return the archive's own number of a patient's studies, None if it gives none.

        Only the Patient Root model has a PATIENT level (PS3.4 C.6.1.1.2). The association of the other model
        is released meanwhile, as some archives accept only one.
        """
        model = MODELS["patient"]
        is_other = model is not self._model
        if is_other:
            self._associations.release_idle()
        try:
            found = self._query(Level.PATIENT, {"PatientID": patient_id}, PATIENT_RETURN_KEYS, model=model)
        except Rejected as error:
            if error.permanent and is_other:
                return None
            raise
        except QueryFailed as failure:
            if interpret_find(failure.status).verdict is Verdict.UNSUPPORTED:
                return None
            raise
        finally:
            if is_other:
                self._associations.release_idle()
        return parse_study_count(found, patient_id)

    def list_series(self, study: Study, attributes: Collection[str] = ()) -> tuple[SeriesInfo, ...]:
        """List the series of a study; raises QueryFailed if the list is incomplete."""
        return list_series(self._query, self._study_keys(study.study_uid, study.patient_id), attributes)

    def stop_requesting_counts(self) -> None:
        """Query for the counts of each study alone."""
        self._requests_counts = False

    def list_instances(self, task: Task) -> Listing:
        """List the instances of a task: by one query, where its answer equals the counts that the study has.

        Else by a query at SERIES level, then one at IMAGE level for every series.
        """
        if self._trusts_counts(task.study) and (listing := self._list_in_one_query(task)):
            return listing
        listing = self._list_instances(task)
        if self._requests_counts and _is_short_of_counts(listing, task) and self._count_checks_left:
            listing = self._check_counts(task, listing)
        is_doubtful = not self._requests_counts and task.study.study_uid not in self._found_without_counts
        return replace(listing, is_doubtful=is_doubtful)

    def _trusts_counts(self, study: Study) -> bool:
        """Return False while the archive may be one that merges answers into one if counts are requested.

        It shows that in a list of several series, which is requested until one of its answers to queries
        for counts had several results. A list of one series would show nothing.
        """
        return self._requests_counts and (self._has_separate_answers or study.series_count == 1)

    def _list_in_one_query(self, task: Task) -> Listing | None:
        """List a study at once; None where that is not the whole list, or lacks SOP classes (for C-GET)."""
        listing = self._study_lister.run(
            # An archive that ignores the key of the study would list all that it has.
            lambda level, keys, returns, count: self._query(level, keys, returns, (count or 0) + 1),
            task,
            self._study_keys(task.study.study_uid, task.study.patient_id),
        )
        return listing if listing and all(ref.sop_class for ref in listing.instances) else None

    def _list_instances(self, task: Task, *, requests_counts: bool | None = None) -> Listing:
        keys = self._study_keys(task.study.study_uid, task.study.patient_id)
        capabilities = self._capabilities
        return InstanceLister(
            lambda level, keys, returns, _expected_count: self._query(level, keys, returns),
            task,
            keys,
            lowest_level=capabilities.lowest_level,
            relational_queries=bool(capabilities.relational_queries),
            requests_counts=self._requests_counts if requests_counts is None else requests_counts,
        ).run()

    def _check_counts(self, task: Task, listing: Listing) -> Listing:
        """List again without counts, and compare the study's count with that of a query by its UID."""
        try:
            alone = self._list_instances(task, requests_counts=False)
            if {*listing.series_uids} < {*alone.series_uids} or len(listing.instances) < len(alone.instances):
                listing, self._requests_counts = alone, False
            elif self._has_merged_count(task.study):
                self._requests_counts = False
            else:
                self._count_checks_left -= 1
        except QueryFailed:
            self._count_checks_left -= 1
        return listing

    def _has_merged_count(self, study: Study) -> bool:
        """Return True if the study's count is another one when the study is queried by its UID alone."""
        found = self.find(self._study_keys(study.study_uid, study.patient_id)).studies
        return len(found) == 1 and found[0].instance_count not in (None, study.instance_count)

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        """Retrieve instances by UIDs only (PS3.4 C.4.2.1.4): many archives refuse or ignore other keys."""
        for uid in (request.study_uid, *request.series_uids, *request.sop_uids):
            if not is_uid(uid):
                raise LocalProtocolError(f"a retrieval by {uid!r}, which is not the UID of one object")
        return self._retriever.retrieve(request, sink, monitor)

    def release_thread(self) -> None:
        """Release the calling thread's associations."""
        self._associations.release_thread()
        self._retriever.release_thread()

    def release_idle(self) -> None:
        """Release the associations that no thread uses now, also those of other adapters of this archive."""
        self._factory.limit.release_idle()

    def close(self) -> None:
        """Abort every association; calls in progress raise ConnectionLost or return Verdict.LOST."""
        self._associations.close()
        self._retriever.close()

    def _encode_identifier(self, request: RetrieveRequest) -> bytes:
        """Encode the identifier of a retrieval (PS3.4 C.4.2.1.4, C.4.3.1.3)."""
        keys = self._study_keys(request.study_uid, request.patient_id)
        keys["QueryRetrieveLevel"] = request.level.value
        if self._capabilities.patient_id_in_move and request.patient_id:
            keys["PatientID"] = _first_value(request.patient_id)
        if request.series_uids:
            keys["SeriesInstanceUID"] = "\\".join(request.series_uids)
        if request.sop_uids:
            keys["SOPInstanceUID"] = "\\".join(request.sop_uids)
        return encode(keys, self._charset)

    def _study_keys(self, study_uid: str, patient_id: str) -> dict[str, str]:
        keys = {"StudyInstanceUID": study_uid}
        if self._requires_patient_id:
            keys["PatientID"] = _first_value(patient_id)
        return keys

    def _query(
        self,
        level: Level,
        keys: Mapping[str, str],
        returns: Sequence[str],
        cap: int = LISTING_CAP,
        *,
        model: InformationModel | None = None,
        charset: str = "",
    ) -> QueryRows:
        identifier = encode(
            {**dict.fromkeys(returns, ""), **keys, "QueryRetrieveLevel": level.value},
            charset or self._charset,
        )
        tags = [tag(keyword) for keyword in returns]
        self._before_query()
        found = self._associations.run(
            (model or self._model).find,
            lambda association: find.run_find(
                association, identifier, tags, cap=cap, timeout=self._factory.timeouts.query
            ),
        )
        self._answer_charset = found.charset or self._answer_charset
        if any(row != found.rows[0] for row in found.rows) and not _COUNT_KEYS.isdisjoint(returns):
            self._has_separate_answers = True
        if self._result_cap is not None and found.answer_count >= self._result_cap:
            found.incomplete_reason = (
                found.incomplete_reason
                or f"the archive never sends more than {format_count(self._result_cap, 'answer')}"
            )
        return found


def _first_value(patient_id: str) -> str:
    """Return the first of several patient IDs: a unique key has one value (PS3.4 C.4.1.2.1)."""
    return patient_id.partition("\\")[0]
