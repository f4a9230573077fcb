"""Requestor of an association over its transport connection: what this side sends, and the responses."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from dicom_quarry.errors import ConnectionLost, Rejected, RemoteProtocolError, Unreachable
from dicom_quarry.model import AE, Sink
from dicom_quarry.wire import dimse, error_messages
from dicom_quarry.wire.association import (
    Aborted,
    Association,
    Event,
    Rejection,
    Released,
    ReleaseRequested,
)
from dicom_quarry.wire.c_store import DimseMessage, MessageAssembler, Sender
from dicom_quarry.wire.connection import DEFAULT_MAX_PDU, SocketConnection, connect
from dicom_quarry.wire.dimse import Command
from dicom_quarry.wire.negotiation import (
    AssociateAccept,
    AssociateRequest,
    Roles,
    accepted_contexts,
    propose_contexts,
)
from dicom_quarry.wire.pdu import PDVFragment

#: Seconds that a final response waits for its announced list of failed instances.
_FAILED_LIST_TIMEOUT = 1.0


class Requestor:
    """Requestor of an association: created by :meth:`connect`, used by one thread.

    ``accepted`` maps each abstract syntax to the first accepted context ID and its transfer syntax. ``roles``
    are the proposed roles that the peer accepted. ``last_store_at`` is when a piece of an instance last came
    (monotonic clock).
    """

    def __init__(self, peer: AE, connection: SocketConnection, association: Association) -> None:
        self.peer = peer
        self.accepted: Mapping[str, tuple[int, str]] = {}
        self.roles: Mapping[str, Roles] = {}
        self.last_store_at = 0.0
        self._connection = connection
        self._association = association
        self._assembler = MessageAssembler({})
        # The end of the association: raised only after the messages that came before it were returned.
        self._pending_error: ConnectionLost | RemoteProtocolError | None = None
        self._list_waited = 0.0
        self._is_alive = True
        self._state_lock = threading.Lock()
        self._use_lock = threading.Lock()

    @classmethod
    def connect(
        cls,
        peer: AE,
        *,
        calling: str,
        contexts: Sequence[tuple[str, Sequence[str]]],
        connect_timeout: float = 10.0,
        answer_timeout: float = 30.0,
        max_pdu: int = DEFAULT_MAX_PDU,
        tls: ssl.SSLContext | None = None,
        roles: Mapping[str, Roles] | None = None,
    ) -> Requestor:
        """Connect and negotiate, with one presentation context per pair of abstract and transfer syntaxes.

        ``roles`` are the proposed SCU and SCP roles of this side by SOP class (PS3.7 D.3.3.4). Time-outs are
        in seconds. Raises Unreachable or Rejected.
        """
        proposed = propose_contexts(contexts)
        association = Association(max_pdu=max_pdu, is_requestor=True)
        connection = SocketConnection(connect(peer, connect_timeout, tls), association)
        requestor = cls(peer, connection, association)
        try:
            requestor._negotiate(
                AssociateRequest(peer.title, calling, proposed, max_pdu, roles or {}), answer_timeout
            )
        except BaseException:
            requestor.abort()
            raise
        return requestor

    def _negotiate(self, request: AssociateRequest, timeout: float) -> None:
        where = f"{self.peer.host}:{self.peer.port}"
        deadline = time.monotonic() + timeout
        try:
            self._connection.send([self._association.request(request)])
            while (left := deadline - time.monotonic()) > 0:
                self._connection.read_once(left)
                for event in self._association.events():
                    return self._handle_answer(request, event)
        except ConnectionLost as error:
            raise Unreachable(
                error_messages.describe_early_close(where, error.__cause__, is_tls=self._connection.is_tls),
                is_connected=True,
            ) from error
        except RemoteProtocolError as error:
            raise Unreachable(
                f"{where} did not answer with DICOM. Check that this is the archive's DICOM port"
            ) from error
        raise Unreachable(
            f"{where} accepted the connection but did not answer the association request within "
            f"{timeout:g} s. Check that this is the archive's DICOM port, and whether it expects TLS",
            is_connected=True,
        )

    def _handle_answer(self, request: AssociateRequest, event: Event) -> None:
        if isinstance(event, Rejection):
            raise Rejected(
                error_messages.describe_rejection(str(self.peer), request, event),
                permanent=not event.is_transient,
                is_explained=event.is_explained,
            )
        if not isinstance(event, AssociateAccept):
            detail = f"{self.peer} aborted instead of answering the association request"
            raise Unreachable(detail, is_connected=True)
        contexts = accepted_contexts(request, event)
        # Reversed, so that the first context of an abstract syntax remains.
        items = reversed(list(contexts.items()))
        self.accepted = {one.abstract_syntax: (number, one.transfer_syntax) for number, one in items}
        self.roles = event.roles
        self._assembler = MessageAssembler(contexts)

    def accept_c_store(self, sink: Sink, called_ae: str) -> None:
        """Accept C-STORE requests of the peer for a C-GET (PS3.4 C.4.3); ``called_ae`` is our AE title."""
        self._assembler.accept_c_store(sink, Sender(self.peer.title, called_ae, self.peer.host))

    @property
    def is_alive(self) -> bool:
        """False once the association has ended; without a read, an end by the peer is not noticed."""
        return self._is_alive

    def check_idle(self) -> bool:
        """Return True if the idle association can be used; abort one that the peer has ended meanwhile."""
        try:
            with self._exclusive_use():
                self._handle_events()
                self._check_alive()
                if self._connection.has_data:
                    self._connection.read_once(0.0)
                    self._handle_events()
                    self._check_alive()
                if self._assembler.messages:
                    raise ConnectionLost("a message came without a request")
        except ConnectionLost:
            return False
        return True

    def send(self, command: Command, dataset: bytes = b"", *, context_id: int) -> None:
        """Send one message; raises ConnectionLost."""
        with self._exclusive_use():
            with self._state_lock:
                self._check_alive()
                pieces = self._association.send(context_id, dimse.encode(command), dataset)
            self._connection.send(pieces)

    def receive(self, timeout: float) -> DimseMessage | None:
        """Return the next whole message, or None if none came within ``timeout`` seconds.

        Raises ConnectionLost when the association has ended or had to be aborted.
        """
        deadline = time.monotonic() + timeout
        left = timeout
        with self._exclusive_use():
            self._handle_events()  # bytes that came in one read with the answer to the association request
            while not self._assembler.messages:
                if left < 0:
                    return None
                self._read_more(left)
                left = deadline - time.monotonic()
            return self._assembler.messages.pop(0)

    def _read_more(self, timeout: float) -> None:
        """Read once; a final response whose list of failed instances does not come is complete without it."""
        started = time.monotonic()
        is_list_due = self._assembler.awaits_failed_list
        try:
            self._check_alive()
            self._connection.read_once(min(timeout, _FAILED_LIST_TIMEOUT) if is_list_due else timeout)
        except (ConnectionLost, RemoteProtocolError) as error:
            if not self._assembler.complete_without_list():
                raise
            self._end_with(error)
            return
        self._handle_events()
        if is_list_due:
            self._list_waited += time.monotonic() - started
            if self._list_waited >= _FAILED_LIST_TIMEOUT:
                self._assembler.complete_without_list()
        else:
            self._list_waited = 0.0

    @contextmanager
    def _exclusive_use(self) -> Iterator[None]:
        """Hold the socket for this thread, so that abort() in another thread does not close it meanwhile."""
        try:
            with self._use_lock:
                yield
        except ConnectionLost as error:
            self.abort()
            raise ConnectionLost(f"{self.peer}: {error}") from error
        except RemoteProtocolError as error:
            self.abort()
            raise ConnectionLost(f"{self.peer} broke the protocol: {error}") from error
        finally:
            if not self._is_alive:
                self._close()

    def _close(self) -> None:
        self._assembler.abort()
        self._connection.close()

    def _check_alive(self) -> None:
        if self._pending_error is not None:
            raise self._pending_error
        if not self._is_alive:
            raise ConnectionLost("the association has ended")

    def _handle_events(self) -> None:
        """Handle the bytes that have come; an error among them is raised after the messages before it."""
        with self._state_lock:
            try:
                for event in self._association.events():
                    if isinstance(event, PDVFragment):
                        self._handle_fragment(event)
                    elif isinstance(event, ReleaseRequested):
                        self._end_with(ConnectionLost("it released the association"))
                        self._reply([self._association.confirm_release()])
                    elif isinstance(event, Aborted):
                        self._end_with(ConnectionLost("it aborted the association"))
            except RemoteProtocolError as error:
                self._end_with(error)

    def _handle_fragment(self, fragment: PDVFragment) -> None:
        response = self._assembler.feed(fragment)
        if self._assembler.is_receiving:
            self.last_store_at = time.monotonic()
        if response is not None:
            self._reply(self._association.send(fragment.context_id, dimse.encode(response)))

    def _reply(self, pieces: Iterable[bytes]) -> None:
        """Send while bytes of the peer wait to be handled: a failure must not lose them."""
        try:
            self._connection.send(pieces)
        except ConnectionLost as lost:
            self._end_with(lost)

    def _end_with(self, error: ConnectionLost | RemoteProtocolError) -> None:
        self._pending_error = self._pending_error or error

    def release(self, timeout: float = 5.0) -> None:
        """Release the association (PS3.8 7.2), or abort it without a confirmation in time; never raises."""
        deadline = time.monotonic() + timeout
        try:
            with self._exclusive_use():
                self._check_alive()
                with self._state_lock:
                    request = self._association.release()
                self._connection.send([request])
                while (left := deadline - time.monotonic()) > 0 and not self._is_released():
                    self._connection.read_once(left)
        except ConnectionLost:
            pass
        self.abort()

    def _is_released(self) -> bool:
        with self._state_lock:
            for event in self._association.events():
                if isinstance(event, ReleaseRequested):  # a collision: PS3.8 7.2.2.7
                    self._connection.send([self._association.confirm_release()])
                elif isinstance(event, Released | Aborted):
                    return True
        return False

    def abort(self) -> None:
        """Abort the association; never raises, and may be called from any thread."""
        idle = self._use_lock.acquire(blocking=False)
        with self._state_lock:
            self._is_alive = False
            abort_pdu = self._association.abort()
        self._connection.shutdown(abort_pdu, in_use=not idle)
        if idle:
            self._close()
            self._use_lock.release()
