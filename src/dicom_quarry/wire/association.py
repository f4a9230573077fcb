"""State machine of the DICOM upper layer (PS3.8 section 9.2), for acceptor and requestor, without I/O.

Theory of operation:

- An :class:`Association` is always in one of the thirteen states of the standard (:class:`State`). It changes
  its state only when one of nineteen triggers occurs (:class:`Trigger`).
- One table, ``TRANSITIONS``, gives the action and the next state for every pair of state and trigger. It is
  PS3.8 table 9-10. The code has no other rule about order, except for the release collision, where the next
  state depends on the role (AR-8).
- Triggers of the peer are PDUs. The owner of the socket reads into ``reader.get_buffer()``, reports the
  number of bytes with ``reader.buffer_updated()``, and iterates over ``events()``.
- Triggers of this side are method calls: ``request()``, ``accept()``, ``send()``, ``release()`` and so on.
  Each returns the bytes to send.
- An exception names the side at fault. A PDU that the table answers with an abort, or that cannot be decoded,
  raises RemoteProtocolError; ``abort()`` then returns the A-ABORT to send. A call that the table does not
  allow raises LocalProtocolError, which is a defect of Quarry.
- Timers and the transport connection belong to the owner of the socket. It closes the connection when the
  ARTIM timer expires (PS3.8 9.1.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum

from dicom_quarry.errors import LocalProtocolError, RemoteProtocolError
from dicom_quarry.wire import negotiation, pdu
from dicom_quarry.wire.negotiation import AssociateAccept, AssociateRequest, PresentationContext
from dicom_quarry.wire.pdu import ControlPdu, PduReader, PduType, PDVFragment

__all__ = ["Association", "PresentationContext", "State"]


class State(IntEnum):
    """States of PS3.8 tables 9-1 to 9-5; the value is the standard's number."""

    IDLE = 1
    AWAITING_REQUEST = 2
    AWAITING_LOCAL_ANSWER = 3
    CONNECTING = 4
    AWAITING_ANSWER = 5
    ESTABLISHED = 6
    AWAITING_RELEASE_RP = 7
    AWAITING_LOCAL_RELEASE = 8
    COLLISION_REQUESTOR_LOCAL = 9
    COLLISION_ACCEPTOR_RP = 10
    COLLISION_REQUESTOR_RP = 11
    COLLISION_ACCEPTOR_LOCAL = 12
    CLOSING = 13


class Trigger(IntEnum):
    """Causes of a transition: the rows of PS3.8 table 9-10 by their number."""

    ASSOCIATE_REQUEST = 1
    CONNECTED = 2
    AC_RECEIVED = 3
    RJ_RECEIVED = 4
    CONNECTION_INDICATED = 5
    RQ_RECEIVED = 6
    ACCEPT = 7
    REJECT = 8
    DATA_REQUEST = 9
    DATA_RECEIVED = 10
    RELEASE_REQUEST = 11
    RELEASE_RQ_RECEIVED = 12
    RELEASE_RP_RECEIVED = 13
    RELEASE_RESPONSE = 14
    ABORT_REQUEST = 15
    ABORT_RECEIVED = 16
    CONNECTION_CLOSED = 17
    ARTIM_EXPIRED = 18
    INVALID_PDU = 19


class Action(Enum):
    """Actions of PS3.8 tables 9-6 to 9-9, reduced to their effect on the user of an association."""

    SEND = "send the PDU of the call, if it has one"
    EMIT = "give the user an event"
    IGNORE = "AA-6: ignore the PDU"
    CLOSE = "AA-2, AR-5: close the transport connection, without an event"
    PEER_GONE = "AA-3, AA-4: give the user an event; the association has ended"
    ABORT = "AA-1, AA-7, AA-8: send A-ABORT, then wait for the peer to close"


