"""Retrieval by C-MOVE and by C-GET (PS3.4 C.4.2, C.4.3).

:class:`DimseRetrieval` runs one operation of either kind, from its request to its final response or until its
monitor gives up. :class:`MoveRetriever` has instances sent to a receiver. :class:`GetRetriever` receives them
on the association of the request, and proposes the storage SOP classes for that.
"""

from __future__ import annotations

import functools
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
from dicom_quarry.archive.dimse.storage_contexts import (
    COMMON_SOP_CLASSES,
    StorageProposal,
    group_series,
    select_sop_classes,
)
from dicom_quarry.errors import ConnectionLost, RemoteProtocolError
from dicom_quarry.model import Sink
from dicom_quarry.wire.c_store import DimseMessage
from dicom_quarry.wire.dimse import Command, c_get_rq, c_move_rq
from dicom_quarry.wire.header_scan import scan_dataset

#: Seconds between two calls of the monitor: it also sends the C-CANCEL of a user who stops the job.
_TICK = 0.5
_FAILED_UIDS = 0x00080058


#: Encodes the identifier of a retrieval.
IdentifierEncoder = Callable[[RetrieveRequest], bytes]


class Retriever(Protocol):
    """One method of retrieval; see :class:`dicom_quarry.archive.base.Archive`."""

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        """Retrieve instances; return when the archive reports the end of the operation."""

    def release_thread(self) -> None:
        """Release the calling thread's associations."""

    def close(self) -> None:
        """Abort every association; retrievals in progress return Verdict.LOST."""


class DimseRetrieval:
    """One C-MOVE or C-GET operation; ``interpret_status`` gives the meaning of its final status.

    The monitor owns the time-outs: it decides once a second whether the operation continues.
    ``cancel_timeout`` is the time in seconds that the archive has to end it after a C-CANCEL.
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
        # The last pending response: its counters are reported even if the association is lost.
        self._last_pending: Command | None = None

    def run(self, request: Command, identifier: bytes) -> RetrieveResult:
        """Send the request and wait for its final response; a lost association gives Verdict.LOST.

        Raises StaleAssociation.
        """
        self._monitor.on_request(request.message_id)
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
                    # A large instance in transfer is activity, though no counter has changed.
                    self._monitor.on_activity(*self._last_counters())
                tick = time.monotonic() + _TICK
                if not self._should_continue(request):
                    self._association.requestor.abort()
                    return self._lost_result("stopped by Quarry")

    def _last_counters(self) -> tuple[int | None, int | None]:
        return (
            (self._last_pending.completed, self._last_pending.remaining)
            if self._last_pending
            else (None, None)
        )

    def _should_continue(self, request: Command) -> bool:
        """Act on the monitor: send C-CANCEL once (PS3.7 9.3.4.3); return False to abort the association."""
        action = self._monitor.next_action()
        if action is MonitorAction.CANCEL and self._cancel_deadline is None:
            self._cancel_deadline = time.monotonic() + self._cancel_timeout
            self._association.cancel(request)
        overdue = self._cancel_deadline is not None and time.monotonic() >= self._cancel_deadline
        return action is not MonitorAction.ABORT and not overdue

    def _final_result(self, message: DimseMessage) -> RetrieveResult:
        final = message.command
        meaning = self._interpret_status(
            final.status,
            completed=final.completed,
            failed=final.failed,
            has_received=self._monitor.has_received(),
        )
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
    """Return the Failed SOP Instance UID List (0008,0058); empty if absent or damaged: it is only a hint."""
    try:
        values = scan_dataset(message.dataset, transfer_syntax, (_FAILED_UIDS,))
    except RemoteProtocolError:
        return ()
    return tuple(uid for uid in values.get(_FAILED_UIDS, "").split("\\") if uid)


class MoveRetriever:
    """Retriever by C-MOVE to the AE title ``destination`` (PS3.4 C.4.2)."""

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
        self._associations = AssociationPool(factory)

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:  # noqa: ARG002 (the receiver has its own)
        """Retrieve by C-MOVE; a lost association gives Verdict.LOST. Raises Unreachable or Rejected."""
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
        """Abort every association; retrievals in progress return Verdict.LOST."""
        self._associations.close()


_NO_SOP_CLASS = (
    "The archive accepts C-GET, but none of the SOP classes of the instances. Use another retrieve method."
)


class GetRetriever:
    """Retriever by C-GET into the sink, over the association of the request (PS3.4 C.4.3).

    An association is kept as long as its presentation contexts suit the next request.
    """

    def __init__(
        self, factory: AssociationFactory, sop_class: str, encode_identifier: IdentifierEncoder
    ) -> None:
        self._factory = factory
        self._sop_class = sop_class
        self._encode_identifier = encode_identifier
        self._associations = AssociationPool(factory)

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        """Retrieve by C-GET; a lost association gives Verdict.LOST. Raises Unreachable or Rejected."""
        results: list[RetrieveResult] = []
        for part, proposal in _split_request(request):
            results.append(self._retrieve_part(part, proposal, sink, monitor))
            if results[-1].verdict in (Verdict.LOST, Verdict.CANCELLED):
                break
        return _combine_results(results)

    def release_thread(self) -> None:
        """Release the calling thread's associations."""
        self._associations.release_thread()

    def close(self) -> None:
        """Abort every association; retrievals in progress return Verdict.LOST."""
        self._associations.close()

    def _retrieve_part(
        self, request: RetrieveRequest, proposal: StorageProposal, sink: Sink, monitor: RetrieveMonitor
    ) -> RetrieveResult:
        identifier = self._encode_identifier(request)

        def get(association: PooledAssociation) -> RetrieveResult:
            refused = proposal.sop_classes.difference(association.requestor.accepted)
            if len(association.requestor.accepted) == 1:
                return RetrieveResult(Verdict.UNSUPPORTED, comment=_NO_SOP_CLASS, refused_classes=refused)
            association.requestor.accept_c_store(sink, self._factory.calling)
            retrieval = DimseRetrieval(
                association, monitor, interpret_get, cancel_timeout=self._factory.timeouts.cancel
            )
            result = retrieval.run(c_get_rq(association.next_message_id(), self._sop_class), identifier)
            if result.verdict is Verdict.CANCELLED:
                # DCMTK's archive keeps its index locked until such an association ends.
                association.requestor.release()
            return replace(result, refused_classes=refused)

        try:
            return self._associations.run(
                self._sop_class, get, lambda old: self._select_association(old, proposal)
            )
        except ConnectionLost as lost:
            return RetrieveResult(Verdict.LOST, comment=str(lost))

    def _select_association(
        self, old: PooledAssociation | None, proposal: StorageProposal
    ) -> PooledAssociation:
        """Return the old association if its contexts suffice; else open one with the classes of both.

        If the classes of both do not fit one association, only the new classes are proposed.
        """
        if old and old.storage.includes(proposal):
            return old
        if old:
            old.requestor.release()
            if old.storage.is_repeat == proposal.is_repeat:
                both = old.storage.join(proposal)
                proposal = both if both.fits_one_association else proposal
        # This side is the SCP of the sub-operations, though it requests the association (PS3.7 D.3.3.4).
        roles = dict.fromkeys(proposal.sop_classes, (False, True))
        association = self._factory.associate(self._sop_class, proposal.contexts(), roles)
        association.storage = proposal
        return association


