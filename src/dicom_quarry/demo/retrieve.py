"""One C-MOVE as the archive serves it (PS3.7 9.1.4, PS3.4 C.4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_MOVE

from dicom_quarry.demo.encoding import encode
from dicom_quarry.demo.matching import Query

SUCCESS, PENDING, CANCELLED, WARNING = 0x0000, 0xFF00, 0xFE00, 0xB000
UNABLE, DESTINATION_UNKNOWN, BAD_IDENTIFIER = 0xA702, 0xA801, 0xA900


@dataclass(slots=True)
class Tally:
    """Sub-operation counters, and the instances that failed."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)

    def count(self, sop_uid: str, status: int) -> None:
        """Count one C-STORE by its status: B000 to BFFF are warnings (PS3.4 B.2.3)."""
        self.remaining -= 1
        if status == SUCCESS:
            self.completed += 1
        elif 0xB000 <= status <= 0xBFFF:
            self.warning += 1
        else:
            self.failed += 1
            self.failed_uids.append(sop_uid)

    @property
    def verdict(self) -> int:
        """The final status when everything was tried (PS3.4 C.4.2.1.5)."""
        if self.failed and not self.completed and not self.warning:
            return UNABLE
        return WARNING if self.failed or self.warning else SUCCESS


class Move:
    """A C-MOVE request, and the way to answer it."""

    def __init__(self, assoc: Any, request: Any, context_id: int, query: Query) -> None:
        self.assoc = assoc
        self.query = query
        self.message_id: int = request.MessageID
        self.destination: str = str(request.MoveDestination or "").strip()
        self._request = request
        self._context_id = context_id

    @property
    def cancelled(self) -> bool:
        """Has the peer sent a C-CANCEL (PS3.7 9.3.2.3)?"""
        return self.message_id in self.assoc.dimse.cancel_req

    @property
    def alive(self) -> bool:
        """Is there still somebody to answer?"""
        return self.assoc.dul.is_alive() and not self.assoc.acse.is_aborted() and not self.assoc.is_aborted

    def respond(self, status: int, tally: Tally | None = None, *, failed_uids: Sequence[str] = ()) -> None:
        """Send a response; the counters stand in it where a tally is given (PS3.7 9.3.4.2)."""
        response: Any = C_MOVE()
        response.MessageIDBeingRespondedTo = self.message_id
        response.AffectedSOPClassUID = self._request.AffectedSOPClassUID
        response.Status = status
        if tally is not None:
            # PS3.4 C.4.2.1.6: what remains is told while it goes on, and after a cancel
            if status in (PENDING, CANCELLED):
                response.NumberOfRemainingSuboperations = tally.remaining
            response.NumberOfCompletedSuboperations = tally.completed
            response.NumberOfFailedSuboperations = tally.failed
            response.NumberOfWarningSuboperations = tally.warning
        if failed_uids:
            response.Identifier = BytesIO(self._failed_list(failed_uids))
        self.assoc.dimse.send_msg(response, self._context_id)

    def _failed_list(self, uids: Sequence[str]) -> bytes:
        syntax = UID(self.assoc._accepted_cx[self._context_id].transfer_syntax[0])
        return encode(
            [(0x00080058, "UI", "\\".join(uids))],
            explicit=not syntax.is_implicit_VR,
            little=syntax.is_little_endian,
        )
