"""Associations that are kept open: one for each thread and SOP class."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dicom_quarry.errors import ConnectionLost
from dicom_quarry.wire.connection import Requestor
from dicom_quarry.wire.dimse import Command, c_cancel_rq
from dicom_quarry.wire.message_assembler import DimseMessage

T = TypeVar("T")

#: An association that ended before a request shows it with the first packet that comes back.
_STALE_WITHIN_SECONDS = 1.0


class StaleAssociation(ConnectionLost):
    """A kept association turned out to have ended before the request reached the peer: ask on a new one."""


class PooledAssociation:
    """An open association for one SOP class."""

    def __init__(self, requestor: Requestor, sop_class: str) -> None:
        self.requestor = requestor
        self.sop_class = sop_class
        self.storage_classes: frozenset[str] = frozenset()  # SOP classes of the sub-operations of C-GET
        self.context_id, self.transfer_syntax = requestor.accepted[sop_class]
        self._request_count = 0
        self._sent_at = 0.0
        self._has_response = False

    def next_message_id(self) -> int:
        """A message ID that no recent request of this association had (PS3.7 E.1: 16 bits)."""
        return self._request_count % 0xFFFF + 1

    def send_request(self, request: Command, identifier: bytes = b"") -> None:
        """Send a request; raises Lost, or Stale."""
        self._request_count += 1
        self._sent_at = time.monotonic()
        self._has_response = False
        try:
            self.requestor.send(request, identifier, context_id=self.context_id)
        except ConnectionLost as lost:
            raise self._classify_loss(lost) from lost

    def cancel(self, request: Command) -> None:
        """Send the C-CANCEL of a request (PS3.7 9.3.2.3); raises Lost."""
        self.requestor.send(c_cancel_rq(request.message_id), context_id=self.context_id)

    def receive_response(self, request: Command, timeout: float) -> DimseMessage | None:
        """The next response to this request, None if none comes in time; raises Lost, or Stale.

        Whatever else the peer says leaves no way to tell whose answers follow: it costs the association.
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
            detail = f"the archive answered {request.field.name} with something else ({command.field.name})"
            raise self._classify_loss(ConnectionLost(detail))
        self._has_response = True
        return message

    def _classify_loss(self, lost: ConnectionLost) -> ConnectionLost:
        """Stale, if all points to an association that the peer had ended while nobody used it."""
        is_immediate = time.monotonic() - self._sent_at < _STALE_WITHIN_SECONDS
        has_response = self._has_response or self.requestor.last_store_at > self._sent_at
        return (
            StaleAssociation(str(lost))
            if self._request_count > 1 and is_immediate and not has_response
            else lost
        )


#: The line to use where this one is at hand, or none.
AssociationSelector = Callable[[PooledAssociation | None], PooledAssociation]


class AssociationPool:
    """The lines of every thread; ``connect`` establishes one, and its failures are raised."""

    def __init__(self, associate: Callable[[str], PooledAssociation]) -> None:
        self._associate = associate
        self._lock = threading.Lock()
        self._associations: dict[tuple[int, str], PooledAssociation] = {}
        self._closed = False

    def run(
        self,
        sop_class: str,
        operation: Callable[[PooledAssociation], T],
        select: AssociationSelector | None = None,
    ) -> T:
        """Do something on the calling thread's line, and once more on a new line if that one was stale.

        ``suited`` gives the line to use, the one at hand or one in its place.
        """
        select = select or (lambda line: line or self._associate(sop_class))
        try:
            return operation(self._acquire(sop_class, select))
        except StaleAssociation:
            return operation(self._acquire(sop_class, select))

    def _acquire(self, sop_class: str, select: AssociationSelector) -> PooledAssociation:
        key = (threading.get_ident(), sop_class)
        with self._lock:
            existing = self._associations.get(key)
        if existing is not None and not existing.requestor.is_alive:
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
            raise ConnectionLost("the archive was closed on this side")
        return association

    def release_thread(self) -> None:
        """Release the calling thread's lines."""
        thread_id = threading.get_ident()
        with self._lock:
            released = [
                self._associations.pop(key) for key in list(self._associations) if key[0] == thread_id
            ]
        for association in released:
            association.requestor.release()

    def close(self) -> None:
        """Abort every line: what is in progress on another thread ends as Lost."""
        with self._lock:
            self._closed = True
            associations = list(self._associations.values())
            self._associations.clear()
        for association in associations:
            association.requestor.abort()
