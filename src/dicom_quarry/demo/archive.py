"""The demo archive: a Query/Retrieve SCP on the loopback interface, over synthetic studies (PS3.4 C.4)."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_MOVE
from pynetdicom.dsutils import decode
from pynetdicom.presentation import build_context

from dicom_quarry.demo.matching import Catalogue, Query, Record
from dicom_quarry.demo.retrieve import (
    BAD_IDENTIFIER,
    CANCELLED,
    DESTINATION_UNKNOWN,
    PENDING,
    SUCCESS,
    Move,
    Tally,
)
from dicom_quarry.demo.sender import NOT_SENT, StoreSCU, Unwilling
from dicom_quarry.demo.studies import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Instance, Study
from dicom_quarry.errors import ConfigError, StartError
from dicom_quarry.model import Level
from dicom_quarry.version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

VERIFICATION = "1.2.840.10008.1.1"
PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.1.2"
STUDY_ROOT_FIND, STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"


class DemoArchive:
    """A PACS that a test, a bench or a demonstration can have for itself.

    ``destinations`` maps AE titles to the addresses to which a C-MOVE may send. Associations are served in
    threads of their own, any number at once. :attr:`finds` counts C-FIND requests by level, :attr:`moves`
    C-MOVE requests by Study Instance UID.
    """

    def __init__(
        self,
        studies: Iterable[Study],
        *,
        title: str = "DEMO",
        host: str = "127.0.0.1",
        port: int = 0,
        destinations: Mapping[str, tuple[str, int]] | None = None,
    ) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ConfigError(f"the demo archive listens on the loopback interface only, not on {host}")
        self.title = title
        self.host = host
        self.port = port
        self.catalogue = Catalogue(studies)
        self.destinations = dict(destinations or {})
        self.finds: Counter[str] = Counter()
        self.moves: Counter[str] = Counter()
        self._count = threading.Lock()
        self._ae: Any = AE(title)

    def start(self) -> Self:
        """Bind, listen and serve; :attr:`port` is the real one afterwards."""
        self._ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        self._ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._ae.maximum_associations = 100
        self._ae.network_timeout = None
        try:
            server: Any = self._ae.start_server(
                (self.host, self.port), block=False, contexts=_contexts(), evt_handlers=self._handlers()
            )
        except OSError as error:
            raise StartError(
                f"the demo archive cannot listen on port {self.port}: {error.strerror}"
            ) from error
        self.port = server.server_address[1]
        return self

    def stop(self) -> None:
        """Stop listening and end every association."""
        self._ae.shutdown()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- what a misbehaving archive overrides -------------------------------------------------------------

    def admit(self, assoc: Any) -> None:
        """Called with the association request, before it is answered."""

    def seen(self, kind: str, query: Query) -> None:
        """Called with every C-FIND and C-MOVE, before it is answered."""
        with self._count:
            if kind == "find":
                self.finds[query.level] += 1
            else:
                self.moves.update(query.values("StudyInstanceUID"))

    def find(self, query: Query, cancelled: Callable[[], bool]) -> Iterator[tuple[int, Record | None]]:
        """Answer a C-FIND: (status, record) pairs, the final one without a record."""
        for record in self.catalogue.find(query):
            if cancelled():
                yield CANCELLED, None
                return
            yield PENDING, record
        yield SUCCESS, None

    def encode(self, query: Query, record: Record) -> Dataset:
        """A record as the identifier of a C-FIND response."""
        answer = Dataset()
        if not all(value.isascii() for value in record.values()):
            answer.SpecificCharacterSet = "ISO_IR 192"
        answer.QueryRetrieveLevel = query.level
        answer.RetrieveAETitle = self.title
        for keyword, value in record.items():
            setattr(answer, keyword, value.split("\\") if "\\" in value else value)
        return answer

    def move(self, move: Move) -> None:
        """Answer a C-MOVE: send what it names to its destination, and say how that went."""
        address = self.destinations.get(move.destination)
        if address is None:
            move.respond(DESTINATION_UNKNOWN)
            return
        self.deliver(move, address, self.catalogue.select(move.query))

    def deliver(self, move: Move, address: tuple[str, int], instances: Sequence[Instance]) -> None:
        """Perform the C-STORE sub-operations on one association, then send the final response."""
        tally = Tally(len(instances))
        try:
            if instances:
                with StoreSCU(address, move.destination, self.title, instances) as store:
                    self.send(move, store, instances, tally)
        except Unwilling:
            for instance in instances[len(instances) - tally.remaining :]:
                tally.count(instance.sop_uid, NOT_SENT)
        if move.alive:
            self.respond(move, CANCELLED if tally.remaining else tally.verdict, tally)

    def send(self, move: Move, store: StoreSCU, instances: Sequence[Instance], tally: Tally) -> None:
        """Send instances until all are sent, the peer cancels or it is gone."""
        for number, instance in enumerate(instances, start=1):
            if self.unwanted(move):
                return
            status = store.store(instance, number % 0xFFFF, (self.title, move.message_id))
            tally.count(instance.sop_uid, status)
            if tally.remaining:
                self.respond(move, PENDING, tally)

    def unwanted(self, move: Move) -> bool:
        """Called before every sub-operation: has the peer cancelled, or gone?"""
        return move.cancelled or not move.alive

    def respond(self, move: Move, status: int, tally: Tally) -> None:
        """Send a pending or the final response, this one with the list of what failed."""
        move.respond(status, tally, failed_uids=() if status == PENDING else tally.failed_uids)

    # --- pynetdicom ---------------------------------------------------------------------------------------

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_REQUESTED, lambda event: self.admit(event.assoc)),
            (evt.EVT_C_FIND, self._find),
        ]

    def _opened(self, event: Any) -> None:
        """Set TCP_NODELAY, and take C-MOVE out of pynetdicom's hands.

        Its handler for C-MOVE decides itself how sub-operations are sent and counted; here that is ours to
        do, faster, and where a test wants it, wrong.
        """
        assoc = event.assoc
        assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        serve = assoc._serve_request

        def serve_request(message: Any, context_id: int) -> None:
            if isinstance(message, C_MOVE) and message.is_valid_request:
                self._move(assoc, message, context_id)
            else:
                serve(message, context_id)

        assoc._serve_request = serve_request

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = read_query(event.identifier)
        self.seen("find", query)
        if not _acceptable(query, event.request.AffectedSOPClassUID == STUDY_ROOT_FIND):
            yield BAD_IDENTIFIER, None
            return
        for status, record in self.find(query, lambda: event.is_cancelled):
            yield status, None if record is None else self.encode(query, record)

    def _move(self, assoc: Any, request: Any, context_id: int) -> None:
        syntax = UID(assoc._accepted_cx[context_id].transfer_syntax[0])
        identifier = decode(request.Identifier, syntax.is_implicit_VR, syntax.is_little_endian)
        query = read_query(identifier)
        move = Move(assoc, request, context_id, query)
        self.seen("move", query)
        try:
            if _acceptable(query, request.AffectedSOPClassUID == STUDY_ROOT_MOVE) and _named(query):
                self.move(move)
            else:
                move.respond(BAD_IDENTIFIER)
        finally:
            assoc.dimse.cancel_req.pop(move.message_id, None)


def read_query(identifier: Any) -> Query:
    """Level and keys of an identifier; sequences and character sets are not keys."""
    keys: Record = {}
    for element in identifier:
        keyword = keyword_for_tag(element.tag)
        if not keyword or element.VR == "SQ" or keyword in ("QueryRetrieveLevel", "SpecificCharacterSet"):
            continue
        value = element.value
        several = element.VM > 1
        keys[keyword] = "\\".join(map(str, value)) if several else str(value if value is not None else "")
    return Query(str(identifier.get("QueryRetrieveLevel", "")).strip(), keys)


def _acceptable(query: Query, study_root: bool) -> bool:
    """The level exists in the model (PS3.4 C.6.1.1, C.6.2.1)."""
    return query.level in set(Level) and not (study_root and query.level == Level.PATIENT)


def _named(query: Query) -> bool:
    """A C-MOVE names what it wants by unique keys (PS3.4 C.4.2.1.4)."""
    keyword = {"PATIENT": "PatientID", "IMAGE": "SOPInstanceUID", "SERIES": "SeriesInstanceUID"}
    return bool(query.values(keyword.get(query.level, "StudyInstanceUID")))


def _contexts() -> list[Any]:
    syntaxes = [EXPLICIT_LITTLE, IMPLICIT_LITTLE]
    services = (VERIFICATION, PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE, STUDY_ROOT_FIND, STUDY_ROOT_MOVE)
    return [build_context(service, syntaxes) for service in services]
