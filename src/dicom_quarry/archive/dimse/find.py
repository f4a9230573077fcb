"""One C-FIND operation, from its request to its final response (PS3.4 C.4.1)."""

from __future__ import annotations

import time
from collections.abc import Iterable

from dicom_quarry.archive.base import QueryRows, Verdict
from dicom_quarry.archive.dimse.associations import PooledAssociation
from dicom_quarry.archive.dimse.status import describe, interpret_find, is_pending
from dicom_quarry.errors import ConnectionLost, QueryFailed, RemoteProtocolError
from dicom_quarry.plurals import format_count
from dicom_quarry.system.shutdown import ABORT_AFTER
from dicom_quarry.wire.c_store import DimseMessage
from dicom_quarry.wire.dimse import Command, c_find_rq
from dicom_quarry.wire.header_scan import scan_dataset

#: Seconds that the archive has to end a cancelled query before its association is aborted.
CANCEL_TIMEOUT = ABORT_AFTER

_CHARACTER_SET = 0x00080005


def run_find(
    association: PooledAssociation, identifier: bytes, tags: Iterable[int], *, cap: int, timeout: float
) -> QueryRows:
    """Send the query, and read up to its final response: an unfinished query makes an association unusable.

    A query with more than ``cap`` answers is cancelled. Raises ConnectionLost after ``timeout`` seconds
    without an answer, and QueryFailed for a failure without answers. A failure after answers makes them
    incomplete, like a limit, since archives use many statuses for theirs. So do a warning and an answer that
    cannot be read, but narrower queries do not help there.
    """
    request = c_find_rq(association.next_message_id(), association.sop_class)
    association.send_request(request, identifier)
    found, wanted = QueryRows(), tuple(tags)
    while True:
        message = association.receive_response(request, timeout)
        if message is None:
            association.requestor.abort()
            raise ConnectionLost(f"the archive sent nothing for {timeout:.0f} s during a query")
        if not is_pending(message.command.status):
            _handle_final_status(found, message.command)
            return found
        if len(found.rows) == cap:
            found.incomplete_reason = (
                f"the archive sent more than {format_count(cap, 'answer')}; the query was cancelled"
            )
            _cancel(association, request)
            return found
        _add_row(found, message, association.transfer_syntax, wanted)


def _add_row(found: QueryRows, message: DimseMessage, transfer_syntax: str, tags: tuple[int, ...]) -> None:
    try:
        if message.command.has_dataset and not message.dataset:
            raise RemoteProtocolError("its dataset was announced and did not come")
        row = scan_dataset(message.dataset, transfer_syntax, (*tags, _CHARACTER_SET))
        found.charset = row.pop(_CHARACTER_SET, "") or found.charset
    except RemoteProtocolError as damage:
        row = {}
        found.incomplete_reason = f"an answer of the archive cannot be read: {damage}"
        found.splittable = False
    found.rows.append(row)


def _handle_final_status(found: QueryRows, final: Command) -> None:
    meaning = interpret_find(final.status)
    if meaning.verdict is Verdict.SUCCESS:
        return
    detail = describe(meaning, final.error_comment, final.offending_elements)
    if not found.rows and meaning.verdict not in (Verdict.WARNING, Verdict.CANCELLED):
        raise QueryFailed(detail, status=final.status)
    found.incomplete_reason = detail
    if meaning.verdict is Verdict.WARNING:
        found.splittable = False


def _cancel(association: PooledAssociation, request: Command) -> None:
    """Send C-CANCEL (PS3.7 9.3.2.3) and read the rest; abort if the archive ignores it, as many do."""
    deadline = time.monotonic() + CANCEL_TIMEOUT
    try:
        association.cancel(request)
        while (left := deadline - time.monotonic()) > 0:
            message = association.receive_response(request, left)
            if message is not None and not is_pending(message.command.status):
                return
    except ConnectionLost:
        return
    association.requestor.abort()