def _split_request(request: RetrieveRequest) -> list[tuple[RetrieveRequest, StorageProposal]]:
    """Split a request into parts, each with its proposal, so that the contexts of each fit an association.

    A request whose contexts fit is not split. Neither is one without listed classes, as no part of it would
    need fewer contexts; when it is repeated, the modalities of the series stand in for the classes.
    """
    modalities = request.modalities if request.is_repeat else {}
    series = {
        uid: StorageProposal(select_sop_classes(classes, modalities.get(uid, "")), request.is_repeat)
        for uid, classes in request.sop_classes_by_series.items()
    }
    together = (
        functools.reduce(StorageProposal.join, series.values())
        if series
        else StorageProposal(COMMON_SOP_CLASSES, request.is_repeat)
    )
    if len(series) < 2 or together.fits_one_association or together.sop_classes >= COMMON_SOP_CLASSES:
        return [(request, together)]
    return [
        # One request per series: not every archive accepts a list of series UIDs.
        (replace(request, series_uids=(uid,)), proposal)
        for uids, proposal in group_series(series)
        for uid in uids
    ]


def _combine_results(results: Sequence[RetrieveResult]) -> RetrieveResult:
    return replace(
        worst_result(results),
        completed=_sum_known([one.completed for one in results]),
        failed=_sum_known([one.failed for one in results]),
        warning=_sum_known([one.warning for one in results]),
        failed_uids=tuple(uid for one in results for uid in one.failed_uids),
        refused_classes=frozenset[str]().union(*(one.refused_classes for one in results)),
    )


def _sum_known(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
