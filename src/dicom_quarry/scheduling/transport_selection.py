"""Transport selection: which of C-MOVE, C-GET and WADO-RS an archive is used by, from the results of each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NoReturn

from dicom_quarry.archive.base import RetrieveResult, Verdict
from dicom_quarry.archive.dimse.status import strip_archive_comment
from dicom_quarry.errors import OperatorActionRequired
from dicom_quarry.model import Transport

#: Studies without an instance, by a transport that never delivered any, after which it is disabled.
_MAX_FRUITLESS_STUDIES = 3

_DESTINATION_UNKNOWN = 0xA801

#: Out of resources for sub-operations: the status of many archives that cannot reach the destination.
_CANNOT_PERFORM_SUBOPERATIONS = 0xA702


class TransportSelector:
    """Selects the transports of one archive, in order of preference; for any thread.

    ``destination`` is our receiver as the archive has to know it. ``report`` shows a message about a disabled
    transport. ``has_delivered``: an earlier run received instances by the only transport.
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
        """The transports that may be tried, in order of preference."""
        return self._available

    def require_available(self) -> tuple[Transport, ...]:
        """Return the same; raise OperatorActionRequired if there is none, for a study that comes too late."""
        with self._lock:
            if not self._available:
                self._raise_unusable()
            return self._available

    def reset(self) -> None:
        """Try all transports again: a person may have acted."""
        with self._lock:
            self._available = tuple(self._fruitless_studies)
            for studies in self._fruitless_studies.values():
                studies.clear()
            self._reasons.clear()
            self._redacted_reasons.clear()

    @property
    def proven(self) -> frozenset[Transport]:
        """The transports by which an instance has come."""
        with self._lock:
            return frozenset(self._proven)

    def record_result(
        self,
        task_id: int,
        transport: Transport,
        result: RetrieveResult,
        new_instances: int,
        *,
        narrows: bool = False,
        refusal: str | None = None,
    ) -> None:
        """Take the result of a retrieval into account; disable a transport that cannot deliver.

        ``narrows``: a narrower request for the same study comes next, so this one proves nothing yet.
        ``refusal`` is why our own receiver refused the sender; empty if it refused instances, which is no
        fault of the transport; None if it refused nothing.

        Raises OperatorActionRequired if it was the last one: a person has to act before any retrieval.
        """
        with self._lock:
            if new_instances:
                self._proven.add(transport)
            if transport in self._available and refusal != "":
                describe = self._reason_to_disable(task_id, transport, result, refusal or "", narrows=narrows)
                if describe:
                    self._disable(transport, describe, result)

    def _reason_to_disable(
        self, task_id: int, transport: Transport, result: RetrieveResult, refusal: str, *, narrows: bool
    ) -> Callable[[str], str] | None:
        """Return why to disable a transport, as a function of the archive's message; None to keep it."""
        by_move = transport is Transport.MOVE
        if result.status == _DESTINATION_UNKNOWN or (
            result.verdict is Verdict.CONFIGURATION and transport not in self._proven
        ):
            destination = f". The destination was {self._destination}" if by_move else ""
            return lambda message: message + destination
        is_unreachable = result.verdict is Verdict.LOST and len(self._available) > 1
        if narrows or transport in self._proven or not (is_unreachable or _is_fruitless(result)):
            return None
        # Studies and not attempts count: one that cannot be sent proves nothing about the others.
        self._fruitless_studies[transport].add(task_id)
        if len(self._fruitless_studies[transport]) < _MAX_FRUITLESS_STUDIES:
            return None
        if refusal:
            return lambda message: (
                f"Quarry's own receiver refused the sender of {_MAX_FRUITLESS_STUDIES} requested studies: "
                f"{refusal}. The archive's message: {message}"
            )
        remedy = (
            f". It may not know {self._destination}, or cannot reach it. Ask the PACS team to register this "
            "AE title with this computer's address and port, and to open the firewall for it"
            if by_move
            else ""
        )
        return lambda message: (
            f"it sent no image of {_MAX_FRUITLESS_STUDIES} requested studies. Its message: {message}{remedy}"
        )

    def _disable(self, transport: Transport, describe: Callable[[str], str], result: RetrieveResult) -> None:
        by = f"by {transport.label}: " if len(self._fruitless_studies) > 1 else ""
        self._reasons.append(by + describe(result.comment.rstrip(".")))
        self._redacted_reasons.append(by + describe(strip_archive_comment(result.comment).rstrip(".")))
        self._available = tuple(one for one in self._available if one is not transport)
        # Logs get the redacted reasons: an archive's message may name a patient.
        if not self._available:
            self._raise_unusable()
        hint = ", destination probably not registered" if transport is Transport.MOVE else ""
        code = f" ({result.status:04X}{hint})" if result.status else ""
        failed, used = transport.label, self._available[0].label
        self._report(f"{failed} failed{code}. Using {used} from now on. Details: quarry explain")

    def _raise_unusable(self) -> NoReturn:
        raise OperatorActionRequired("; ".join(self._reasons), redacted="; ".join(self._redacted_reasons))


def _is_fruitless(result: RetrieveResult) -> bool:
    """Return whether the archive sent nothing, or reports that it sent instances which did not arrive."""
    status = result.status or 0
    failed = (
        status >> 12 == 0xC or status == _CANNOT_PERFORM_SUBOPERATIONS or result.verdict is Verdict.WARNING
    )
    claims_success = result.verdict is Verdict.SUCCESS and bool(result.completed)
    return claims_success or (failed and not result.completed)
