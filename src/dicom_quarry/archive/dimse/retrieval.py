"""One C-MOVE or C-GET, from the request to its final response, or to the end of everybody's patience.

PS3.4 C.4.2 and C.4.3.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from dicom_quarry.archive.base import MonitorAction, RetrieveMonitor, RetrieveRequest, RetrieveResult, Verdict
from dicom_quarry.archive.dimse.association_pool import PooledAssociation, StaleAssociation
from dicom_quarry.archive.dimse.status import StatusInterpreter, describe, is_pending
from dicom_quarry.errors import ConnectionLost, RemoteProtocolError
from dicom_quarry.model import Sink
from dicom_quarry.wire.dimse import Command
from dicom_quarry.wire.header_scan import scan_dataset
from dicom_quarry.wire.message_assembler import DimseMessage

_TICK = 1.0
_FAILED_UIDS = 0x00080058


#: Keys of a retrieval, encoded.
IdentifierEncoder = Callable[[RetrieveRequest], bytes]


class Retriever(Protocol):
    """One way to have instances sent; see :class:`dicom_quarry.archive.base.Archive`."""

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        """Have instances sent, and return when the archive says that it has finished."""

    def release_thread(self) -> None:
        """Release the calling thread's associations."""

    def close(self) -> None:
        """End every association; calls in progress end as Lost."""


class DimseRetrieval:
    """A C-MOVE or C-GET under way; ``judge`` knows what its final status means.

    The watch owns the time: it is asked once a tick, whatever the archive says.
    """

    def __init__(
        self,
        association: PooledAssociation,
        monitor: RetrieveMonitor,
        interpret_status: StatusInterpreter,
        *,
        cancel_timeout: float,
    ) -> None:
        self._association = association
        self._monitor = monitor
        self._interpret_status = interpret_status
        self._cancel_timeout = cancel_timeout
        self._cancel_deadline: float | None = None  # set once a C-CANCEL was sent
        self._last_pending: Command | None = (
            None  # the last pending response: its counters outlive the association
        )

    def run(self, request: Command, identifier: bytes) -> RetrieveResult:
        """Ask for the instances, wait for the final response; a lost association is an answer, too."""
        try:
            self._association.send_request(request, identifier)
            return self._wait_for_final(request)
        except StaleAssociation:
            raise
        except ConnectionLost as lost:
            return self._lost_result(str(lost))

    def _wait_for_final(self, request: Command) -> RetrieveResult:
        tick = time.monotonic() + _TICK
        while True:
            message = self._association.receive_response(request, max(0.0, tick - time.monotonic()))
            if message is not None:
                if not is_pending(message.command.status):
                    return self._final_result(message)
                self._last_pending = message.command
                self._monitor.on_activity(message.command.completed, message.command.remaining)
            if time.monotonic() >= tick:
                if self._association.requestor.last_store_at > tick - _TICK:
                    # An instance that takes its time is a sign of life, though nothing new was counted.
                    self._monitor.on_activity(*self._last_counters())
                tick = time.monotonic() + _TICK
                if not self._should_continue(request):
                    self._association.requestor.abort()
                    return self._lost_result("given up by this side")

    def _last_counters(self) -> tuple[int | None, int | None]:
        return (
            (self._last_pending.completed, self._last_pending.remaining)
            if self._last_pending
            else (None, None)
        )

    def _should_continue(self, request: Command) -> bool:
        """Heed the watch: C-CANCEL (PS3.7 9.3.4.3) once, and False when the association is to be aborted."""
        action = self._monitor.next_action()
        if action is MonitorAction.CANCEL and self._cancel_deadline is None:
            self._cancel_deadline = time.monotonic() + self._cancel_timeout
            self._association.cancel(request)
        overdue = self._cancel_deadline is not None and time.monotonic() >= self._cancel_deadline
        return action is not MonitorAction.ABORT and not overdue

    def _final_result(self, message: DimseMessage) -> RetrieveResult:
        final = message.command
        meaning = self._interpret_status(final.status, completed=final.completed, failed=final.failed)
        verdict = meaning.verdict
        # Some archives end a cancelled retrieval with B000 instead of FE00.
        if self._cancel_deadline is not None and final.status == 0xB000:
            verdict = Verdict.CANCELLED
        return RetrieveResult(
            verdict,
            status=final.status,
            completed=final.completed,
            failed=final.failed,
            warning=final.warning,
            failed_uids=_parse_failed_uids(message, self._association.transfer_syntax),
            comment=describe(meaning, final.error_comment, final.offending_elements),
        )

    def _lost_result(self, why: str) -> RetrieveResult:
        last = self._last_pending
        if last is None:
            return RetrieveResult(Verdict.LOST, comment=why)
        return RetrieveResult(
            Verdict.LOST, completed=last.completed, failed=last.failed, warning=last.warning, comment=why
        )


def _parse_failed_uids(message: DimseMessage, transfer_syntax: str) -> tuple[str, ...]:
    """Failed SOP Instance UID List (0008,0058), which archives may omit, or spoil, as it is only a hint."""
    try:
        values = scan_dataset(message.dataset, transfer_syntax, (_FAILED_UIDS,))
    except RemoteProtocolError:
        return ()
    return tuple(uid for uid in values.get(_FAILED_UIDS, "").split("\\") if uid)
