"""One C-MOVE or C-GET, from the request to its final response, or to the end of everybody's patience.

PS3.4 C.4.2 and C.4.3.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from dicom_quarry.archive.base import Answered, Ask, Patience, Verdict, Watch
from dicom_quarry.archive.dimse.association_pool import Line, Stale
from dicom_quarry.archive.dimse.status import Judge, in_words, is_pending
from dicom_quarry.errors import Lost, RemoteProtocolError
from dicom_quarry.model import Sink
from dicom_quarry.wire.dimse import Command
from dicom_quarry.wire.header_scan import scan
from dicom_quarry.wire.message_assembler import Message

_TICK = 1.0
_FAILED_UIDS = 0x00080058


#: Keys of a retrieval, encoded.
Identify = Callable[[Ask], bytes]


class Retriever(Protocol):
    """One way to have instances sent; see :class:`dicom_quarry.archive.base.Archive`."""

    def retrieve(self, ask: Ask, sink: Sink, watch: Watch) -> Answered:
        """Have instances sent, and return when the archive says that it has finished."""

    def hang_up(self) -> None:
        """Release the calling thread's associations."""

    def close(self) -> None:
        """End every association; calls in progress end as Lost."""


class Retrieval:
    """A C-MOVE or C-GET under way; ``judge`` knows what its final status means.

    The watch owns the time: it is asked once a tick, whatever the archive says.
    """

    def __init__(self, line: Line, watch: Watch, judge: Judge, *, cancel_patience: float) -> None:
        self._line = line
        self._watch = watch
        self._judge = judge
        self._cancel_patience = cancel_patience
        self._give_up_at: float | None = None  # set once a C-CANCEL was sent
        self._last: Command | None = None  # the last pending response: its counters outlive the association

    def run(self, request: Command, identifier: bytes) -> Answered:
        """Ask for the instances, wait for the final response; a lost association is an answer, too."""
        try:
            self._line.ask(request, identifier)
            return self._wait(request)
        except Stale:
            raise
        except Lost as lost:
            return self._lost(str(lost))

    def _wait(self, request: Command) -> Answered:
        tick = time.monotonic() + _TICK
        while True:
            message = self._line.answer(request, max(0.0, tick - time.monotonic()))
            if message is not None:
                if not is_pending(message.command.status):
                    return self._final(message)
                self._last = message.command
                self._watch.sign_of_life(message.command.completed, message.command.remaining)
            if time.monotonic() >= tick:
                if self._line.requestor.stored_at > tick - _TICK:
                    # An instance that takes its time is a sign of life, though nothing new was counted.
                    self._watch.sign_of_life(*self._counted())
                tick = time.monotonic() + _TICK
                if not self._goes_on(request):
                    self._line.requestor.abort()
                    return self._lost("given up by this side")

    def _counted(self) -> tuple[int | None, int | None]:
        return (self._last.completed, self._last.remaining) if self._last else (None, None)

    def _goes_on(self, request: Command) -> bool:
        """Heed the watch: C-CANCEL (PS3.7 9.3.4.3) once, and False when the association is to be aborted."""
        patience = self._watch.patience()
        if patience is Patience.CANCEL and self._give_up_at is None:
            self._give_up_at = time.monotonic() + self._cancel_patience
            self._line.cancel(request)
        overdue = self._give_up_at is not None and time.monotonic() >= self._give_up_at
        return patience is not Patience.ABORT and not overdue

    def _final(self, message: Message) -> Answered:
        final = message.command
        meaning = self._judge(final.status, completed=final.completed, failed=final.failed)
        verdict = meaning.verdict
        # Some archives end a cancelled retrieval with B000 instead of FE00.
        if self._give_up_at is not None and final.status == 0xB000:
            verdict = Verdict.CANCELLED
        return Answered(
            verdict,
            status=final.status,
            completed=final.completed,
            failed=final.failed,
            warning=final.warning,
            failed_uids=_failed_uids(message, self._line.transfer_syntax),
            comment=in_words(meaning, final.error_comment, final.offending_elements),
        )

    def _lost(self, why: str) -> Answered:
        last = self._last
        if last is None:
            return Answered(Verdict.LOST, comment=why)
        return Answered(
            Verdict.LOST, completed=last.completed, failed=last.failed, warning=last.warning, comment=why
        )


def _failed_uids(message: Message, transfer_syntax: str) -> tuple[str, ...]:
    """Failed SOP Instance UID List (0008,0058), which archives may omit, or spoil, as it is only a hint."""
    try:
        values = scan(message.dataset, transfer_syntax, (_FAILED_UIDS,))
    except RemoteProtocolError:
        return ()
    return tuple(uid for uid in values.get(_FAILED_UIDS, "").split("\\") if uid)
