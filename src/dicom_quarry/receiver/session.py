"""One connection to the receiver, from the transport connection to its end; one thread each."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Protocol

from dicom_quarry.errors import Lost, RemoteProtocolError
from dicom_quarry.model import Sink
from dicom_quarry.receiver.access_control import Refusal, Scope
from dicom_quarry.receiver.tls_handshake import dismiss, secure, why_failed
from dicom_quarry.wire import dimse
from dicom_quarry.wire.association import Aborted, Association, Event, Rejection, ReleaseRequested, State
from dicom_quarry.wire.c_store import Incoming, Intake, Sender
from dicom_quarry.wire.connection import DEFAULT_MAX_PDU, Channel
from dicom_quarry.wire.dimse import Command, CommandField, MessageReader
from dicom_quarry.wire.negotiation import (
    APPLICATION_CONTEXT,
    AcceptorPolicy,
    AssociateRequest,
    accepted_contexts,
    is_verification,
)
from dicom_quarry.wire.pdu import PDVFragment

logger = logging.getLogger(__name__)

#: How often a thread that waits for bytes looks at the clock, and at whether the receiver stops.
_TICK = 0.5
#: How long the peer has to close the connection after our last word (the ARTIM timer, PS3.8 9.1.5).
_ARTIM = 2.0
#: Within a message, less than this in ``drip_timeout`` seconds is not a slow archive but a stuck one.
_DRIP_BYTES = 4096

# PS3.8 table 9-21: rejected-permanent for reasons of the protocol.
_VERSION_UNKNOWN = Rejection(result=1, source=2, reason=2)
_APPLICATION_CONTEXT_UNKNOWN = Rejection(result=1, source=1, reason=2)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the receiver bears; times in seconds.

    An archive may be silent for long between two instances of a move: an idle association is kept for ever
    unless ``idle_timeout`` is given.
    """

    max_associations: int = 64
    max_per_peer: int = 32
    max_pending: int = 64  # connections without an association; for one more, the oldest has to go
    request_timeout: float = 30.0
    idle_timeout: float | None = None
    drip_timeout: float = 120.0
    max_pdu: int = DEFAULT_MAX_PDU


class House(Protocol):
    """What a session needs of the receiver that it belongs to."""

    sink: Sink
    limits: Limits
    tls: ssl.SSLContext | None
    stopping: bool

    def enter(self, session: Session, request: AssociateRequest) -> Scope | Refusal:
        """Let an association in, and count it; or say why not."""

    def turned_away(self, session: Session, why: str) -> None:
        """Take note of a peer that did not get as far as an association."""

    def count(self, incoming: Incoming) -> None:
        """Take note of an instance that was answered."""


