"""Retrieval by C-MOVE: the archive sends to a receiver that it knows (PS3.4 C.4.2)."""

from __future__ import annotations

from dicom_quarry.archive.base import RetrieveMonitor, RetrieveRequest, RetrieveResult, Verdict
from dicom_quarry.archive.dimse.association_factory import AssociationFactory
from dicom_quarry.archive.dimse.association_pool import AssociationPool, PooledAssociation
from dicom_quarry.archive.dimse.retrieval import DimseRetrieval, IdentifierEncoder
from dicom_quarry.archive.dimse.status import interpret_move
from dicom_quarry.errors import ConnectionLost
from dicom_quarry.model import Sink
from dicom_quarry.wire.dimse import c_move_rq


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
