"""Retrieval by C-MOVE: the archive sends to a receiver that it knows (PS3.4 C.4.2)."""

from __future__ import annotations

from dicom_quarry.archive.base import Answered, Ask, Verdict, Watch
from dicom_quarry.archive.dimse.association_factory import Caller
from dicom_quarry.archive.dimse.association_pool import Line, Lines
from dicom_quarry.archive.dimse.retrieval import Identify, Retrieval
from dicom_quarry.archive.dimse.status import of_move
from dicom_quarry.errors import Lost
from dicom_quarry.model import Sink
from dicom_quarry.wire.dimse import c_move_rq


class Move:
    """Has instances sent to ``destination``; see :class:`dicom_quarry.archive.dimse.retrieval.Retriever`."""

    def __init__(self, caller: Caller, sop_class: str, destination: str, identify: Identify) -> None:
        self._caller = caller
        self._sop_class = sop_class
        self._destination = destination
        self._identify = identify
        self._lines = Lines(caller.line)

    def retrieve(self, ask: Ask, sink: Sink, watch: Watch) -> Answered:  # noqa: ARG002 (a receiver has its own)
        """C-MOVE; a lost association is an answer. Raises Unreachable and Rejected."""
        identifier = self._identify(ask)

        def move(line: Line) -> Answered:
            retrieval = Retrieval(line, watch, of_move, cancel_patience=self._caller.patiences.cancel)
            request = c_move_rq(line.next_message_id(), self._sop_class, self._destination)
            return retrieval.run(request, identifier)

        try:
            return self._lines.use(self._sop_class, move)
        except Lost as lost:
            return Answered(Verdict.LOST, comment=str(lost))

    def hang_up(self) -> None:
        """Release the calling thread's associations."""
        self._lines.hang_up()

    def close(self) -> None:
        """End every association; calls in progress end as Lost."""
        self._lines.close()
