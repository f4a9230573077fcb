"""Which roads to an archive are of use: learned from what comes by each, and closed where nothing will."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from dicom_quarry.archive.base import Answered, Verdict
from dicom_quarry.archive.dimse.status import without_its_own
from dicom_quarry.errors import Unusable
from dicom_quarry.model import Road

#: So many studies asked for in vain by a road that never served any point at the road.
_VAIN = 3

_DESTINATION_UNKNOWN = 0xA801

#: Out of resources for sub-operations: what many archives say that cannot reach the destination.
_NO_SUBOPERATIONS = 0xA702

_SPOKEN = {Road.MOVE: "C-MOVE", Road.GET: "C-GET", Road.WADO: "WADO-RS"}


class Roads:
    """The roads of one archive, in the order in which they are tried; for any thread.

    ``served`` is True where an earlier run got instances by the only road. ``destination`` is our receiver as
    the archive has to know it. ``say`` is told of a road that was closed.
    """

    def __init__(
        self, roads: Sequence[Road], destination: str, say: Callable[[str], None], *, served: bool
    ) -> None:
        self._destination = destination
        self._say = say
        self._lock = threading.Lock()
        self._open = tuple(roads)
        self._served = set(roads) if served and len(roads) == 1 else set()
        self._vain: dict[Road, set[int]] = {road: set() for road in roads}
        self._closed: list[str] = []
        self._told: list[str] = []

    @property
    def open(self) -> tuple[Road, ...]:
        """The roads that may be tried, the preferred one first."""
        return self._open

    def judge(self, task_id: int, road: Road, answered: Answered, gained: int) -> None:
        """Learn from a retrieval; closes a road that is of no use.

        Raises Unusable where it was the last: a person has to act before another retrieval is of use.
        """
        with self._lock:
            if gained:
                self._served.add(road)
            why = self._against(task_id, road, answered) if road in self._open else None
            if why:
                self._close(road, why, answered)

    def _against(self, task_id: int, road: Road, answered: Answered) -> Callable[[str], str] | None:
        """What speaks against the road for good, around the words of its answer; None if nothing does yet."""
        by_move = road is Road.MOVE
        unknown = answered.status == _DESTINATION_UNKNOWN
        if unknown or (answered.verdict is Verdict.CONFIGURATION and road not in self._served):
            sent_to = f". It was asked to send to {self._destination}" if by_move else ""
            return lambda words: words + sent_to
        unreached = answered.verdict is Verdict.LOST and len(self._open) > 1
        if road in self._served or not (unreached or _in_vain(answered)):
            return None
        # Studies, not tries: one that cannot be sent says nothing of the others.
        self._vain[road].add(task_id)
        if len(self._vain[road]) < _VAIN:
            return None
        remedy = (
            f". It may not know {self._destination}, or not reach it: ask the PACS team to register that AE "
            "title with this computer's address and port, and to let it through the firewall"
        )
        return lambda words: (
            f"it has sent nothing of {_VAIN} studies asked for, and says: {words}{remedy if by_move else ''}"
        )

    def _close(self, road: Road, why: Callable[[str], str], answered: Answered) -> None:
        by = f"by {_SPOKEN[road]}: " if len(self._vain) > 1 else ""
        self._closed.append(by + why(answered.comment.rstrip(".")))
        self._told.append(by + why(without_its_own(answered.comment).rstrip(".")))
        self._open = tuple(one for one in self._open if one is not road)
        # Not in the archive's own words: they may name a patient, and this goes to logs.
        if not self._open:
            raise Unusable("; ".join(self._closed), told="; ".join(self._told))
        code = f" ({answered.status:04X})" if answered.status else ""
        self._say(
            f"nothing comes by {_SPOKEN[road]}{code}: fetching by {_SPOKEN[self._open[0]]} from now on; "
            f"what the archive said is in the record of each study"
        )


def _in_vain(answered: Answered) -> bool:
    """It could send nothing; or says that it did, though nothing came."""
    status = answered.status or 0
    unable = status >> 12 == 0xC or status == _NO_SUBOPERATIONS or answered.verdict is Verdict.WARNING
    pretends = answered.verdict is Verdict.SUCCESS and bool(answered.completed)
    return pretends or (unable and not answered.completed)
