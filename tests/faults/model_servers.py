"""Servers that behave as a model of an archive has it, over real sockets: DIMSE and DICOMweb."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

from pydicom.datadict import dictionary_VR

from dicom_quarry.demo.dicomweb_services import (
    JSON,
    MULTIPART,
    CloseConnection,
    WebRequest,
    WebResponse,
    encode_multipart,
    to_dicom_json,
)
from dicom_quarry.demo.dimse_operations import (
    PENDING,
    SUCCESS,
    DimseOperation,
    FindOperation,
    GetOperation,
    MoveOperation,
    RetrieveOperation,
    Tally,
)
from dicom_quarry.demo.encoding import Element
from dicom_quarry.demo.query_matching import Catalogue, QueryIdentifier, Record, matches
from dicom_quarry.demo.store_scu import CGetStoreSCU, StoreSCU
from dicom_quarry.demo.synthetic_studies import DemoInstance, DemoStudy
from tests.faults.archive_model import Answers, Connection, Model
from tests.scripted.archive import Answers as Responses
from tests.scripted.archive import ScriptedArchive
from tests.scripted.faults import store
from tests.scripted.web import ScriptedWeb
from tests.scripted.wire_faults import EndsBehindAnswer

_UNIQUE_KEYS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
_INSTANCE_COUNTS = ("NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances")
_STATUSES = {"A700": 0xA700, "FE00": 0xFE00, "C001": 0xC001, "known": 0x0000}
_LATE_SECONDS = 0.05
_REFUSED_KEY, _OUT_OF_RESOURCES = 0xA900, 0xA702


class Boundaries:
    """Counts messages, and decides before which of them the connection is lost."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._count = 0
        self._lock = threading.Lock()

    def breaks(self) -> bool:
        """Return True if the next message must not be sent."""
        with self._lock:
            self._count += 1
            every = self._connection.every
            return self._count in self._connection.breaks or bool(every and self._count % every == 0)


