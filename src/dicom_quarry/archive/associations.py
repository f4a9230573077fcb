"""Associations that are kept open: one for each thread and SOP class."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

from dicom_quarry.errors import Lost
from dicom_quarry.wire.dimse import Command
from dicom_quarry.wire.sockets import Message, Requestor


class Line:
    """An open association for one SOP class."""

    def __init__(self, requestor: Requestor, sop_class: str) -> None:
        self.requestor = requestor
        self.sop_class = sop_class
        self.context_id, self.transfer_syntax = requestor.accepted[sop_class]
        self._numbers = count()

    def next_message_id(self) -> int:
        """A message ID that no recent request of this association had (PS3.7 E.1: 16 bits)."""
        return next(self._numbers) % 0xFFFF + 1

    def ask(self, request: Command, identifier: bytes) -> None:
        """Send a request; raises Lost."""
        self.requestor.send(request, identifier, context_id=self.context_id)

    def answer(self, request: Command, timeout: float) -> Message | None:
        """The next response to this request, None if none comes in time; raises Lost.

        Whatever else the peer says leaves no way to tell whose answers follow: it costs the association.
        """
        message = self.requestor.receive(timeout)
        if message is None:
            return None
        command = message.command
        expected = (request.field | 0x8000, request.message_id)
        if (command.field, command.message_id_responded_to) != expected:
            self.requestor.abort()
            raise Lost(
                f"the archive answered {request.field.name} with something else ({command.field.name})"
            )
        return message

    def is_idle(self) -> bool:
        """Whether it still stands, with nothing left over on it: peers close what they find unused."""
        if not self.requestor.alive:
            return False
        try:
            return self.requestor.receive(0.0) is None
        except Lost:
            return False


class Lines:
    """The lines of every thread; ``connect`` establishes one, and its failures are raised."""

    def __init__(self, connect: Callable[[str], Line]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._lines: dict[tuple[int, str], Line] = {}
        self._closed = False

    def get(self, sop_class: str) -> Line:
        """The calling thread's line, established again if the peer has closed it meanwhile."""
        key = (threading.get_ident(), sop_class)
        with self._lock:
            line = self._lines.get(key)
        if line is not None and line.is_idle():
            return line
        self.drop(sop_class)
        line = self._connect(sop_class)
        with self._lock:
            closed = self._closed
            if not closed:
                self._lines[key] = line
        if closed:
            line.requestor.abort()
            raise Lost("the archive was closed on this side")
        return line

    def drop(self, sop_class: str) -> None:
        """Abort the calling thread's line, if there is one."""
        with self._lock:
            line = self._lines.pop((threading.get_ident(), sop_class), None)
        if line is not None:
            line.requestor.abort()

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