# Transitions that the states between the association request and the end of the release share.
_ON_END: dict[Trigger, tuple[Action, State]] = {
    Trigger.ABORT_REQUEST: (Action.ABORT, State.CLOSING),
    Trigger.ABORT_RECEIVED: (Action.PEER_GONE, State.IDLE),
    Trigger.CONNECTION_CLOSED: (Action.PEER_GONE, State.IDLE),
}
_ON_UNEXPECTED: dict[Trigger, tuple[Action, State]] = dict.fromkeys(
    (
        Trigger.AC_RECEIVED,
        Trigger.RJ_RECEIVED,
        Trigger.RQ_RECEIVED,
        Trigger.DATA_RECEIVED,
        Trigger.RELEASE_RQ_RECEIVED,
        Trigger.RELEASE_RP_RECEIVED,
        Trigger.INVALID_PDU,
    ),
    (Action.ABORT, State.CLOSING),
)
_ON_END_OR_UNEXPECTED = _ON_END | _ON_UNEXPECTED

#: PS3.8 table 9-10, complete. A pair that it does not contain is illegal.
TRANSITIONS: dict[State, dict[Trigger, tuple[Action, State]]] = {
    State.IDLE: {
        Trigger.ASSOCIATE_REQUEST: (Action.SEND, State.CONNECTING),
        Trigger.CONNECTION_INDICATED: (Action.SEND, State.AWAITING_REQUEST),
    },
    State.AWAITING_REQUEST: _ON_UNEXPECTED
    | {
        Trigger.RQ_RECEIVED: (Action.EMIT, State.AWAITING_LOCAL_ANSWER),
        Trigger.ABORT_RECEIVED: (Action.CLOSE, State.IDLE),
        Trigger.CONNECTION_CLOSED: (Action.CLOSE, State.IDLE),
        Trigger.ARTIM_EXPIRED: (Action.CLOSE, State.IDLE),
    },
    State.AWAITING_LOCAL_ANSWER: _ON_END_OR_UNEXPECTED
    | {
        Trigger.ACCEPT: (Action.SEND, State.ESTABLISHED),
        Trigger.REJECT: (Action.SEND, State.CLOSING),
    },
    State.CONNECTING: {
        Trigger.CONNECTED: (Action.SEND, State.AWAITING_ANSWER),
        Trigger.ABORT_REQUEST: (Action.CLOSE, State.IDLE),
        Trigger.CONNECTION_CLOSED: (Action.PEER_GONE, State.IDLE),
    },
    State.AWAITING_ANSWER: _ON_END_OR_UNEXPECTED
    | {
        Trigger.AC_RECEIVED: (Action.EMIT, State.ESTABLISHED),
        Trigger.RJ_RECEIVED: (Action.EMIT, State.IDLE),
    },
    State.ESTABLISHED: _ON_END_OR_UNEXPECTED
    | {
        Trigger.DATA_REQUEST: (Action.SEND, State.ESTABLISHED),
        Trigger.DATA_RECEIVED: (Action.EMIT, State.ESTABLISHED),
        Trigger.RELEASE_REQUEST: (Action.SEND, State.AWAITING_RELEASE_RP),
        Trigger.RELEASE_RQ_RECEIVED: (Action.EMIT, State.AWAITING_LOCAL_RELEASE),
    },
    State.AWAITING_RELEASE_RP: _ON_END_OR_UNEXPECTED
    | {
        Trigger.DATA_RECEIVED: (Action.EMIT, State.AWAITING_RELEASE_RP),
        # AR-8, a release collision: on the acceptor's side the next state is COLLISION_ACCEPTOR_RP.
        Trigger.RELEASE_RQ_RECEIVED: (Action.EMIT, State.COLLISION_REQUESTOR_LOCAL),
        Trigger.RELEASE_RP_RECEIVED: (Action.EMIT, State.IDLE),
    },
    State.AWAITING_LOCAL_RELEASE: _ON_END_OR_UNEXPECTED
    | {
        Trigger.DATA_REQUEST: (Action.SEND, State.AWAITING_LOCAL_RELEASE),
        Trigger.RELEASE_RESPONSE: (Action.SEND, State.CLOSING),
    },
    State.COLLISION_REQUESTOR_LOCAL: _ON_END_OR_UNEXPECTED
    | {Trigger.RELEASE_RESPONSE: (Action.SEND, State.COLLISION_REQUESTOR_RP)},
    State.COLLISION_ACCEPTOR_RP: _ON_END_OR_UNEXPECTED
    | {Trigger.RELEASE_RP_RECEIVED: (Action.EMIT, State.COLLISION_ACCEPTOR_LOCAL)},
    State.COLLISION_REQUESTOR_RP: _ON_END_OR_UNEXPECTED
    | {Trigger.RELEASE_RP_RECEIVED: (Action.EMIT, State.IDLE)},
    State.COLLISION_ACCEPTOR_LOCAL: _ON_END_OR_UNEXPECTED
    | {Trigger.RELEASE_RESPONSE: (Action.SEND, State.CLOSING)},
    State.CLOSING: {
        Trigger.AC_RECEIVED: (Action.IGNORE, State.CLOSING),
        Trigger.RJ_RECEIVED: (Action.IGNORE, State.CLOSING),
        Trigger.RQ_RECEIVED: (Action.ABORT, State.CLOSING),
        Trigger.DATA_RECEIVED: (Action.IGNORE, State.CLOSING),
        Trigger.RELEASE_RQ_RECEIVED: (Action.IGNORE, State.CLOSING),
        Trigger.RELEASE_RP_RECEIVED: (Action.IGNORE, State.CLOSING),
        Trigger.ABORT_RECEIVED: (Action.CLOSE, State.IDLE),
        Trigger.CONNECTION_CLOSED: (Action.CLOSE, State.IDLE),
        Trigger.ARTIM_EXPIRED: (Action.CLOSE, State.IDLE),
        Trigger.INVALID_PDU: (Action.ABORT, State.CLOSING),
    },
}

