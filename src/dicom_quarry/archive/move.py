"""One C-MOVE, from the request to its final response, or to the end of everybody's patience (PS3.4 C.4.2)."""

from __future__ import annotations

import time

from dicom_quarry.archive import status
from dicom_quarry.archive.associations import Line, Stale
from dicom_quarry.archive.port import Answered, Patience, Verdict, Watch
from dicom_quarry.errors import Lost, RemoteProtocolError
from dicom_quarry.wire.dimse import Command, c_move_rq
from dicom_quarry.wire.header import scan
from dicom_quarry.wire.sockets import Message

_TICK = 1.0
_FAILED_UIDS = 0x00080058


class Move:
    """A C-MOVE under way. The watch owns the time: it is asked once a tick, whatever the archive says."""

    def __init__(self, line: Line, watch: Watch, *, cancel_patience: float) -> None:
        self._line = line
        self._watch = watch
        self._cancel_patience = cancel_patience
        self._give_up_at: float | None = None  # set once a C-CANCEL was sent
        self._last: Command | None = None  # the last pending response: its counters outlive the association

    def run(self, identifier: bytes, destination: str) -> Answered:
        """Ask for the instances, wait for the final response; a lost association is an answer, too."""
        request = c_move_rq(self._line.next_message_id(), self._line.sop_class, destination)
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
                if not status.is_pending(message.command.status):
                    return self._final(message)
                self._last = message.command
                self._watch.sign_of_life(message.command.completed, message.command.remaining)
            if time.monotonic() >= tick:
                tick = time.monotonic() + _TICK
                if not self._goes_on(request):
                    self._line.requestor.abort()
                    return self._lost("given up by this side")

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
        meaning = status.of_move(final.status, completed=final.completed, failed=final.failed)
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
            comment=status.in_words(meaning, final.error_comment, final.offending_elements),
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
