"""Associations that are kept open: one for each thread and SOP class."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dicom_quarry.errors import Lost
from dicom_quarry.wire.connection import Requestor
from dicom_quarry.wire.dimse import Command, c_cancel_rq
from dicom_quarry.wire.message_assembler import Message

T = TypeVar("T")

#: An association that ended before a request shows it with the first packet that comes back.
_AT_ONCE = 1.0


class Stale(Lost):
    """A kept association turned out to have ended before the request reached the peer: ask on a new one."""


class Line:
    """An open association for one SOP class."""

    def __init__(self, requestor: Requestor, sop_class: str) -> None:
        self.requestor = requestor
        self.sop_class = sop_class
        self.proposed: frozenset[str] = frozenset()  # SOP classes of the sub-operations of C-GET
        self.context_id, self.transfer_syntax = requestor.accepted[sop_class]
        self._requests = 0
        self._asked_at = 0.0
        self._answered = False

    def next_message_id(self) -> int:
        """A message ID that no recent request of this association had (PS3.7 E.1: 16 bits)."""
        return self._requests % 0xFFFF + 1

    def ask(self, request: Command, identifier: bytes = b"") -> None:
        """Send a request; raises Lost, or Stale."""
        self._requests += 1
        self._asked_at = time.monotonic()
        self._answered = False
        try:
            self.requestor.send(request, identifier, context_id=self.context_id)
        except Lost as lost:
            raise self._judged(lost) from lost

    def cancel(self, request: Command) -> None:
        """Send the C-CANCEL of a request (PS3.7 9.3.2.3); raises Lost."""
        self.requestor.send(c_cancel_rq(request.message_id), context_id=self.context_id)

    def answer(self, request: Command, timeout: float) -> Message | None:
        """The next response to this request, None if none comes in time; raises Lost, or Stale.

        Whatever else the peer says leaves no way to tell whose answers follow: it costs the association.
        """
        try:
            message = self.requestor.receive(timeout)
        except Lost as lost:
            raise self._judged(lost) from lost
        if message is None:
            return None
        command = message.command
        if (command.field, command.message_id_responded_to) != (request.field | 0x8000, request.message_id):
            self.requestor.abort()
            said = f"the archive answered {request.field.name} with something else ({command.field.name})"
            raise self._judged(Lost(said))
        self._answered = True
        return message

    def _judged(self, lost: Lost) -> Lost:
        """Stale, if all points to an association that the peer had ended while nobody used it."""
        at_once = time.monotonic() - self._asked_at < _AT_ONCE
        answered = self._answered or self.requestor.stored_at > self._asked_at
        return Stale(str(lost)) if self._requests > 1 and at_once and not answered else lost


#: The line to use where this one is at hand, or none.
Suited = Callable[[Line | None], Line]


class Lines:
    """The lines of every thread; ``connect`` establishes one, and its failures are raised."""

    def __init__(self, connect: Callable[[str], Line]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._lines: dict[tuple[int, str], Line] = {}
        self._closed = False

    def use(self, sop_class: str, work: Callable[[Line], T], suited: Suited | None = None) -> T:
        """Do something on the calling thread's line, and once more on a new line if that one was stale.

        ``suited`` gives the line to use, the one at hand or one in its place.
        """
        suited = suited or (lambda line: line or self._connect(sop_class))
        try:
            return work(self._get(sop_class, suited))
        except Stale:
            return work(self._get(sop_class, suited))

    def _get(self, sop_class: str, suited: Suited) -> Line:
        key = (threading.get_ident(), sop_class)
        with self._lock:
            kept = self._lines.get(key)
        if kept is not None and not kept.requestor.alive:
            kept = None
        line = suited(kept)
        if line is kept:
            return line
        with self._lock:
            closed = self._closed
            if not closed:
                self._lines[key] = line
        if closed:
            line.requestor.abort()
            raise Lost("the archive was closed on this side")
        return line

    def hang_up(self) -> None:
        """Release the calling thread's lines."""
        me = threading.get_ident()
        with self._lock:
            mine = [self._lines.pop(key) for key in list(self._lines) if key[0] == me]
        for line in mine:
            line.requestor.release()

    def close(self) -> None:
        """Abort every line: what is in progress on another thread ends as Lost."""
        with self._lock:
            self._closed = True
            lines = list(self._lines.values())
            self._lines.clear()
        for line in lines:
            line.requestor.abort()
