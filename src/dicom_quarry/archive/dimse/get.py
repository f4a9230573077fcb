"""Retrieval by C-GET: instances come over the association that asks for them (PS3.4 C.4.3).

No receiver and no port is needed, and the archive need not know where we are. The presentation contexts are
those of the SOP classes that are wanted; where they are too many for one association, there are several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dicom_quarry.archive.base import RetrieveMonitor, RetrieveRequest, RetrieveResult, Verdict, worst_result
from dicom_quarry.archive.dimse import presentation_contexts
from dicom_quarry.archive.dimse.association_factory import AssociationFactory
from dicom_quarry.archive.dimse.association_pool import AssociationPool, PooledAssociation
from dicom_quarry.archive.dimse.retrieval import DimseRetrieval, IdentifierEncoder
from dicom_quarry.archive.dimse.status import interpret_get
from dicom_quarry.errors import ConnectionLost
from dicom_quarry.model import Sink
from dicom_quarry.wire.dimse import c_get_rq

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
            sop_classes == before
            or (sop_classes < before and presentation_contexts.fits_one_association(before))
        ):
            return old
        if old:
            old.requestor.release()
        both = before | sop_classes
        chosen = both if presentation_contexts.fits_one_association(both) else sop_classes
        # We are the SCP of the sub-operations, though we ask for the association (PS3.7 D.3.3.4).
        roles = dict.fromkeys(chosen, (False, True))
        association = self._factory.associate(
            self._sop_class, presentation_contexts.build_contexts(chosen), roles
        )
        association.storage_classes = chosen
        return association


def _split_request(request: RetrieveRequest) -> list[tuple[RetrieveRequest, frozenset[str]]]:
    """What to ask for, and with which classes: all at once, if their contexts fit; else series by series.

    Nor is a study taken apart whose classes the archive does not tell: no part of it would need fewer.
    """
    listed = {
        uid: presentation_contexts.select_sop_classes(sop_classes)
        for uid, sop_classes in request.sop_classes_by_series.items()
    }
    together = (
        frozenset[str]().union(*listed.values()) if listed else presentation_contexts.COMMON_SOP_CLASSES
    )
    if (
        len(listed) < 2
        or presentation_contexts.fits_one_association(together)
        or together >= presentation_contexts.COMMON_SOP_CLASSES
    ):
        return [(request, together)]
    parts = []
    for group in presentation_contexts.group_series(listed):
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
