"""Associations with an archive: the factory, and the pool.

:class:`AssociationFactory` opens associations. :class:`AssociationPool` keeps them open for the next
operation, never more than were needed at once, and replaces one that the archive has ended meanwhile.
"""

from __future__ import annotations

import itertools
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from dicom_quarry.archive.dimse.association_limit import AssociationLimit
from dicom_quarry.archive.dimse.identifier import IMPLICIT_LITTLE, describe_service
from dicom_quarry.archive.dimse.storage_contexts import StorageProposal
from dicom_quarry.errors import ConnectionLost, ServiceNotOffered
from dicom_quarry.model import AE
from dicom_quarry.system.shutdown import ABORT_AFTER
from dicom_quarry.wire.c_store import DimseMessage
from dicom_quarry.wire.dimse import Command, c_cancel_rq
from dicom_quarry.wire.negotiation import Roles
from dicom_quarry.wire.requestor import Requestor

T = TypeVar("T")

#: If an association had ended before a request, the first packet that comes back reports it.
_STALE_WITHIN_SECONDS = 1.0


_MESSAGE_NUMBERS = itertools.count()


class StaleAssociation(ConnectionLost):
    """A kept association had ended before the request reached the peer: send it again on a new one."""


class PooledAssociation:
    """An open association for the queries or retrievals of one SOP class."""

    def __init__(self, requestor: Requestor, sop_class: str) -> None:
        self.requestor = requestor
        self.sop_class = sop_class
        self.storage = StorageProposal()  # for the sub-operations of C-GET
        self.context_id, self.transfer_syntax = requestor.accepted[sop_class]
        self._request_count = 0
        self._sent_at = 0.0
        self._has_response = False

    def next_message_id(self) -> int:
        """Return a message ID that no recent request had (PS3.7 E.1: 16 bits).

        Those of other associations count, too: an instance may name the C-MOVE that it is sent for.
        """
        return next(_MESSAGE_NUMBERS) % 0xFFFF + 1

    def send_request(self, request: Command, identifier: bytes = b"") -> None:
        """Send a request; raises ConnectionLost or StaleAssociation."""
        self._request_count += 1
        self._sent_at = time.monotonic()
        self._has_response = False
        try:
            self.requestor.send(request, identifier, context_id=self.context_id)
        except ConnectionLost as lost:
            raise self._classify_loss(lost) from lost

    def cancel(self, request: Command) -> None:
        """Send the C-CANCEL of a request (PS3.7 9.3.2.3); raises ConnectionLost."""
        self.requestor.send(c_cancel_rq(request.message_id), context_id=self.context_id)

    def receive_response(self, request: Command, timeout: float) -> DimseMessage | None:
        """Return the next response to this request, or None if none comes within ``timeout`` seconds.

        Any other message of the peer aborts the association, since later responses could not be assigned to a
        request. Raises ConnectionLost or StaleAssociation.
        """
        try:
            message = self.requestor.receive(timeout)
        except ConnectionLost as lost:
            raise self._classify_loss(lost) from lost
        if message is None:
            return None
        command = message.command
        if (command.field, command.message_id_responded_to) != (request.field | 0x8000, request.message_id):
            self.requestor.abort()
            detail = f"the archive answered {request.field.name} with another message ({command.field.name})"
            raise self._classify_loss(ConnectionLost(detail))
        self._has_response = True
        return message

    def _classify_loss(self, lost: ConnectionLost) -> ConnectionLost:
        """Return a StaleAssociation if the peer seems to have ended the association while it was idle."""
        is_immediate = time.monotonic() - self._sent_at < _STALE_WITHIN_SECONDS
        has_response = self._has_response or self.requestor.last_store_at > self._sent_at
        return (
            StaleAssociation(str(lost))
            if self._request_count > 1 and is_immediate and not has_response
            else lost
        )


#: Returns the association to use, given the kept one or None: the same, or a new one.
AssociationSelector = Callable[[PooledAssociation | None], PooledAssociation]