class Session:
    """Answers C-ECHO and C-STORE for one peer."""

    def __init__(self, sock: socket.socket, address: str, house: House) -> None:
        self.address = address
        self._sock = sock
        self._house = house
        self._association = Association(max_pdu=house.limits.max_pdu, requestor=False)
        self._messages = MessageReader(())
        self._intake = Intake(house.sink, {}, Sender("", "", address), house.count)
        self._over = False
        self._heard = self._window_began = time.monotonic()
        self._window_bytes = 0

    def run(self) -> None:
        """The whole life of the connection; never raises."""
        try:
            self._channel = Channel(self._secured(), self._association)
        except (OSError, ValueError) as error:  # ValueError: cut while the hands were being shaken
            logger.info("no TLS connection with %s: %s", self.address, type(error).__name__)
            if why := why_failed(error):
                self._house.turned_away(self, why)
            dismiss(self._sock)
            return
        try:
            while not self._over:
                count = self._channel.fill(_TICK)
                for event in self._association.events():
                    self._take(event)
                self._watch(count)
        except Lost as loss:
            logger.info("association with %s: %s", self.address, loss)
        except RemoteProtocolError as error:
            logger.warning("association with %s aborted, it broke the protocol: %s", self.address, error)
        except Exception as error:  # noqa: BLE001 - the thread's edge: one session must not end the receiver
            logger.error("association with %s aborted: %s", self.address, type(error).__name__)
        finally:
            self._leave()

    def cut(self) -> None:
        """End the connection at once; called from other threads."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has ended by itself
            pass

    def _secured(self) -> socket.socket:
        if self._house.tls:
            self._sock = secured = secure(self._sock, self._house.tls, self._house.limits.request_timeout)
            secured.do_handshake()
        return self._sock

    def _leave(self) -> None:
        try:
            self._intake.abort()
        finally:
            self._channel.farewell(self._association.abort(), _ARTIM)
            self._channel.close()

    def _watch(self, count: int) -> None:
        """Clocks: the association request, silence between messages, a trickle within one; and the stop."""
        now = time.monotonic()
        limits = self._house.limits
        self._window_bytes += count
        if count:
            self._heard = now
        if self._association.state is State.AWAITING_REQUEST:
            if now - self._window_began > limits.request_timeout:
                raise Lost(f"no association was asked for within {limits.request_timeout:g} s")
        elif self._messages.within_message:
            if now - self._window_began > limits.drip_timeout:
                if self._window_bytes < _DRIP_BYTES:
                    raise Lost(f"only {self._window_bytes} bytes of a message in {limits.drip_timeout:g} s")
                self._window_began, self._window_bytes = now, 0
        else:
            self._window_began, self._window_bytes = now, 0
            if self._house.stopping:
                raise Lost("the receiver stops")
            if limits.idle_timeout is not None and now - self._heard > limits.idle_timeout:
                raise Lost(f"idle for {limits.idle_timeout:g} s")

    # ---- the association

    def _take(self, event: Event) -> None:
        match event:
            case PDVFragment():
                self._take_fragment(event)
            case AssociateRequest():
                self._answer(event)
            case ReleaseRequested():
                self._channel.send([self._association.confirm_release()])
                self._over = True
            case Aborted():
                raise Lost("it was aborted by its requestor")

    def _answer(self, request: AssociateRequest) -> None:
        rejection = self._objection(request)
        decision = rejection or self._house.enter(self, request)
        if isinstance(decision, Refusal):
            rejection = decision.rejection
        if rejection:
            self._channel.send([self._association.reject(rejection)])
            self._over = True
            return
        policy = AcceptorPolicy(self._house.limits.max_pdu)
        if decision is Scope.ECHO:
            policy = AcceptorPolicy(self._house.limits.max_pdu, takes=is_verification)
        accept = policy.answer(request)
        accepted = accepted_contexts(request, accept)
        storage = {
            number: one.transfer_syntax
            for number, one in accepted.items()
            if not is_verification(one.abstract_syntax)
        }
        sender = Sender(request.calling, request.called, self.address)
        self._intake = Intake(self._house.sink, storage, sender, self._house.count)
        self._messages = MessageReader(accepted)
        self._channel.send([self._association.accept(accept)])

    @staticmethod
    def _objection(request: AssociateRequest) -> Rejection | None:
        if not request.protocol_version & 1:
            return _VERSION_UNKNOWN
        if request.application_context != APPLICATION_CONTEXT:
            return _APPLICATION_CONTEXT_UNKNOWN
        return None

    # ---- messages

    def _take_fragment(self, fragment: PDVFragment) -> None:
        taken = self._messages.take(fragment)
        if isinstance(taken, Command):
            self._begin(fragment.context_id, taken)
        elif taken is not None:
            self._respond(fragment.context_id, self._intake.take(taken))

    def _begin(self, context_id: int, command: Command) -> None:
        match command.field:
            case CommandField.C_STORE_RQ:
                self._respond(context_id, self._intake.begin(context_id, command))
            case CommandField.C_ECHO_RQ if not command.has_dataset:
                self._respond(context_id, dimse.response(command, dimse.SUCCESS))
            case CommandField.C_CANCEL_RQ if not command.has_dataset:
                pass  # an instance is stored or not: there is nothing to cancel
            case _:
                raise RemoteProtocolError(f"{command.field.name} is not a request to a Storage SCP")

    def _respond(self, context_id: int, response: Command | None) -> None:
        if response is not None:
            self._channel.send(self._association.send(context_id, dimse.encode(response)))
