"""The Storage SCP: listens, admits, and gives every connection a thread."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dicom_quarry.model import AE, Sink
from dicom_quarry.receiver.access_control import Admission, Refusal, Scope
from dicom_quarry.receiver.listen_socket import listen
from dicom_quarry.receiver.session import Limits, Session
from dicom_quarry.receiver.stats import Stats
from dicom_quarry.wire import dimse
from dicom_quarry.wire.association import Rejection
from dicom_quarry.wire.c_store import Incoming
from dicom_quarry.wire.negotiation import AssociateRequest, is_verification

__all__ = ["Admission", "Limits", "Receiver", "SenderRefused", "Stats"]

logger = logging.getLogger(__name__)

#: After the grace is over and connections are cut, threads get so long to end what they do in the sink.
_LAST_WAIT = 5.0
#: PS3.8 table 9-21: rejected-transient, local limit exceeded.
_LIMIT_EXCEEDED = Rejection(result=2, source=3, reason=2)


@dataclass(frozen=True, slots=True)
class SenderRefused:
    """A sender who is not let in: who it says that it is (empty if TLS failed before), and why not."""

    address: str
    calling: str
    called: str
    why: str
    transient: bool


class Receiver:
    """A Storage SCP (PS3.4 annex B) that hands instances to a sink, and C-ECHO's SCP (PS3.4 annex A).

    ``admission`` is by default: whoever calls for the title of ``local``. ``on_event`` is called from the
    sessions' threads.
    """

    def __init__(
        self,
        local: AE,
        sink: Sink,
        *,
        admission: Admission | None = None,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        on_event: Callable[[SenderRefused], None] | None = None,
    ) -> None:
        self.sink = sink
        self.limits = limits or Limits()
        self.tls = tls
        self.stopping = False
        self.port = local.port  # once it listens, the true one where 0 was asked for
        self._local = local
        self._admission = admission or Admission(called=frozenset({local.title}))
        self._on_event = on_event
        self._listener: socket.socket | None = None
        self._acceptor = threading.Thread(target=self._accept, name="receiver", daemon=True)
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._sessions: set[Session] = set()  # all that have a thread
        self._pending: dict[Session, None] = {}  # without an association so far, in order of arrival
        self._associated: set[Session] = set()
        self._instances = self._bytes = self._refused = self._rejected = 0
        self._refusal = ""  # why the last instance was; a full disk is told of once, not for each

    def listen(self) -> None:
        """Take the port, so that nobody else has it; whoever connects waits for start. Raises StartError."""
        self._listener = listen(self._local)
        self.port = int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Serve from threads of its own, listening if that was not done before; raises StartError."""
        if self._listener is None:
            self.listen()
        self._acceptor.start()

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        with self._lock:
            return Stats(len(self._associated), self._instances, self._bytes, self._refused, self._rejected)

    def stop(self, grace_seconds: float = 10.0) -> None:
        """Stop listening, let instances in flight arrive within the grace, then end every association."""
        self.stopping = True
        if self._listener is None:
            return
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
        except OSError:  # not on every system
            pass
        self._listener.close()
        if self._acceptor.is_alive():
            self._acceptor.join()
        with self._lock:
            for session in self._pending:
                session.cut()
        self._wait_for_sessions(grace_seconds)
        with self._lock:
            for session in self._sessions:
                session.cut()
        self._wait_for_sessions(_LAST_WAIT)

    def _wait_for_sessions(self, seconds: float) -> None:
        with self._ended:
            self._ended.wait_for(lambda: not self._sessions, seconds)

    # ---- connections

    def _accept(self) -> None:
        assert self._listener is not None
        while not self.stopping:
            try:
                sock, address = self._listener.accept()
            except OSError as error:
                if not self.stopping:
                    logger.error("no connection could be accepted: %s", error.strerror)
                    time.sleep(0.1)  # such as no file descriptors left: do not spin
                continue
            self._begin(Session(sock, address[0], self))

    def _begin(self, session: Session) -> None:
        with self._lock:
            if len(self._pending) >= self.limits.max_pending:
                # Whoever opens connections without a word cannot keep others out.
                oldest = next(iter(self._pending))
                del self._pending[oldest]
                oldest.cut()
            self._sessions.add(session)
            self._pending[session] = None
        threading.Thread(target=self._serve, args=(session,), name="association", daemon=True).start()

    def _serve(self, session: Session) -> None:
        try:
            session.run()
        finally:
            with self._ended:
                self._sessions.discard(session)
                self._pending.pop(session, None)
                self._associated.discard(session)
                self._ended.notify_all()

    # ---- what sessions ask for

    def enter(self, session: Session, request: AssociateRequest) -> Scope | Refusal:
        """Let an association in, and count it; or say why not."""
        decision = self._admission.judge(request, session.address)
        with self._lock:
            if not isinstance(decision, Refusal):
                decision = self._limit(session) or decision
            if isinstance(decision, Refusal):
                self._rejected += 1
            else:
                self._pending.pop(session, None)
                self._associated.add(session)
        if isinstance(decision, Refusal):
            self._report(session, request, decision)
        elif decision is Scope.ECHO and not all(is_verification(c.abstract_syntax) for c in request.contexts):
            # It is let in for C-ECHO, but that is not all that it came for.
            self._report(session, request, self._admission.objection(request, session.address))
        return decision

    def _limit(self, session: Session) -> Refusal | None:
        limits = self.limits
        if len(self._associated) >= limits.max_associations:
            return Refusal(_LIMIT_EXCEEDED, f"there are {limits.max_associations} associations already")
        same_peer = sum(other.address == session.address for other in self._associated)
        if same_peer >= limits.max_per_peer:
            return Refusal(_LIMIT_EXCEEDED, f"it has {limits.max_per_peer} associations already")
        return None

    def turned_away(self, session: Session, why: str) -> None:
        """Take note of a peer that did not get as far as an association."""
        with self._lock:
            self._rejected += 1
        self._tell(SenderRefused(session.address, "", "", why, transient=False))

    def _report(self, session: Session, request: AssociateRequest, refusal: Refusal | None) -> None:
        if refusal:
            transient = refusal.rejection.result == _LIMIT_EXCEEDED.result
            self._tell(
                SenderRefused(session.address, request.calling, request.called, refusal.why, transient)
            )

    def _tell(self, refused: SenderRefused) -> None:
        logger.warning("a sender at %s was refused: %s", refused.address, refused.why)
        if self._on_event:
            self._on_event(refused)

    def count(self, incoming: Incoming) -> None:
        """Take note of an instance that was answered."""
        with self._lock:
            if incoming.status == dimse.SUCCESS:
                self._instances += 1
                self._bytes += incoming.size
                self._refusal = ""
                return
            self._refused += 1
            again = incoming.comment == self._refusal
            self._refusal = incoming.comment
        if not again:
            logger.warning("an instance is refused: %s (status %04XH)", incoming.comment, incoming.status)
