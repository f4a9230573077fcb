"""Which roads to an archive are of use: learned from what comes by each, and closed where nothing will."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from dicom_quarry.archive.base import RetrieveResult, Verdict
from dicom_quarry.archive.dimse.status import strip_archive_comment
from dicom_quarry.errors import OperatorActionRequired
from dicom_quarry.model import Transport

#: So many studies asked for in vain by a road that never served any point at the road.
_MAX_FRUITLESS_STUDIES = 3

_DESTINATION_UNKNOWN = 0xA801

#: Out of resources for sub-operations: what many archives say that cannot reach the destination.
_CANNOT_PERFORM_SUBOPERATIONS = 0xA702

_TRANSPORT_NAMES = {Transport.MOVE: "C-MOVE", Transport.GET: "C-GET", Transport.WADO: "WADO-RS"}


class TransportSelector:
    """The roads of one archive, in the order in which they are tried; for any thread.

    ``served`` is True where an earlier run got instances by the only road. ``destination`` is our receiver as
    the archive has to know it. ``say`` is told of a road that was closed.
    """

    def __init__(
        self,
        transports: Sequence[Transport],
        destination: str,
        report: Callable[[str], None],
        *,
        has_delivered: bool,
    ) -> None:
        self._destination = destination
        self._report = report
        self._lock = threading.Lock()
        self._available = tuple(transports)
        self._proven = set(transports) if has_delivered and len(transports) == 1 else set()
        self._fruitless_studies: dict[Transport, set[int]] = {transport: set() for transport in transports}
        self._reasons: list[str] = []
        self._redacted_reasons: list[str] = []

    @property
    def available(self) -> tuple[Transport, ...]:
        """The roads that may be tried, the preferred one first."""
        return self._available

    def record_result(
        self, task_id: int, transport: Transport, result: RetrieveResult, new_instances: int
    ) -> None:
        """Learn from a retrieval; closes a road that is of no use.

        Raises Unusable where it was the last: a person has to act before another retrieval is of use.
        """
        with self._lock:
            if new_instances:
                self._proven.add(transport)
            why = (
                self._reason_to_disable(task_id, transport, result) if transport in self._available else None
            )
            if why:
                self._disable(transport, why, result)

    def _reason_to_disable(
        self, task_id: int, transport: Transport, result: RetrieveResult
    ) -> Callable[[str], str] | None:
        """What speaks against the road for good, around the words of its answer; None if nothing does yet."""
        by_move = transport is Transport.MOVE
        unknown = result.status == _DESTINATION_UNKNOWN
        if unknown or (result.verdict is Verdict.CONFIGURATION and transport not in self._proven):
            sent_to = f". It was asked to send to {self._destination}" if by_move else ""
            return lambda words: words + sent_to
        is_unreachable = result.verdict is Verdict.LOST and len(self._available) > 1
        if transport in self._proven or not (is_unreachable or _is_fruitless(result)):
            return None
        # Studies, not tries: one that cannot be sent says nothing of the others.
        self._fruitless_studies[transport].add(task_id)
        if len(self._fruitless_studies[transport]) < _MAX_FRUITLESS_STUDIES:
            return None
        remedy = (
            f". It may not know {self._destination}, or not reach it: ask the PACS team to register that AE "
            "title with this computer's address and port, and to let it through the firewall"
        )
        return lambda words: (
            f"it has sent nothing of {_MAX_FRUITLESS_STUDIES} studies asked for, and says: {words}{remedy if by_move else ''}"
        )

    def _disable(self, transport: Transport, describe: Callable[[str], str], result: RetrieveResult) -> None:
        by = f"by {_TRANSPORT_NAMES[transport]}: " if len(self._fruitless_studies) > 1 else ""
        self._reasons.append(by + describe(result.comment.rstrip(".")))
        self._redacted_reasons.append(by + describe(strip_archive_comment(result.comment).rstrip(".")))
        self._available = tuple(one for one in self._available if one is not transport)
        # Not in the archive's own words: they may name a patient, and this goes to logs.
        if not self._available:
            raise OperatorActionRequired("; ".join(self._reasons), redacted="; ".join(self._redacted_reasons))
        code = f" ({result.status:04X})" if result.status else ""
        self._report(
            f"nothing comes by {_TRANSPORT_NAMES[transport]}{code}: fetching by {_TRANSPORT_NAMES[self._available[0]]} from now on; "
            f"what the archive said is in the record of each study"
        )


def _is_fruitless(result: RetrieveResult) -> bool:
    """It could send nothing; or says that it did, though nothing came."""
    status = result.status or 0
    failed = (
        status >> 12 == 0xC or status == _CANNOT_PERFORM_SUBOPERATIONS or result.verdict is Verdict.WARNING
    )
    claims_success = result.verdict is Verdict.SUCCESS and bool(result.completed)
    return claims_success or (failed and not result.completed)
