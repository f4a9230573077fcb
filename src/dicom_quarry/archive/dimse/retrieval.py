"""One C-MOVE or C-GET, from the request to its final response, or to the end of everybody's patience.

PS3.4 C.4.2 and C.4.3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from dicom_quarry.archive.base import (
    MonitorAction,
    RetrieveMonitor,
    RetrieveRequest,
    RetrieveResult,
    Verdict,
    worst_result,
)
from dicom_quarry.archive.dimse import associations
from dicom_quarry.archive.dimse.associations import (
    AssociationFactory,
    AssociationPool,
    PooledAssociation,
    StaleAssociation,
)
from dicom_quarry.archive.dimse.status import (
    StatusInterpreter,
    describe,
    interpret_get,
    interpret_move,
    is_pending,
)
from dicom_quarry.errors import ConnectionLost, RemoteProtocolError
from dicom_quarry.model import Sink
from dicom_quarry.wire.c_store import DimseMessage
from dicom_quarry.wire.dimse import Command, c_get_rq, c_move_rq
from dicom_quarry.wire.header_scan import scan_dataset

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


class MoveRetriever:
    """Has instances sent to ``destination``; see :class:`dicom_quarry.archive.dimse.retrieval.Retriever`."""

    def __init__(
        self,
        factory: AssociationFactory,
        sop_class: str,
        destination: str,
        encode_identifier: IdentifierEncoder,
    ) -> None:
        self._factory = factory
        self._sop_class = sop_class
        self._destination = destination
        self._encode_identifier = encode_identifier
        self._associations = AssociationPool(factory.associate)

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:  # noqa: ARG002 (a receiver has its own)
        """C-MOVE; a lost association is an answer. Raises Unreachable and Rejected."""
        identifier = self._encode_identifier(request)

        def move(association: PooledAssociation) -> RetrieveResult:
            retrieval = DimseRetrieval(
                association, monitor, interpret_move, cancel_timeout=self._factory.timeouts.cancel
            )
            command = c_move_rq(association.next_message_id(), self._sop_class, self._destination)
            return retrieval.run(command, identifier)

        try:
            return self._associations.run(self._sop_class, move)
        except ConnectionLost as lost:
            return RetrieveResult(Verdict.LOST, comment=str(lost))

    def release_thread(self) -> None:
        """Release the calling thread's associations."""
        self._associations.release_thread()

    def close(self) -> None:
        """End every association; calls in progress end as Lost."""
        self._associations.close()


_NO_SOP_CLASS = "The archive accepts C-GET, but none of the SOP classes that it would have to send."


class GetRetriever:
    """Takes what comes into the sink; see :class:`dicom_quarry.archive.dimse.retrieval.Retriever`.

    An association is kept for as long as its contexts suit what is asked for next.
    """

    def __init__(
        self, factory: AssociationFactory, sop_class: str, encode_identifier: IdentifierEncoder
    ) -> None:
        self._factory = factory
        self._sop_class = sop_class
        self._encode_identifier = encode_identifier
        self._associations = AssociationPool(factory.associate)

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        """C-GET; a lost association is an answer. Raises Unreachable and Rejected."""
        results: list[RetrieveResult] = []
        for part, sop_classes in _split_request(request):
            results.append(self._retrieve_part(part, sop_classes, sink, monitor))
            if results[-1].verdict in (Verdict.LOST, Verdict.CANCELLED):
                break
        return _combine_results(results)

    def release_thread(self) -> None:
        """Release the calling thread's associations."""
        self._associations.release_thread()

    def close(self) -> None:
        """End every association; calls in progress end as Lost."""
        self._associations.close()

    def _retrieve_part(
        self, request: RetrieveRequest, sop_classes: frozenset[str], sink: Sink, monitor: RetrieveMonitor
    ) -> RetrieveResult:
        identifier = self._encode_identifier(request)

        def get(association: PooledAssociation) -> RetrieveResult:
            if len(association.requestor.accepted) == 1:
                return RetrieveResult(Verdict.UNSUPPORTED, comment=_NO_SOP_CLASS)
            association.requestor.accept_c_store(sink, self._factory.calling)
            retrieval = DimseRetrieval(
                association, monitor, interpret_get, cancel_timeout=self._factory.timeouts.cancel
            )
            result = retrieval.run(c_get_rq(association.next_message_id(), self._sop_class), identifier)
            if result.verdict is Verdict.CANCELLED:
                # DCMTK's archive keeps its index locked for as long as such an association stands.
                association.requestor.release()
            return result

        try:
            return self._associations.run(
                self._sop_class, get, lambda old: self._select_association(old, sop_classes)
            )
        except ConnectionLost as lost:
            return RetrieveResult(Verdict.LOST, comment=str(lost))

    def _select_association(
        self, old: PooledAssociation | None, sop_classes: frozenset[str]
    ) -> PooledAssociation:
        """The line itself, if its contexts are enough; else a new one, for what both want where that fits.

        Where they do not fit syntaxes share contexts, which is good enough for nothing else.
        """
        before = old.storage_classes if old else frozenset()
        if old and (
            sop_classes == before or (sop_classes < before and associations.fits_one_association(before))
        ):
            return old
        if old:
            old.requestor.release()
        both = before | sop_classes
        chosen = both if associations.fits_one_association(both) else sop_classes
        # We are the SCP of the sub-operations, though we ask for the association (PS3.7 D.3.3.4).
        roles = dict.fromkeys(chosen, (False, True))
        association = self._factory.associate(self._sop_class, associations.build_contexts(chosen), roles)
        association.storage_classes = chosen
        return association


def _split_request(request: RetrieveRequest) -> list[tuple[RetrieveRequest, frozenset[str]]]:
    """What to ask for, and with which classes: all at once, if their contexts fit; else series by series.

    Nor is a study taken apart whose classes the archive does not tell: no part of it would need fewer.
    """
    listed = {
        uid: associations.select_sop_classes(sop_classes)
        for uid, sop_classes in request.sop_classes_by_series.items()
    }
    together = frozenset[str]().union(*listed.values()) if listed else associations.COMMON_SOP_CLASSES
    if (
        len(listed) < 2
        or associations.fits_one_association(together)
        or together >= associations.COMMON_SOP_CLASSES
    ):
        return [(request, together)]
    parts = []
    for group in associations.group_series(listed):
        together = frozenset[str]().union(*group.values())
        # Series by series: not every archive takes a list of them.
        parts += [(replace(request, series_uids=(uid,)), together) for uid in group]
    return parts


def _combine_results(results: Sequence[RetrieveResult]) -> RetrieveResult:
    return replace(
        worst_result(results),
        completed=_sum_known([one.completed for one in results]),
        failed=_sum_known([one.failed for one in results]),
        warning=_sum_known([one.warning for one in results]),
        failed_uids=tuple(uid for one in results for uid in one.failed_uids),
    )


def _sum_known(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