class AssociationPool:
    """Pool of the associations of a factory: a thread uses its own, else one that no thread uses."""

    def __init__(self, factory: AssociationFactory) -> None:
        self._associate = factory.associate
        self._limit = factory.limit
        self._limit.add_idle_releaser(self.release_idle)
        self._lock = threading.Lock()
        self._associations: dict[tuple[int, str], PooledAssociation] = {}
        self._in_use: set[tuple[int, str]] = set()
        self._closed = False

    def run(
        self,
        sop_class: str,
        operation: Callable[[PooledAssociation], T],
        select: AssociationSelector | None = None,
    ) -> T:
        """Run an operation on the calling thread's association; if that was stale, once more on a new one.

        ``select`` may replace the kept association by another one.
        """
        select = select or (lambda existing: existing or self._associate(sop_class))
        key = (threading.get_ident(), sop_class)
        with self._lock:
            self._in_use.add(key)
        try:
            return operation(self._acquire(key, select))
        except StaleAssociation:
            return operation(self._acquire(key, select))
        finally:
            self._end_use(key)

    def _end_use(self, key: tuple[int, str]) -> None:
        """Keep the association for the thread's next operation, unless another thread waits for one."""
        with self._lock:
            self._in_use.discard(key)
            released = self._associations.pop(key, None) if self._limit.is_contended else None
        if released is not None:
            released.requestor.release()

    def _acquire(self, key: tuple[int, str], select: AssociationSelector) -> PooledAssociation:
        with self._lock:
            existing = self._associations.pop(key, None) or self._pop_idle(key[1])
            if existing is not None:
                self._associations[key] = existing
        if existing is not None and not existing.requestor.check_idle():
            existing = None
        association = select(existing)
        if association is existing:
            return association
        with self._lock:
            closed = self._closed
            if not closed:
                self._associations[key] = association
        if closed:
            association.requestor.abort()
            raise ConnectionLost("the connections to the archive were closed by this side")
        return association

    def _pop_idle(self, sop_class: str) -> PooledAssociation | None:
        """Return the association of another thread that does not use it now, None if there is none."""
        idle = (key for key in self._associations if key[1] == sop_class and key not in self._in_use)
        key = next(idle, None)
        return self._associations.pop(key) if key else None

    def release_thread(self) -> None:
        """Release the calling thread's associations."""
        thread_id = threading.get_ident()
        with self._lock:
            released = [
                self._associations.pop(key) for key in list(self._associations) if key[0] == thread_id
            ]
        for association in released:
            association.requestor.release()

    def release_idle(self) -> bool:
        """Release the associations that no thread uses now; return False if there is none."""
        with self._lock:
            released = [
                self._associations.pop(key) for key in list(self._associations) if key not in self._in_use
            ]
        for association in released:
            association.requestor.release()
        return bool(released)

    def close(self) -> None:
        """Abort every association; operations on other threads raise ConnectionLost."""
        with self._lock:
            self._closed = True
            associations = list(self._associations.values())
            self._associations.clear()
        for association in associations:
            association.requestor.abort()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time-outs of an archive, in seconds."""

    connect: float = 10.0  # to accept a connection
    associate: float = 30.0  # to answer the association request, or a C-ECHO
    query: float = 60.0  # between two responses of a query
    cancel: float = ABORT_AFTER  # to end a retrieval after its C-CANCEL


@dataclass(frozen=True, slots=True)
class AssociationFactory:
    """Factory of associations with one archive (``peer``), under our AE title (``calling``).

    ``limit`` is that of the archive on open associations.
    """

    peer: AE
    calling: str
    timeouts: Timeouts = Timeouts()
    tls: ssl.SSLContext | None = None
    limit: AssociationLimit = field(default_factory=AssociationLimit)

    def associate(
        self,
        sop_class: str,
        extra_contexts: Sequence[tuple[str, Sequence[str]]] = (),
        roles: Mapping[str, Roles] | None = None,
    ) -> PooledAssociation:
        """Open an association for a SOP class of queries or retrievals, and for ``extra_contexts``.

        Raises Unreachable, or Rejected, also if the archive does not accept the SOP class.
        """
        requestor = self.limit.open(
            lambda: Requestor.connect(
                self.peer,
                calling=self.calling,
                contexts=[(sop_class, [IMPLICIT_LITTLE]), *extra_contexts],
                connect_timeout=self.timeouts.connect,
                answer_timeout=self.timeouts.associate,
                tls=self.tls,
                roles=roles,
            )
        )
        if sop_class not in requestor.accepted:
            requestor.release()
            detail = f"{self.peer} does not offer {describe_service(sop_class)} to {self.calling}"
            raise ServiceNotOffered(detail)
        return PooledAssociation(requestor, sop_class)
