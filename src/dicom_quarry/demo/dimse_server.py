"""The demo archive: a Query/Retrieve SCP on the loopback interface, over synthetic studies (PS3.4 C.4)."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from socketserver import BaseServer
from types import TracebackType
from typing import Any, Self, TypeVar

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE
from pynetdicom.presentation import build_context
from pynetdicom.transport import ThreadedAssociationServer

from dicom_quarry.demo.dimse_operations import (
    BAD_IDENTIFIER,
    CANCELLED,
    DESTINATION_UNKNOWN,
    PENDING,
    SUCCESS,
    DimseOperation,
    FindOperation,
    GetOperation,
    MoveOperation,
    RetrieveOperation,
    Tally,
    record_to_elements,
)
from dicom_quarry.demo.encoding import Element
from dicom_quarry.demo.query_matching import Catalogue, QueryIdentifier, Record
from dicom_quarry.demo.store_scu import NOT_SENT, AssociationFailed, CGetStoreSCU, StoreSCU
from dicom_quarry.demo.synthetic_studies import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PROFILES,
    RLE_LOSSLESS,
    DemoInstance,
    DemoStudy,
)
from dicom_quarry.errors import ConfigError, StartError
from dicom_quarry.model import Level
from dicom_quarry.version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

VERIFICATION = "1.2.840.10008.1.1"
PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE, PATIENT_ROOT_GET = (f"1.2.840.10008.5.1.4.1.2.1.{n}" for n in (1, 2, 3))
STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET = (f"1.2.840.10008.5.1.4.1.2.2.{n}" for n in (1, 2, 3))

R = TypeVar("R", bound=RetrieveOperation)


class DemoArchive:
    """A PACS for a test, a benchmark or a demonstration.

    ``destinations`` maps AE titles to the addresses to which a C-MOVE may send. Associations are served in
    threads of their own, any number at once. :attr:`finds` counts C-FIND requests by level, :attr:`moves`
    C-MOVE requests by Study Instance UID, :attr:`gets` those of C-GET.
    """

    def __init__(
        self,
        studies: Iterable[DemoStudy],
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
        self.gets: Counter[str] = Counter()
        self._counter_lock = threading.Lock()
        self._server: Any = None

    def start(self) -> Self:
        """Bind, listen and serve; afterwards :attr:`port` is the port in use."""
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._on_connection_open),
            (evt.EVT_REQUESTED, lambda event: self.on_association_request(event.assoc)),
        ]
        ae: Any = AE(self.title)
        ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_associations = 100
        ae.network_timeout = None
        try:
            self._server = _Server(
                ae, (self.host, self.port), self.title, _presentation_contexts(), evt_handlers=handlers
            )
        except OSError as error:
            raise StartError(
                f"the demo archive cannot listen on port {self.port}: {error.strerror}"
            ) from error
        self.port = self._server.server_address[1]
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(0.05,), name="demo-archive", daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening and end every association."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            for assoc in server.active_associations:
                assoc.abort()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- methods that a misbehaving archive overrides -------------------------------------------------------

    def on_association_request(self, assoc: Any) -> None:
        """Handle an association request before it is answered."""

    def on_request(self, kind: str, query: QueryIdentifier) -> None:
        """Count a C-FIND, C-MOVE or C-GET before it is answered."""
        with self._counter_lock:
            if kind == "find":
                self.finds[query.level] += 1
            else:
                counter = self.moves if kind == "move" else self.gets
                counter.update(query.values("StudyInstanceUID"))

    def find(
        self, query: QueryIdentifier, cancelled: Callable[[], bool]
    ) -> Iterator[tuple[int, Record | None]]:
        """Answer a C-FIND: (status, record) pairs, the final one without a record."""
        for record in self.catalogue.find(query):
            if cancelled():
                yield CANCELLED, None
                return
            yield PENDING, record
        yield SUCCESS, None

    def describe(self, record: Record) -> list[Element]:
        """Return a record as the identifier of a C-FIND response."""
        return record_to_elements(record)

    def move(self, move: MoveOperation) -> None:
        """Answer a C-MOVE: send the instances that it names to its destination, then the final response."""
        address = self.destinations.get(move.destination)
        if address is None:
            move.respond(DESTINATION_UNKNOWN)
            return
        self.deliver(move, address, self.catalogue.select(move.query))

    def deliver(
        self, move: MoveOperation, address: tuple[str, int], instances: Sequence[DemoInstance]
    ) -> None:
        """Perform the C-STORE sub-operations on one association, then send the final response."""
        self.run_sub_operations(
            move, instances, lambda: StoreSCU(address, move.destination, self.title, instances)
        )

    def get(self, get: GetOperation) -> None:
        """Answer a C-GET: send the instances that it names over its association, then the final response."""
        self.run_sub_operations(get, self.catalogue.select(get.query), lambda: CGetStoreSCU(get.assoc))

    def run_sub_operations(
        self,
        operation: RetrieveOperation,
        instances: Sequence[DemoInstance],
        associate: Callable[[], StoreSCU],
    ) -> None:
        """Send instances over the association that ``associate`` opens, then the final response."""
        tally = Tally(len(instances))
        try:
            if instances:
                with associate() as store:
                    self.send(operation, store, instances, tally)
        except AssociationFailed:
            for instance in instances[len(instances) - tally.remaining :]:
                tally.count(instance.sop_uid, NOT_SENT)
        if operation.is_alive:
            self.respond(operation, CANCELLED if tally.remaining else tally.final_status, tally)

    def send(
        self, operation: RetrieveOperation, store: StoreSCU, instances: Sequence[DemoInstance], tally: Tally
    ) -> None:
        """Send instances until all are sent, the peer cancels or its connection is closed."""
        for number, instance in enumerate(instances, start=1):
            if not self.should_continue(operation, number - 1):
                return
            originator = (operation.requestor_title, operation.message_id)
            status = store.store(instance, number % 0xFFFF, originator)
            tally.count(instance.sop_uid, status)
            if tally.remaining:
                self.respond(operation, PENDING, tally)

    def should_continue(self, operation: RetrieveOperation, sent: int) -> bool:  # noqa: ARG002
        """Return False if the peer has cancelled or closed; ``sent`` counts the sub-operations before."""
        return operation.is_alive and not operation.cancelled

    def respond(self, operation: RetrieveOperation, status: int, tally: Tally) -> None:
        """Send a pending or the final response; the final one lists the failed instances."""
        operation.respond(status, tally, failed_uids=() if status == PENDING else tally.failed_uids)

    # --- pynetdicom ---------------------------------------------------------------------------------------

    def _on_connection_open(self, event: Any) -> None:
        """Set TCP_NODELAY, and serve C-FIND, C-MOVE and C-GET instead of pynetdicom.

        Its handlers decide which responses and sub-operations are sent and counted. This class does so
        faster, and a subclass for tests can do it wrongly.
        """
        assoc = event.assoc
        assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        serve = assoc._serve_request

        def serve_request(message: Any, context_id: int) -> None:
            if isinstance(message, C_FIND) and message.is_valid_request:
                self._find(FindOperation(assoc, message, context_id))
            elif isinstance(message, C_MOVE) and message.is_valid_request:
                self._retrieve("move", MoveOperation(assoc, message, context_id), STUDY_ROOT_MOVE, self.move)
            elif isinstance(message, C_GET) and message.is_valid_request:
                self._retrieve("get", GetOperation(assoc, message, context_id), STUDY_ROOT_GET, self.get)
            else:
                serve(message, context_id)
            assoc.dimse.cancel_req.clear()

        assoc._serve_request = serve_request

    def _find(self, find: FindOperation) -> None:
        self.on_request("find", find.query)
        if not _is_level_supported(find, STUDY_ROOT_FIND):
            find.respond(BAD_IDENTIFIER)
            return
        for status, record in self.find(find.query, lambda: find.cancelled):
            if not find.is_alive:
                return
            if record is None:
                find.respond(status)
            else:
                find.respond(status, self.describe(record | self._common_attributes(find.query)))

    def _common_attributes(self, query: QueryIdentifier) -> Record:
        """Return the attributes that every result has besides its keys (PS3.4 C.4.1.1.3.2)."""
        return {
            "SpecificCharacterSet": "ISO_IR 192",
            "QueryRetrieveLevel": query.level,
            "RetrieveAETitle": self.title,
        }

    def _retrieve(self, kind: str, operation: R, study_root: str, handler: Callable[[R], None]) -> None:
        self.on_request(kind, operation.query)
        if _is_level_supported(operation, study_root) and _has_unique_keys(operation.query):
            handler(operation)
        else:
            operation.respond(BAD_IDENTIFIER)


class _Server(ThreadedAssociationServer):
    """pynetdicom's server without its AE class, which takes half a second to stop."""

    def service_actions(self) -> None:
        """Do nothing: pynetdicom collects garbage here, every sixty turns."""

    def shutdown(self) -> None:
        """Stop accepting, and close the socket."""
        BaseServer.shutdown(self)
        self.server_close()