_PDU_TRIGGERS = {
    PduType.ASSOCIATE_RQ: Trigger.RQ_RECEIVED,
    PduType.ASSOCIATE_AC: Trigger.AC_RECEIVED,
    PduType.ASSOCIATE_RJ: Trigger.RJ_RECEIVED,
    PduType.RELEASE_RQ: Trigger.RELEASE_RQ_RECEIVED,
    PduType.RELEASE_RP: Trigger.RELEASE_RP_RECEIVED,
    PduType.ABORT: Trigger.ABORT_RECEIVED,
}


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4, table 9-21)."""

    result: int
    source: int
    reason: int

    @property
    def is_transient(self) -> bool:
        """True if a later request may be accepted, as after congestion or a limit called permanent."""
        return self.result == 2 or self.source == 3

    @property
    def is_explained(self) -> bool:
        """False for "no reason given"."""
        return (self.source, self.reason) not in ((1, 1), (2, 1))


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    """A-RELEASE-RQ of the peer (PS3.8 9.3.6); answer it with ``confirm_release()``."""


@dataclass(frozen=True, slots=True)
class Released:
    """A-RELEASE-RP of the peer (PS3.8 9.3.7): the association has ended in order."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """A-ABORT of the peer (PS3.8 9.3.8)."""

    source: int
    reason: int


Event = PDVFragment | AssociateRequest | AssociateAccept | Rejection | ReleaseRequested | Released | Aborted


class Association:
    """One association, from the start of its transport connection to its end.

    ``max_pdu`` is the longest P-DATA-TF, in bytes, that this side announces (PS3.8 D.1; 0: no limit).
    ``peer_max_pdu`` is the same number of the peer, known once its association PDU was read.
    """

    def __init__(self, *, max_pdu: int, is_requestor: bool) -> None:
        self.state = State.IDLE
        self.reader = PduReader(max_pdu)
        self.peer_max_pdu = 0
        self._is_requestor = is_requestor
        self._pending_abort = b""
        if not is_requestor:
            self._transition(Trigger.CONNECTION_INDICATED)

    def _transition(self, trigger: Trigger) -> Action:
        try:
            action, state = TRANSITIONS[self.state][trigger]
        except KeyError:
            raise LocalProtocolError(f"{trigger.name} is not possible in state {self.state.name}") from None
        if state is State.COLLISION_REQUESTOR_LOCAL and not self._is_requestor:
            state = State.COLLISION_ACCEPTOR_RP
        self.state = state
        return action

    # ---- triggers of the peer

    def events(self) -> Iterator[Event]:
        """Decode the bytes read so far into events.

        Raises RemoteProtocolError; then send the bytes that ``abort()`` returns.
        """
        try:
            for unit in self.reader.units():
                if isinstance(unit, PDVFragment):
                    # Data in ESTABLISHED changes nothing: the table is not consulted for every fragment.
                    if self.state is State.ESTABLISHED or self._transition_by_peer(Trigger.DATA_RECEIVED):
                        yield unit
                elif self._transition_by_peer(_PDU_TRIGGERS[unit.type]):
                    yield self._decode_event(unit)
        except RemoteProtocolError:
            if not self._pending_abort and self.state is not State.IDLE:
                self._transition(Trigger.INVALID_PDU)
                self._pending_abort = pdu.encode_abort(source=2, reason=6)  # invalid PDU parameter value
            raise

    def _transition_by_peer(self, trigger: Trigger) -> bool:
        """Apply a trigger of the peer; return whether it is an event for the user."""
        before = self.state
        if before is State.IDLE:  # bytes after the end have no meaning
            return False
        action = self._transition(trigger)
        if action is Action.ABORT:
            self._pending_abort = pdu.encode_abort(source=2, reason=2)  # unexpected PDU
            raise RemoteProtocolError(f"{trigger.name} is not expected in state {before.name}")
        return action in (Action.EMIT, Action.PEER_GONE)

    def _decode_event(self, unit: ControlPdu) -> Event:
        body = unit.body
        match unit.type:
            case PduType.ASSOCIATE_RQ:
                request = negotiation.decode_request(body)
                self.peer_max_pdu = request.max_pdu
                return request
            case PduType.ASSOCIATE_AC:
                accept = negotiation.decode_accept(body)
                self.peer_max_pdu = accept.max_pdu
                return accept
            case PduType.ASSOCIATE_RJ:
                return Rejection(body[1], body[2], body[3])
            case PduType.RELEASE_RQ:
                return ReleaseRequested()
            case PduType.RELEASE_RP:
                return Released()
            case _:
                return Aborted(body[2], body[3])

    # ---- triggers of this side

    def request(self, request: AssociateRequest) -> bytes:
        """Request the association (PS3.8 7.1.1); the transport connection must be open."""
        self._transition(Trigger.ASSOCIATE_REQUEST)
        self._transition(Trigger.CONNECTED)
        return pdu.encode_pdu(PduType.ASSOCIATE_RQ, negotiation.encode_request(request))

    def accept(self, accept: AssociateAccept) -> bytes:
        """Accept the association that the peer requested."""
        self._transition(Trigger.ACCEPT)
        return pdu.encode_pdu(PduType.ASSOCIATE_AC, negotiation.encode_accept(accept))

    def reject(self, rejection: Rejection) -> bytes:
        """Reject the association that the peer requested."""
        self._transition(Trigger.REJECT)
        return pdu.encode_reject(rejection.result, rejection.source, rejection.reason)

    def send(self, context_id: int, command: bytes, dataset: bytes = b"") -> Iterator[bytes]:
        """Encode a message as pieces to send in order; only a large dataset needs more than one."""
        self._transition(Trigger.DATA_REQUEST)
        return pdu.encode_message(context_id, command, dataset, self.peer_max_pdu)

    def release(self) -> bytes:
        """Request the release of the association (PS3.8 7.2)."""
        self._transition(Trigger.RELEASE_REQUEST)
        return pdu.encode_release(PduType.RELEASE_RQ)

    def confirm_release(self) -> bytes:
        """Confirm the release that the peer requested."""
        self._transition(Trigger.RELEASE_RESPONSE)
        return pdu.encode_release(PduType.RELEASE_RP)

    def abort(self) -> bytes:
        """Abort the association (PS3.8 7.3); return the A-ABORT to send, empty if it has ended already."""
        abort_pdu, self._pending_abort = self._pending_abort, b""
        if abort_pdu or Trigger.ABORT_REQUEST not in TRANSITIONS[self.state]:
            return abort_pdu
        action = self._transition(Trigger.ABORT_REQUEST)
        return pdu.encode_abort(source=0, reason=0) if action is Action.ABORT else b""
