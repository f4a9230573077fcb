"""The Storage SCP: its listening thread, its sessions, its limits and its counters (PS3.4 annex B)."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dicom_quarry.model import AE, Sink
from dicom_quarry.receiver.access_control import AccessDenial, AccessPolicy, AccessScope
from dicom_quarry.receiver.listen_socket import listen
from dicom_quarry.receiver.session import ReceiverLimits, Session
from dicom_quarry.receiver.stats import ReceiverStats
from dicom_quarry.wire import dimse
from dicom_quarry.wire.association import Rejection
from dicom_quarry.wire.c_store import IncomingInstance
from dicom_quarry.wire.negotiation import AssociateRequest, is_verification

__all__ = ["AccessPolicy", "Receiver", "ReceiverLimits", "ReceiverStats", "SenderRejected"]

logger = logging.getLogger(__name__)

#: Seconds that threads have to finish their work in the sink after their connections were cut.
_ABORT_TIMEOUT = 5.0
#: PS3.8 table 9-21: rejected-transient, local limit exceeded.
_LIMIT_EXCEEDED = Rejection(result=2, source=3, reason=2)


@dataclass(frozen=True, slots=True)
class SenderRejected:
    """A refused sender: its address, its AE titles (empty if TLS failed before), and the reason."""

    address: str
    calling: str
    called: str
    reason: str
    transient: bool


class Receiver:
    """A Storage SCP (PS3.4 annex B) that writes instances to a sink, and a Verification SCP (PS3.4 annex A).

    The default ``access_policy`` accepts every sender that calls the AE title of ``local``. ``on_event`` is
    called from the sessions' threads.
    """

    def __init__(
        self,
        local: AE,
        sink: Sink,
        *,
        access_policy: AccessPolicy | None = None,
        limits: ReceiverLimits | None = None,
        tls: ssl.SSLContext | None = None,
        on_event: Callable[[SenderRejected], None] | None = None,
    ) -> None:
        self.sink = sink
        self.limits = limits or ReceiverLimits()
        self.tls = tls
        self.is_stopping = False
        self.port = local.port  # after listen() the actual port, if 0 was requested
        self._local = local
        self._access_policy = access_policy or AccessPolicy(called=frozenset({local.title}))
        self._on_event = on_event
        self._listener: socket.socket | None = None
        self._accept_thread = threading.Thread(target=self._accept, name="receiver", daemon=True)
        self._lock = threading.Lock()
        self._session_ended = threading.Condition(self._lock)
        self._sessions: set[Session] = set()  # all with a thread
        self._pending: dict[Session, None] = {}  # without an association yet, in order of arrival
        self._associated: set[Session] = set()
        self._instances = self._bytes = self._rejected_instances = self._rejected_associations = 0
        self._last_rejection = ""  # so that a full disk is logged once, not for each instance

    def listen(self) -> None:
        """Open the port; connections wait for start(). Raises StartError."""
        self._listener = listen(self._local)
        self.port = int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Serve from own threads; open the port first if listen() was not called. Raises StartError."""
        if self._listener is None:
            self.listen()
        self._accept_thread.start()

    @property
    def stats(self) -> ReceiverStats:
        """A snapshot of the counters."""
        with self._lock:
            return ReceiverStats(
                len(self._associated),
                self._instances,
                self._bytes,
                self._rejected_instances,
                self._rejected_associations,
            )

    def stop(self, grace_seconds: float = 10.0) -> None:
        """Stop listening, give instances in transfer the grace to arrive, then end every association."""
        self.is_stopping = True
        if self._listener is None:
            return
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
        except OSError:  # not on every system
            pass
        self._listener.close()
        if self._accept_thread.is_alive():
            self._accept_thread.join()
        with self._lock:
            for session in self._pending:
                session.abort()
        self._wait_for_sessions(grace_seconds)
        with self._lock:
            for session in self._sessions:
                session.abort()
        self._wait_for_sessions(_ABORT_TIMEOUT)

    def _wait_for_sessions(self, seconds: float) -> None:
        with self._session_ended:
            self._session_ended.wait_for(lambda: not self._sessions, seconds)

    # ---- connections

    def _accept(self) -> None:
        assert self._listener is not None
        while not self.is_stopping:
            try:
                sock, address = self._listener.accept()
            except OSError as error:
                if not self.is_stopping:
                    logger.error("no connection could be accepted: %s", error.strerror)
                    time.sleep(0.1)  # such as no file descriptors left: do not spin
                continue
            self._start_session(Session(sock, address[0], self))

    def _start_session(self, session: Session) -> None:
        with self._lock:
            if len(self._pending) >= self.limits.max_pending:
                # Silent connections must not block other senders.
                oldest = next(iter(self._pending))
                del self._pending[oldest]
                oldest.abort()
            self._sessions.add(session)
            self._pending[session] = None
        threading.Thread(target=self._serve, args=(session,), name="association", daemon=True).start()

    def _serve(self, session: Session) -> None:
        try:
            session.run()
        finally:
            with self._session_ended:
                self._sessions.discard(session)
                self._pending.pop(session, None)
                self._associated.discard(session)
                self._session_ended.notify_all()

    # ---- SessionHost: calls from sessions

    def admit(self, session: Session, request: AssociateRequest) -> AccessScope | AccessDenial:
        """Accept an association and count it, or return the denial."""
        decision = self._access_policy.evaluate(request, session.address)
        with self._lock:
            if not isinstance(decision, AccessDenial):
                decision = self._check_limits(session) or decision
            if isinstance(decision, AccessDenial):
                self._rejected_associations += 1
            else:
                self._pending.pop(session, None)
                self._associated.add(session)
        if isinstance(decision, AccessDenial):
            self._report_denial(session, request, decision)
        elif decision is AccessScope.ECHO and not all(
            is_verification(c.abstract_syntax) for c in request.contexts
        ):
            # Accepted for C-ECHO only, though it requested other services, too.
            self._report_denial(session, request, self._access_policy.check_store(request, session.address))
        return decision

    def _check_limits(self, session: Session) -> AccessDenial | None:
        limits = self.limits
        if len(self._associated) >= limits.max_associations:
            return AccessDenial(_LIMIT_EXCEEDED, f"all {limits.max_associations} associations are in use")
        same_peer = sum(other.address == session.address for other in self._associated)
        if same_peer >= limits.max_per_peer:
            return AccessDenial(_LIMIT_EXCEEDED, f"it already has {limits.max_per_peer} associations")
        return None

    def on_handshake_failed(self, session: Session, reason: str) -> None:
        """Record a peer whose TLS handshake failed."""
        with self._lock:
            self._rejected_associations += 1
        self._notify(SenderRejected(session.address, "", "", reason, transient=False))

    def on_aborted(self, session: Session, reason: str) -> None:
        """Record an association that was aborted for an error of the peer."""
        if session in self._associated:
            self._notify(SenderRejected(session.address, "", "", reason, transient=False))

    def _report_denial(
        self, session: Session, request: AssociateRequest, denial: AccessDenial | None
    ) -> None:
        if denial:
            transient = denial.rejection.result == _LIMIT_EXCEEDED.result
            self._notify(
                SenderRejected(session.address, request.calling, request.called, denial.reason, transient)
            )

    def _notify(self, event: SenderRejected) -> None:
        logger.warning("a sender at %s was refused: %s", event.address, event.reason)
        if self._on_event:
            self._on_event(event)

    def record_instance(self, incoming: IncomingInstance) -> None:
        """Record an instance whose response is about to be sent."""
        with self._lock:
            if incoming.status == dimse.SUCCESS:
                self._instances += 1
                self._bytes += incoming.size
                self._last_rejection = ""
                return
            self._rejected_instances += 1
            is_repeated = incoming.comment == self._last_rejection
            self._last_rejection = incoming.comment
        if not is_repeated:
            logger.warning("an instance was refused: %s (status %04XH)", incoming.comment, incoming.status)