def _is_level_supported(operation: DimseOperation, study_root: str) -> bool:
    """Return True if the level exists in the model (PS3.4 C.6.1.1, C.6.2.1)."""
    level = operation.query.level
    return level in set(Level) and not (operation.sop_class == study_root and level == Level.PATIENT)


def _has_unique_keys(query: QueryIdentifier) -> bool:
    """Return True if a retrieval has a value for the unique key of its level (PS3.4 C.4.2.1.4)."""
    keyword = {"PATIENT": "PatientID", "IMAGE": "SOPInstanceUID", "SERIES": "SeriesInstanceUID"}
    return bool(query.values(keyword.get(query.level, "StudyInstanceUID")))


def _presentation_contexts() -> list[Any]:
    plain = [EXPLICIT_LITTLE, IMPLICIT_LITTLE]
    queries = (VERIFICATION, PATIENT_ROOT_FIND, STUDY_ROOT_FIND)
    retrievals = (PATIENT_ROOT_MOVE, STUDY_ROOT_MOVE, PATIENT_ROOT_GET, STUDY_ROOT_GET)
    contexts: list[Any] = [build_context(service, plain) for service in (*queries, *retrievals)]
    for sop_class in dict.fromkeys(kind.sop_class for kind in PROFILES.values()):
        context: Any = build_context(sop_class, [*plain, EXPLICIT_BIG, RLE_LOSSLESS])
        # The requestor of a C-GET is the SCP of its sub-operations (PS3.7 D.3.3.4).
        context.scu_role = context.scp_role = True
        contexts.append(context)
    return contexts