class Sendings:
    """Chooses the instances of each retrieval."""

    def __init__(self, model: Model, studies: Sequence[DemoStudy]) -> None:
        self._model = model
        self._studies = studies
        self._count = 0
        self._lock = threading.Lock()

    def next(self) -> str:
        """Return how the next retrieval goes."""
        planned, steady = self._model.sendings, self._model.steady
        with self._lock:
            at, self._count = self._count, self._count + 1
        if at < len(planned):
            return planned[at]
        return planned[-1] if planned and steady else "all"

    def choose(self, how: str, instances: Sequence[DemoInstance]) -> list[DemoInstance]:
        """Return what is sent, with the Patient IDs that the images have."""
        chosen = list(instances)
        if how in ("none", "refused", "late"):
            chosen = []
        elif how == "half":
            chosen = chosen[: len(chosen) // 2]
        elif how == "all-but-one":
            chosen = chosen[1:]
        elif how == "twice":
            chosen = [*chosen, *chosen]
        elif how == "stranger" and chosen:
            other = next((one for one in self._studies if one != chosen[0].study), None)
            chosen += [next(other.instances())] if other else []
        return [self._as_sent(one) for one in chosen]

    def _as_sent(self, instance: DemoInstance) -> DemoInstance:
        held = self._model.studies[self._studies.index(instance.study)]
        if held.inside is None:
            return instance
        patient = replace(instance.study.patient, patient_id=held.inside)
        return replace(instance, study=replace(instance.study, patient=patient))


class ModelCatalogue(Catalogue):
    """The studies of a model, and its way to match keys."""

    def __init__(self, model: Model) -> None:
        super().__init__(model.build_studies())
        self._answers = model.answers
        self._query_count = 0

    def candidates(self, query: QueryIdentifier) -> Sequence[DemoStudy]:
        return self.studies

    def refuses(self, query: QueryIdentifier) -> bool:
        """Return True for a query that is answered with a failure."""
        return self._answers.ranges == "refused" and "-" in query.keys.get("StudyDate", "")

    def select(self, query: QueryIdentifier) -> list[DemoInstance]:
        wanted = query.values("StudyInstanceUID")
        return [one for one in super().select(query) if one.study.study_uid in wanted]

    def find(self, query: QueryIdentifier) -> Iterator[Record]:
        self._query_count += 1
        keys = {k: "" if k in self._answers.ignores else value for k, value in query.keys.items()}
        found = list(self._match(query.level, keys))
        if self._answers.reverses and self._query_count % 2 == 0:
            found.reverse()
        yield from _repeat(
            self._answers, [self._describe(record) for record in _name(self._answers, query.level, found)]
        )

    def _match(self, level: str, keys: Record) -> Iterator[Record]:
        if level != "STUDY":
            yield from super().find(QueryIdentifier(level, keys))
            return
        for record in super().find(QueryIdentifier(level, dict.fromkeys(keys, ""))):
            if all(self._matches(keyword, keys[keyword], record.get(keyword, "")) for keyword in keys):
                yield record

    def _matches(self, keyword: str, key: str, value: str) -> bool:
        if keyword == "StudyDate" and "-" in key:
            if self._answers.ranges == "ignored" or (not value and self._answers.undated_match):
                return True
            if self._answers.ranges == "empty":
                return False
        if self._answers.matching == "case":
            key, value = key.casefold(), value.casefold()
        if self._answers.matching == "prefix" and key and dictionary_VR(keyword) in ("LO", "SH"):
            key += "*"
        return matches(dictionary_VR(keyword), key, value)

    def _describe(self, record: Record) -> Record:
        counted = {
            keyword: str(int(record[keyword]) + self._answers.excess)
            for keyword in _INSTANCE_COUNTS
            if record.get(keyword)
        }
        return {k: v for k, v in {**record, **counted}.items() if k not in self._answers.lacks}


def _name(answers: Answers, level: str, found: list[Record]) -> list[Record]:
    """Take the UID away from one answer, or from a copy of the last one."""
    if answers.nameless is None or answers.nameless[0] != level or not found:
        return found
    at = answers.nameless[1]
    found = [*found, found[-1]] if at >= len(found) else found
    at = min(at, len(found) - 1)
    return [*found[:at], {**found[at], _UNIQUE_KEYS[level]: ""}, *found[at + 1 :]]


def _repeat(answers: Answers, found: list[Record]) -> list[Record]:
    if answers.repeats == "whole":
        return found * 2
    return [one for one in found for _ in range(2)] if answers.repeats else found


class ModelArchive(ScriptedArchive):
    """The archive of a model over DIMSE."""

    def __init__(self, model: Model, receiver_port: int) -> None:
        behind = model.connection.behind
        faults = [EndsBehindAnswer(release=behind == "release")] if behind else []
        super().__init__((), faults, destinations={"QUARRY": ("127.0.0.1", receiver_port)})
        self.catalogue: ModelCatalogue = ModelCatalogue(model)
        self._model = model
        self._boundaries = Boundaries(model.connection)
        self._sendings = Sendings(model, self.catalogue.studies)

    def start(self) -> Self:
        super().start()
        if self._model.connection.limit:
            self._server.ae.maximum_associations = self._model.connection.limit
        return self

    def on_association_request(self, assoc: Any) -> None:
        super().on_association_request(assoc)
        if not self._model.connection.stores and self._boundaries.breaks():
            if self._model.connection.cut:
                _close(assoc)
            else:
                assoc.acse.send_abort(0x02)
            assoc.kill()

    def _find(self, find: FindOperation) -> None:
        if not self._watch(find):
            super()._find(find)

    def _retrieve(self, kind: str, operation: Any, study_root: str, handler: Callable[[Any], None]) -> None:
        if not self._watch(operation):
            super()._retrieve(kind, operation, study_root, handler)

    def _watch(self, operation: DimseOperation) -> bool:
        """Return True if the connection is lost now; else it may be at every response."""
        send: Any = operation._send

        def send_unless_lost(*arguments: Any, **keywords: Any) -> None:
            if not self._loses(operation):
                send(*arguments, **keywords)

        operation._send = send_unless_lost  # type: ignore[method-assign]
        return self._loses(operation)

    def _loses(self, operation: DimseOperation) -> bool:
        if not operation.is_alive:
            return True
        if self._model.connection.stores or not self._boundaries.breaks():
            return False
        if self._model.connection.cut:
            _close(operation.assoc)
        else:
            operation.assoc._abort_nonblocking()
        while operation.is_alive:
            self.stopped.wait(0.002)
        return True

    def find(self, query: QueryIdentifier, cancelled: Callable[[], bool]) -> Responses:
        if self.catalogue.refuses(query):
            yield _REFUSED_KEY, None
            return
        answers = self._model.answers
        for number, (status, record) in enumerate(super().find(query, cancelled)):
            if status == PENDING and number == answers.cap > 0 and query.level == answers.cap_level:
                yield _STATUSES[answers.cap_end], None
                return
            yield status, record

    def describe(self, record: Record) -> list[Element]:
        elements, charset = super().describe(record), self._model.answers.charset
        if charset == "utf-8":
            return elements
        encoded: list[Element] = [
            (tag, vr, str(value).encode("latin-1") if vr in ("PN", "LO", "SH") else value)
            for tag, vr, value in elements
            if tag != 0x00080005
        ]
        return [*encoded, (0x00080005, "CS", "ISO_IR 100")] if charset == "latin-1" else encoded

    def move(self, move: MoveOperation) -> None:
        address = self.destinations[move.destination]

        def send_late() -> None:
            if not self.stopped.wait(_LATE_SECONDS):
                store(self, move, address, chosen)

        how = self._sendings.next()
        if how == "late":
            chosen = self._sendings.choose("all", self.catalogue.select(move.query))
            self.respond(move, SUCCESS, Tally(0, completed=len(chosen)))
            self.run_in_background(send_late)
            return
        self._send_chosen(move, how, lambda instances: self.deliver(move, address, instances))

    def get(self, get: GetOperation) -> None:
        self._send_chosen(
            get,
            self._sendings.next(),
            lambda instances: self.run_sub_operations(get, instances, lambda: CGetStoreSCU(get.assoc)),
        )

    def _send_chosen(
        self, operation: RetrieveOperation, how: str, send: Callable[[Sequence[DemoInstance]], None]
    ) -> None:
        if how == "refused":
            operation.respond(_OUT_OF_RESOURCES, Tally(0))
            return
        send(self._sendings.choose(how, self.catalogue.select(operation.query)))

    def send(
        self, operation: RetrieveOperation, store: StoreSCU, instances: Sequence[DemoInstance], tally: Tally
    ) -> None:
        if self._model.connection.stores and isinstance(operation, MoveOperation):
            self._cut_stores(store)
        super().send(operation, store, instances, tally)

    def _cut_stores(self, store: StoreSCU) -> None:
        """Close the connection of C-STORE in the middle of an instance, where a message is lost."""
        real: Any = store.store

        def store_unless_lost(*arguments: Any) -> int:
            if self._boundaries.breaks():
                store._max_fragment = 64
                write = store._write
                store._write = lambda pieces: write(list(pieces)[:6])  # type: ignore[method-assign]
                store._socket.settimeout(0.1)
            return int(real(*arguments))

        store.store = store_unless_lost  # type: ignore[method-assign, assignment]

    def should_continue(self, operation: RetrieveOperation, sent: int) -> bool:
        return not self._loses(operation) and super().should_continue(operation, sent)


def _close(assoc: Any) -> None:
    try:
        assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the peer was faster


class ModelWeb(ScriptedWeb):
    """The archive of a model over DICOMweb."""

    def __init__(self, model: Model) -> None:
        super().__init__(())
        self.catalogue: ModelCatalogue = ModelCatalogue(model)
        self._model = model
        self._boundaries = Boundaries(model.connection)
        self._sendings = Sendings(model, self.catalogue.studies)

    def start(self) -> Self:
        super().start()
        assert self._server is not None
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        return self

    def respond(self, request: WebRequest | None) -> WebResponse:
        if request is None:
            return WebResponse(404)
        self.log.append(request)
        if self._boundaries.breaks():
            raise ConnectionResetError
        response = self._search(request) if request.is_search else self._retrieve(request)
        if response.body and self._boundaries.breaks():
            return replace(response, body=b"", chunks=self._cut([response.body[:-2]]))
        return response

    def _search(self, request: WebRequest) -> WebResponse:
        pages = self._model.pages
        if self.catalogue.refuses(request.query):
            return WebResponse(400)
        if pages.refuses_above and (request.limit or 0) > pages.refuses_above:
            return WebResponse(400, {}, f"limit must be at most {pages.refuses_above}".encode())
        found = list(self.catalogue.find(request.query))
        kept = found[: pages.total] if pages.total else found
        start = request.offset if pages.heeds_offset else 0
        sizes = [pages.size or len(found) or 1, request.limit if pages.heeds_limit else None]
        page = kept[start : start + min(size for size in sizes if size is not None)]
        headers = {"Content-Type": JSON}
        if pages.warns and start + len(page) < len(found) and page:
            headers["Warning"] = '299 model "There are additional results"'
        if not page and not pages.empty_array:
            return WebResponse(204)
        return WebResponse(200, headers, json.dumps([to_dicom_json(record) for record in page]).encode())

    def _retrieve(self, request: WebRequest) -> WebResponse:
        how = self._sendings.next()
        if how == "refused":
            return WebResponse(503)
        instances = self._sendings.choose(how, self.catalogue.select(request.query))
        if not instances:
            return WebResponse(404)
        return WebResponse(200, {"Content-Type": MULTIPART}, chunks=self._watch(instances))

    def _watch(self, instances: Sequence[DemoInstance]) -> Iterator[bytes | memoryview]:
        for piece in encode_multipart(instances):
            if self._boundaries.breaks():
                raise CloseConnection
            yield piece

    def _cut(self, pieces: Sequence[bytes]) -> Iterator[bytes]:
        yield from pieces
        raise CloseConnection
