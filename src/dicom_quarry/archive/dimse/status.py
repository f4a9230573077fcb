"""Meanings of final DIMSE statuses: a verdict for the caller, a sentence and the next step for the user.

The statuses of C-FIND are defined in PS3.4 C.4.1.1.4, those of C-MOVE in C.4.2.1.5, those of C-GET in
C.4.3.1.4, and the general ones in PS3.7 annex C. A status is a hint of the archive: the verdict decides how
to continue, and never proves that a study is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from dicom_quarry.archive.base import StatusMeaning, Verdict
from dicom_quarry.archive.dicomweb.status import interpret_http
from dicom_quarry.errors import QueryFailed


class StatusInterpreter(Protocol):
    """Interpreter of the final statuses of one service."""

    def __call__(
        self,
        status: int,
        /,
        *,
        completed: int | None = None,
        failed: int | None = None,
        has_received: bool = False,
    ) -> StatusMeaning:
        """Return the meaning of a status; counters are None if the archive sent none, which is not zero.

        ``has_received``: instances have come, now or before, so the destination is right.
        """


_LATER = "Try again later, with fewer operations at once."
_LOG = "Ask the PACS team to look into the archive's log for this time."
_REGISTER = "Register this AE title, with this computer's address and port, as a destination in the archive."
_CHECK_NETWORK = (
    "Check that the archive has the right address and port for this receiver, and that no firewall blocks it."
)
_OTHER_WAY = "Try another query level, or the other information model (Study Root or Patient Root)."
_RETRIEVE_MISSING = "Retrieve the missing instances again."

#: PS3.7 annex C: general statuses, which may end any operation.
_GENERAL: dict[int, StatusMeaning] = {
    0x0000: StatusMeaning(Verdict.SUCCESS, "The archive reports success."),
    0x0001: StatusMeaning(Verdict.WARNING, "The archive does not support some optional attributes (0001)."),
    0x0105: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive does not know a requested attribute (0105).", _OTHER_WAY
    ),
    0x0106: StatusMeaning(Verdict.UNSUPPORTED, "The archive reports an invalid value (0106).", _OTHER_WAY),
    0x0107: StatusMeaning(Verdict.WARNING, "The archive ignored an unknown attribute (0107)."),
    0x0110: StatusMeaning(Verdict.RETRY, "The archive failed while processing the request (0110).", _LOG),
    0x0111: StatusMeaning(Verdict.UNSUPPORTED, "The archive reports a duplicate instance (0111).", _LOG),
    0x0112: StatusMeaning(Verdict.RETRY, "The archive does not find the requested instance (0112).", _LOG),
    0x0115: StatusMeaning(Verdict.UNSUPPORTED, "The archive reports an invalid argument (0115).", _OTHER_WAY),
    0x0116: StatusMeaning(Verdict.WARNING, "The archive reports a value out of range (0116)."),
    0x0117: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive reports an invalid instance UID (0117).", _OTHER_WAY
    ),
    0x0118: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive does not know this SOP class (0118).", _OTHER_WAY
    ),
    0x0119: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive reports that class and instance conflict (0119).", _OTHER_WAY
    ),
    0x0120: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive requires another attribute in the request (0120).", _OTHER_WAY
    ),
    0x0121: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive requires another value in the request (0121).", _OTHER_WAY
    ),
    0x0122: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive does not support this query/retrieve model (0122).", _OTHER_WAY
    ),
    0x0124: StatusMeaning(
        Verdict.CONFIGURATION,
        "The archive does not authorise this AE title (0124).",
        "Ask the PACS team to allow this AE title to query and retrieve.",
    ),
    0x0210: StatusMeaning(Verdict.RETRY, "The archive reports a duplicate message ID (0210).", _LATER),
    0x0211: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive does not know this operation (0211).", _OTHER_WAY
    ),
    0x0212: StatusMeaning(Verdict.UNSUPPORTED, "The archive reports a malformed request (0212).", _OTHER_WAY),
    0x0213: StatusMeaning(Verdict.RETRY, "The archive is short of resources (0213).", _LATER),
}

#: PS3.4 C.4.1.1.4.
_FIND: dict[int, StatusMeaning] = {
    0xA700: StatusMeaning(Verdict.RETRY, "The archive is out of resources for this query (A700).", _LATER),
    0xA900: StatusMeaning(
        Verdict.UNSUPPORTED, "The query's keys do not fit the archive's information model (A900).", _OTHER_WAY
    ),
    0xFE00: StatusMeaning(
        Verdict.CANCELLED,
        "The archive ended the query early (FE00), probably at its limit of answers.",
        "Use a narrower query, for example a shorter range of dates.",
    ),
}

#: PS3.4 C.4.2.1.5.
_MOVE: dict[int, StatusMeaning] = {
    0xA700: StatusMeaning(Verdict.RETRY, "The archive is out of resources (A700).", _LATER),
    0xA701: StatusMeaning(
        Verdict.RETRY,
        "The archive is out of resources and cannot count the matching instances (A701).",
        "Retrieve by series.",
    ),
    0xA702: StatusMeaning(
        Verdict.RETRY,
        "The archive cannot send the instances: its sub-operations fail (A702).",
        _CHECK_NETWORK,
    ),
    0xA801: StatusMeaning(
        Verdict.CONFIGURATION, "The archive does not know the destination (A801).", _REGISTER
    ),
    0xA900: StatusMeaning(
        Verdict.UNSUPPORTED,
        "The request's keys do not fit the archive's information model (A900).",
        _OTHER_WAY,
    ),
    0xB000: StatusMeaning(
        Verdict.WARNING, "The archive could not send every instance (B000).", _RETRIEVE_MISSING
    ),
    0xC502: StatusMeaning(
        Verdict.RETRY, "The archive could not connect to the destination (C502).", _CHECK_NETWORK
    ),
    0xFE00: StatusMeaning(Verdict.CANCELLED, "The archive cancelled the retrieval (FE00)."),
}

#: PS3.4 C.4.3.1.4: the statuses of C-MOVE, except for those about the destination.
_GET: dict[int, StatusMeaning] = {
    code: replace(meaning, next_step=_LOG if meaning.next_step == _CHECK_NETWORK else meaning.next_step)
    for code, meaning in _MOVE.items()
    if code not in (0xA801, 0xC502)
}

_NONE_SENT = StatusMeaning(Verdict.RETRY, "The archive tried, and sent nothing (B000 with none completed).")
_ALL_FAILED = StatusMeaning(Verdict.RETRY, "The archive reports success, but every instance failed.")
_SOME_FAILED = StatusMeaning(
    Verdict.WARNING, "The archive reports success, but some instances failed.", _RETRIEVE_MISSING
)

_COMMENT_PREFIX = "Message from the archive: "


def is_pending(status: int) -> bool:
    """Return True if more responses follow (FF00, FF01: PS3.4 C.4.1.1.4 and C.4.2.1.5)."""
    return status in (0xFF00, 0xFF01)


def interpret_find(status: int) -> StatusMeaning:
    """Interpret the final status of a C-FIND (PS3.4 C.4.1.1.4)."""
    return _FIND.get(status) or _GENERAL.get(status) or _interpret_by_range(status)


def interpret_move(
    status: int, *, completed: int | None = None, failed: int | None = None, has_received: bool = False
) -> StatusMeaning:
    """Interpret the final status of a C-MOVE, with its counters (PS3.4 C.4.2.1.5).

    Counters are None if the archive sent none, which is not zero. They correct two statuses that archives use
    loosely: B000 although nothing was sent, and 0000 although sub-operations failed.
    """
    if has_received:
        return _interpret_retrieval(_MOVE | _GET, _LOG, "", status, completed, failed)
    return _interpret_retrieval(_MOVE, _CHECK_NETWORK, _REGISTER, status, completed, failed)


def interpret_get(
    status: int, *, completed: int | None = None, failed: int | None = None, has_received: bool = False
) -> StatusMeaning:
    """Interpret the final status of a C-GET like :func:`interpret_move` (PS3.4 C.4.3.1.4)."""
    return _interpret_retrieval(_GET, _LOG, "" if has_received else _LOG, status, completed, failed)


def _interpret_retrieval(
    table: Mapping[int, StatusMeaning],
    next_step_if_none_sent: str,
    next_step_if_not_started: str,
    status: int,
    completed: int | None,
    failed: int | None,
) -> StatusMeaning:
    """Interpret a status by its counters, then by ``table``, the general statuses and its range.

    The two next steps are for a retrieval that sent nothing, and for one that the archive could not start;
    the latter is empty if it has started.
    """
    if status == 0xB000 and completed == 0:
        return replace(_NONE_SENT, next_step=next_step_if_none_sent)
    if status == 0x0000 and failed:
        return _SOME_FAILED if completed else replace(_ALL_FAILED, next_step=next_step_if_none_sent)
    meaning = table.get(status) or _GENERAL.get(status)
    if meaning is not None:
        return meaning
    if status & 0xF000 == 0xC000 and not completed and next_step_if_not_started:
        return StatusMeaning(
            Verdict.RETRY,
            f"The archive could not start the retrieval ({status:04X}).",
            next_step_if_not_started,
        )
    return _interpret_by_range(status)


def interpret_failure(failure: QueryFailed) -> StatusMeaning:
    """Interpret the status of a failed query, over DIMSE or HTTP."""
    return interpret_http(failure.status) if failure.is_http else interpret_find(failure.status)


def describe(meaning: StatusMeaning, comment: str = "", offending_tags: Sequence[int] = ()) -> str:
    """Return a meaning as text for the user, with the archive's comment and the rejected attributes.

    These are Error Comment (0000,0902) and Offending Element (0000,0901) of PS3.7 annex C.
    """
    parts = [meaning.sentence, meaning.next_step]
    if comment:
        parts.append(_COMMENT_PREFIX + comment)
    if offending_tags:
        tags = ", ".join(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in offending_tags)
        parts.append(f"Rejected attributes: {tags}")
    return " ".join(part for part in parts if part)


def strip_archive_comment(description: str) -> str:
    """Return the text of :func:`describe` without the archive's comment, which may name a patient."""
    return description.partition(_COMMENT_PREFIX)[0].strip()


def quote_archive_comment(description: str) -> str:
    """Return the archive's own words of a text of :func:`describe`, as a quotation; empty if it has none."""
    words = description.partition(_COMMENT_PREFIX)[2].partition(" Rejected attributes: ")[0].strip()
    return f'{_COMMENT_PREFIX}"{words}"' if words else ""


def _interpret_by_range(status: int) -> StatusMeaning:
    """Interpret a status that no table contains by its class (PS3.7 C.1 to C.5)."""
    code = f"({status:04X})"
    match status >> 12:
        case 0xA:
            return StatusMeaning(Verdict.RETRY, f"The archive refused the request {code}.", _LATER)
        case 0xB:
            return StatusMeaning(Verdict.WARNING, f"The archive finished with a warning {code}.", _LOG)
        case 0xC:
            return StatusMeaning(Verdict.RETRY, f"The archive is unable to process the request {code}.", _LOG)
        case 0xF if status >> 8 == 0xFE:
            return StatusMeaning(Verdict.CANCELLED, f"The archive cancelled the operation {code}.")
    return StatusMeaning(
        Verdict.RETRY, f"The archive ended with a status that DICOM does not define {code}.", _LOG
    )
