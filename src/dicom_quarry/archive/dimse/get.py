"""Retrieval by C-GET: instances come over the association that asks for them (PS3.4 C.4.3).

No receiver and no port is needed, and the archive need not know where we are. The presentation contexts are
those of the SOP classes that are wanted; where they are too many for one association, there are several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dicom_quarry.archive.base import Answered, Ask, Verdict, Watch, worst
from dicom_quarry.archive.dimse import presentation_contexts
from dicom_quarry.archive.dimse.association_factory import Caller
from dicom_quarry.archive.dimse.association_pool import Line, Lines
from dicom_quarry.archive.dimse.retrieval import Identify, Retrieval
from dicom_quarry.archive.dimse.status import of_get
from dicom_quarry.errors import Lost
from dicom_quarry.model import Sink
from dicom_quarry.wire.dimse import c_get_rq

_NO_CLASS = "The archive accepts C-GET, but none of the SOP classes that it would have to send."


class Get:
    """Takes what comes into the sink; see :class:`dicom_quarry.archive.dimse.retrieval.Retriever`.

    An association is kept for as long as its contexts suit what is asked for next.
    """

    def __init__(self, caller: Caller, sop_class: str, identify: Identify) -> None:
        self._caller = caller
        self._sop_class = sop_class
        self._identify = identify
        self._lines = Lines(caller.line)

    def retrieve(self, ask: Ask, sink: Sink, watch: Watch) -> Answered:
        """C-GET; a lost association is an answer. Raises Unreachable and Rejected."""
        answers: list[Answered] = []
        for part, sop_classes in _parts(ask):
            answers.append(self._get(part, sop_classes, sink, watch))
            if answers[-1].verdict in (Verdict.LOST, Verdict.CANCELLED):
                break
        return _summed(answers)

    def hang_up(self) -> None:
        """Release the calling thread's associations."""
        self._lines.hang_up()

    def close(self) -> None:
        """End every association; calls in progress end as Lost."""
        self._lines.close()

    def _get(self, ask: Ask, sop_classes: frozenset[str], sink: Sink, watch: Watch) -> Answered:
        identifier = self._identify(ask)

        def get(line: Line) -> Answered:
            if len(line.requestor.accepted) == 1:
                return Answered(Verdict.UNSUPPORTED, comment=_NO_CLASS)
            line.requestor.store_into(sink, self._caller.calling)
            retrieval = Retrieval(line, watch, of_get, cancel_patience=self._caller.patiences.cancel)
            answered = retrieval.run(c_get_rq(line.next_message_id(), self._sop_class), identifier)
            if answered.verdict is Verdict.CANCELLED:
                # DCMTK's archive keeps its index locked for as long as such an association stands.
                line.requestor.release()
            return answered

        try:
            return self._lines.use(self._sop_class, get, lambda old: self._suited(old, sop_classes))
        except Lost as lost:
            return Answered(Verdict.LOST, comment=str(lost))

    def _suited(self, old: Line | None, sop_classes: frozenset[str]) -> Line:
        """The line itself, if its contexts are enough; else a new one, for what both want where that fits.

        Where they do not fit syntaxes share contexts, which is good enough for nothing else.
        """
        before = old.proposed if old else frozenset()
        if old and (sop_classes == before or (sop_classes < before and presentation_contexts.fit(before))):
            return old
        if old:
            old.requestor.release()
        both = before | sop_classes
        chosen = both if presentation_contexts.fit(both) else sop_classes
        # We are the SCP of the sub-operations, though we ask for the association (PS3.7 D.3.3.4).
        roles = dict.fromkeys(chosen, (False, True))
        line = self._caller.line(self._sop_class, presentation_contexts.contexts(chosen), roles)
        line.proposed = chosen
        return line


def _parts(ask: Ask) -> list[tuple[Ask, frozenset[str]]]:
    """What to ask for, and with which classes: all at once, if their contexts fit; else series by series.

    Nor is a study taken apart whose classes the archive does not tell: no part of it would need fewer.
    """
    listed = {uid: presentation_contexts.usable(sop_classes) for uid, sop_classes in ask.sop_classes.items()}
    together = frozenset[str]().union(*listed.values()) if listed else presentation_contexts.COMMON
    if len(listed) < 2 or presentation_contexts.fit(together) or together >= presentation_contexts.COMMON:
        return [(ask, together)]
    parts = []
    for group in presentation_contexts.group(listed):
        together = frozenset[str]().union(*group.values())
        # Series by series: not every archive takes a list of them.
        parts += [(replace(ask, series_uids=(uid,)), together) for uid in group]
    return parts


def _summed(answers: Sequence[Answered]) -> Answered:
    return replace(
        worst(answers),
        completed=_sum([one.completed for one in answers]),
        failed=_sum([one.failed for one in answers]),
        warning=_sum([one.warning for one in answers]),
        failed_uids=tuple(uid for one in answers for uid in one.failed_uids),
    )


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
