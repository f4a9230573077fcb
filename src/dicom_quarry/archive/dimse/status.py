"""The one table: what a final DIMSE status says about what to do.

Statuses of C-FIND are in PS3.4 C.4.1.1.4, of C-MOVE in C.4.2.1.5, of C-GET in C.4.3.1.4, the general ones in
PS3.7 Annex C.
A status is the archive's opinion: the verdict says how to go on, never that a study is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from dicom_quarry.archive.base import StatusMeaning, Verdict
from dicom_quarry.archive.dicomweb.status import interpret_http
from dicom_quarry.errors import QueryFailed


class StatusInterpreter(Protocol):
    """Says what a final status means, in the light of its counters."""

    def __call__(
        self, status: int, /, *, completed: int | None = None, failed: int | None = None
    ) -> StatusMeaning:
        """Counters are None where the archive gave none, which is not zero."""


_LATER = "Ask again later, with fewer operations at once."
_LOG = "Look into the archive's log for this time."
_REGISTER = "Register this AE title, with this host's address and port, as a destination in the archive."
_CHECK_NETWORK = (
    "Check that the archive has the right address and port of this receiver, and that no firewall is between."
)
_OTHER_WAY = "Ask at another level, or in the other information model (Study Root, Patient Root)."

#: PS3.7 Annex C: general statuses, which may end any operation.
_GENERAL: dict[int, StatusMeaning] = {
    0x0000: StatusMeaning(Verdict.SUCCESS, "The archive reports success."),
    0x0001: StatusMeaning(Verdict.WARNING, "The archive does not support some optional attributes (0001)."),
    0x0105: StatusMeaning(Verdict.UNSUPPORTED, "The archive does not know an attribute (0105).", _OTHER_WAY),
    0x0106: StatusMeaning(Verdict.UNSUPPORTED, "The archive calls a value invalid (0106).", _OTHER_WAY),
    0x0107: StatusMeaning(Verdict.WARNING, "The archive did not recognise every attribute (0107)."),
    0x0110: StatusMeaning(Verdict.RETRY, "The archive failed while processing the request (0110).", _LOG),
    0x0111: StatusMeaning(Verdict.UNSUPPORTED, "The archive speaks of a duplicate instance (0111).", _LOG),
    0x0112: StatusMeaning(Verdict.RETRY, "The archive does not find what was asked for (0112).", _LOG),
    0x0115: StatusMeaning(Verdict.UNSUPPORTED, "The archive calls an argument invalid (0115).", _OTHER_WAY),
    0x0116: StatusMeaning(Verdict.WARNING, "The archive calls a value out of range (0116)."),
    0x0117: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive calls an instance UID invalid (0117).", _OTHER_WAY
    ),
    0x0118: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive does not know this SOP class (0118).", _OTHER_WAY
    ),
    0x0119: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive sees class and instance in conflict (0119).", _OTHER_WAY
    ),
    0x0120: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive misses an attribute in the request (0120).", _OTHER_WAY
    ),
    0x0121: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive misses a value in the request (0121).", _OTHER_WAY
    ),
    0x0122: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive does not support this query/retrieve model (0122).", _OTHER_WAY
    ),
    0x0124: StatusMeaning(
        Verdict.CONFIGURATION,
        "The archive does not authorise this AE title (0124).",
        "Have this AE title allowed to query and retrieve.",
    ),
    0x0210: StatusMeaning(Verdict.RETRY, "The archive saw a message ID twice (0210).", _LATER),
    0x0211: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive does not know this operation (0211).", _OTHER_WAY
    ),
    0x0212: StatusMeaning(Verdict.UNSUPPORTED, "The archive finds the request malformed (0212).", _OTHER_WAY),
    0x0213: StatusMeaning(Verdict.RETRY, "The archive is short of resources (0213).", _LATER),
}

#: PS3.4 C.4.1.1.4.
_FIND: dict[int, StatusMeaning] = {
    0xA700: StatusMeaning(Verdict.RETRY, "The archive is out of resources for a query (A700).", _LATER),
    0xA900: StatusMeaning(
        Verdict.UNSUPPORTED, "The query's keys do not fit the archive's model (A900).", _OTHER_WAY
    ),
    0xFE00: StatusMeaning(
        Verdict.CANCELLED,
        "The archive ended the query early (FE00), as it does at a limit of answers.",
        "Ask a narrower question, such as a shorter range of dates.",
    ),
}

#: PS3.4 C.4.2.1.5.
_MOVE: dict[int, StatusMeaning] = {
    0xA700: StatusMeaning(Verdict.RETRY, "The archive is out of resources (A700).", _LATER),
    0xA701: StatusMeaning(
        Verdict.RETRY,
        "The archive is out of resources and cannot count what matches (A701).",
        "Ask by series.",
    ),
    0xA702: StatusMeaning(
        Verdict.RETRY, "The archive cannot perform the sub-operations (A702).", _CHECK_NETWORK
    ),
    0xA801: StatusMeaning(
        Verdict.CONFIGURATION, "The archive does not know the destination (A801).", _REGISTER
    ),
    0xA900: StatusMeaning(
        Verdict.UNSUPPORTED, "The request's keys do not fit the archive's model (A900).", _OTHER_WAY
    ),
    0xB000: StatusMeaning(
        Verdict.WARNING, "The archive could not send every instance (B000).", "Ask for what is missing."
    ),
    0xC502: StatusMeaning(
        Verdict.RETRY, "The archive could not connect to the destination (C502).", _CHECK_NETWORK
    ),
    0xFE00: StatusMeaning(Verdict.CANCELLED, "The archive cancelled the retrieval (FE00)."),
}

#: PS3.4 C.4.3.1.4: as of C-MOVE, but for the destination.
_GET: dict[int, StatusMeaning] = {
    code: replace(meaning, next_step=_LOG if meaning.next_step == _CHECK_NETWORK else meaning.next_step)
    for code, meaning in _MOVE.items()
    if code not in (0xA801, 0xC502)
}

_NONE_SENT = StatusMeaning(Verdict.RETRY, "The archive tried, and sent nothing (B000 with none completed).")
_ALL_FAILED = StatusMeaning(Verdict.RETRY, "The archive reports success, yet every instance failed.")
_SOME_FAILED = StatusMeaning(
    Verdict.WARNING, "The archive reports success, yet some instances failed.", "Ask for what is missing."
)


_COMMENT_PREFIX = "The archive says: "


def is_pending(status: int) -> bool:
    """Whether more responses follow (FF00, FF01: PS3.4 C.4.1.1.4 and C.4.2.1.5)."""
    return status in (0xFF00, 0xFF01)


def interpret_find(status: int) -> StatusMeaning:
    """What the final status of a C-FIND means (PS3.4 C.4.1.1.4)."""
    return _FIND.get(status) or _GENERAL.get(status) or _interpret_by_range(status)


def interpret_move(status: int, *, completed: int | None = None, failed: int | None = None) -> StatusMeaning:
    """What the final status of a C-MOVE means (PS3.4 C.4.2.1.5), in the light of its counters.

    Counters are None where the archive gave none, which is not zero. They correct two statuses that archives
    use loosely: B000 although nothing was sent, and 0000 although sub-operations failed.
    """
    return _interpret_retrieval(_MOVE, _CHECK_NETWORK, _REGISTER, status, completed, failed)


def interpret_get(status: int, *, completed: int | None = None, failed: int | None = None) -> StatusMeaning:
    """What the final status of a C-GET means (PS3.4 C.4.3.1.4); as :func:`of_move`."""
    return _interpret_retrieval(_GET, _LOG, _LOG, status, completed, failed)


def _interpret_retrieval(
    table: Mapping[int, StatusMeaning],
    next_step_if_none_sent: str,
    next_step_if_not_started: str,
    status: int,
    completed: int | None,
    failed: int | None,
) -> StatusMeaning:
    """``unsent`` is what to do where nothing could be sent, ``unable`` where nothing was tried."""
    if status == 0xB000 and completed == 0:
        return replace(_NONE_SENT, next_step=next_step_if_none_sent)
    if status == 0x0000 and failed:
        return _SOME_FAILED if completed else replace(_ALL_FAILED, next_step=next_step_if_none_sent)
    meaning = table.get(status) or _GENERAL.get(status)
    if meaning is not None:
        return meaning
    if status & 0xF000 == 0xC000 and not completed:
        return StatusMeaning(
            Verdict.RETRY,
            f"The archive could not start the retrieval ({status:04X}).",
            next_step_if_not_started,
        )
    return _interpret_by_range(status)


def interpret_failure(failure: QueryFailed) -> StatusMeaning:
    """What the status of a query that failed means, over DIMSE or HTTP."""
    return interpret_http(failure.status) if failure.is_http else interpret_find(failure.status)


def describe(meaning: StatusMeaning, comment: str = "", offending_tags: Sequence[int] = ()) -> str:
    """The meaning for a person, with what the archive itself said about it (PS3.7 C: 0000,0901 and 0902)."""
    parts = [meaning.sentence, meaning.next_step]
    if comment:
        parts.append(_COMMENT_PREFIX + comment)
    if offending_tags:
        tags = ", ".join(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in offending_tags)
        parts.append(f"Attributes at fault: {tags}")
    return " ".join(part for part in parts if part)


def strip_archive_comment(description: str) -> str:
    """What ``in_words`` made, without what the archive itself said: that may name a patient."""
    return description.partition(_COMMENT_PREFIX)[0].strip()


def _interpret_by_range(status: int) -> StatusMeaning:
    """The class of a status that stands in no table (PS3.7 C.1 to C.5)."""
    code = f"({status:04X})"
    match status >> 12:
        case 0xA:
            return StatusMeaning(Verdict.RETRY, f"The archive refuses {code}.", _LATER)
        case 0xB:
            return StatusMeaning(Verdict.WARNING, f"The archive finished with a warning {code}.", _LOG)
        case 0xC:
            return StatusMeaning(Verdict.RETRY, f"The archive is unable to process the request {code}.", _LOG)
        case 0xF if status >> 8 == 0xFE:
            return StatusMeaning(Verdict.CANCELLED, f"The archive cancelled the operation {code}.")
    return StatusMeaning(
        Verdict.RETRY, f"The archive ended with a status that DICOM does not define {code}.", _LOG
    )
