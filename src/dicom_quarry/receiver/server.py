"""The Storage SCP: its listening thread, its sessions, its limits and its counters (PS3.4 annex B)."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from dicom_quarry.errors import ReceiverEnded
from dicom_quarry.model import AE, Sink
from dicom_quarry.receiver.access_control import AccessDenial, AccessPolicy, AccessScope
from dicom_quarry.receiver.listen_socket import listen
from dicom_quarry.receiver.session import ReceiverLimits, Session
from dicom_quarry.receiver.stats import ReceiverStats
from dicom_quarry.system.addresses import normalize_host
from dicom_quarry.system.error_trace import describe_place, format_trace
from dicom_quarry.system.service_loop import LoopGuard, start_thread
from dicom_quarry.wire import dimse
from dicom_quarry.wire.association import Rejection
from dicom_quarry.wire.c_store import IncomingInstance
from dicom_quarry.wire.negotiation import AssociateRequest, is_verification

__all__ = ["AccessPolicy", "Receiver", "ReceiverLimits", "ReceiverStats", "SenderRejected"]

logger = logging.getLogger(__name__)

#: Seconds that threads have to finish their work in the sink after their connections were cut.
_ABORT_TIMEOUT = 5.0
#: Errors of the listening socket after which it accepts nothing more.
_PORT_IS_LOST = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})
#: Seconds for which a new connection waits for a thread, and for an idle association to give way.
_THREAD_TIMEOUT = 2.0
_GIVE_WAY_TIMEOUT = 3.0
_GIVE_WAY_POLL = 0.1
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
        self._echoing: set[Session] = set()  # associations for C-ECHO alone
        self._failure: BaseException | None = None
        self._stopping = threading.Event()
        self._guard = LoopGuard("a connection could not be served", logger, self._stopping.wait)
        self._gave_way = 0
        self._instances = self._bytes = self._rejected_instances = self._rejected_associations = 0
        self._last_rejection = ""  # so that a full disk is logged once, not for each instance

    def listen(self) -> None:
        """Open the port; connections wait for start(). Raises StartError."""
        self._listener = listen(self._local, admits_ipv6=self._access_policy.admits_ipv6)
        self.port = int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Serve from own threads; open the port first if listen() was not called. Raises StartError."""
        if self._listener is None:
            self.listen()
        start_thread(self._accept_thread)

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
                self._gave_way,
                self._guard.errors,
            )

    def raise_if_ended(self) -> None:
        """Raise ReceiverEnded if connections are no longer accepted, though nothing stopped the receiver."""
        if self._failure is not None:
            raise ReceiverEnded(
                f"the receiver on port {self.port} ended by itself ({describe_place(self._failure)}), and "
                "nothing more can arrive. What is stored stays stored: run the same command again"
            ) from self._failure

    def stop(self, grace_seconds: float = 10.0, *, abort_seconds: float = _ABORT_TIMEOUT) -> None:
        """Stop listening, give instances in transfer the grace to arrive, then end every association.

        ``abort_seconds`` are for the threads to end after their connections were cut.
        """
        self.is_stopping = True
        self._stopping.set()
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
        self._wait_for_sessions(abort_seconds)

    def _wait_for_sessions(self, seconds: float) -> None:
        with self._session_ended:
            self._session_ended.wait_for(lambda: not self._sessions, seconds)

    # ---- connections

    def _accept(self) -> None:
        """Accept connections until the receiver stops; an error costs a connection, and never the loop."""
        try:
            while not self.is_stopping:
                try:
                    self._accept_one()
                    self._guard.on_success()
                except Exception as error:
                    if self.is_stopping:
                        return
                    if isinstance(error, OSError) and error.errno in _PORT_IS_LOST:
                        raise
                    self._release_spare()
                    self._guard.on_error(error)
        except BaseException as error:  # noqa: BLE001 - raise_if_ended reports it
            self._failure = error
            logger.error("the receiver ended by itself\n%s", format_trace(error))

    def _accept_one(self) -> None:
        assert self._listener is not None
        sock, address = self._listener.accept()
        try:
            session = Session(sock, normalize_host(address[0]), self)
            self._start_session(session)
        except BaseException:
            sock.close()
            raise

    def _start_session(self, session: Session) -> None:
        thread = threading.Thread(target=self._serve, args=(session,), name="association", daemon=True)
        with self._lock:
            if len(self._pending) >= self.limits.max_pending:
                # Silent connections must not block other senders.
                self._abort_oldest_pending()
            self._sessions.add(session)
            self._pending[session] = None
        try:
            start_thread(thread, timeout=_THREAD_TIMEOUT, wait=self._wait_for_thread)
        except BaseException:
            self._forget(session)
            raise

    def _wait_for_thread(self, seconds: float) -> None:
        self._guard.errors += 1
        self._release_spare()
        self._stopping.wait(seconds)

    def _serve(self, session: Session) -> None:
        try:
            session.run()
        except Exception as error:  # noqa: BLE001 - one session must not end the receiver
            self._guard.on_error(error)
        finally:
            session.close_socket()
            self._forget(session)

    def _forget(self, session: Session) -> None:
        with self._session_ended:
            self._sessions.discard(session)
            self._pending.pop(session, None)
            self._associated.discard(session)
            self._echoing.discard(session)
            self._session_ended.notify_all()

    # ---- connections that give way

    def _abort_oldest_pending(self) -> None:
        oldest = next(iter(self._pending))
        del self._pending[oldest]
        oldest.abort()

    def _release_spare(self) -> None:
        """End one connection that is not needed now, so that its thread, file and memory serve another."""
        with self._lock:
            # A connection that has just come may send its association request in a moment.
            if len(self._pending) > 1:
                self._abort_oldest_pending()
            elif not self._give_way(self._echoing):
                self._give_way(self._associated)

    def _give_way(self, sessions: Collection[Session]) -> bool:
        """End the association that was idle for longest, if one was for a second; the lock must be held.

        Of the senders' addresses, that with the most associations gives way first.
        """
        now = time.monotonic()
        spare = [one for one in sessions if one.spare_seconds(now) >= 0]
        if not spare:
            return False
        counts = {one: sum(other.address == one.address for other in sessions) for one in spare}
        chosen = max(spare, key=lambda one: (counts[one], one.spare_seconds(now)))
        self._associated.discard(chosen)
        self._echoing.discard(chosen)
        self._gave_way += 1
        chosen.abort()
        return True

    # ---- SessionHost: calls from sessions

    def admit(self, session: Session, request: AssociateRequest) -> AccessScope | AccessDenial:
        """Accept an association and count it, or return the denial."""
        decision = self._access_policy.evaluate(request, session.address)
        is_echo = all(is_verification(one.abstract_syntax) for one in request.contexts)
        may_store = decision is AccessScope.STORE
        if may_store and is_echo:
            decision = AccessScope.ECHO
        if decision is AccessScope.STORE:
            decision = self._admit_sender(session) or decision
        with self._lock:
            self._pending.pop(session, None)
            if decision is AccessScope.ECHO:
                while len(self._echoing) >= self.limits.max_echo:
                    self._abort_echo()
                self._echoing.add(session)
            elif isinstance(decision, AccessDenial):
                self._rejected_associations += 1
        if isinstance(decision, AccessDenial):
            self._report_denial(session, request, decision)
        elif not may_store and not is_echo:
            # Accepted for C-ECHO only, though it requested other services, too.
            self._report_denial(session, request, self._access_policy.check_store(request, session.address))
        return decision

    def _abort_echo(self) -> None:
        now = time.monotonic()
        longest = max(self._echoing, key=lambda one: one.spare_seconds(now))
        self._echoing.discard(longest)
        longest.abort()

    def _admit_sender(self, session: Session) -> AccessDenial | None:
        """Count an association that may store; where there are too many, have an idle one give way.

        Returns the denial if none is idle within a few seconds.
        """
        deadline = time.monotonic() + _GIVE_WAY_TIMEOUT
        while True:
            with self._lock:
                denial, rivals = self._check_limits(session)
                if denial is None:
                    self._associated.add(session)
                    return None
                if self._give_way(rivals):
                    continue
            if time.monotonic() >= deadline or self._stopping.wait(_GIVE_WAY_POLL):
                return denial

    def _check_limits(self, session: Session) -> tuple[AccessDenial | None, Collection[Session]]:
        """Return the denial for one association too many, and those of which one may give way."""
        limits = self.limits
        same_peer = [other for other in self._associated if other.address == session.address]
        if len(same_peer) >= limits.max_per_peer:
            reason = f"it already has {limits.max_per_peer} associations"
            return AccessDenial(_LIMIT_EXCEEDED, reason), same_peer
        if len(self._associated) >= limits.max_associations:
            reason = f"all {limits.max_associations} associations are in use"
            return AccessDenial(_LIMIT_EXCEEDED, reason), self._associated
        return None, ()

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
