"""One C-FIND, from the request to its final response (PS3.4 C.4.1)."""

from __future__ import annotations

import time
from collections.abc import Iterable

from dicom_quarry.archive.base import QueryRows, Verdict
from dicom_quarry.archive.dimse.associations import PooledAssociation
from dicom_quarry.archive.dimse.status import describe, interpret_find, is_pending
from dicom_quarry.errors import ConnectionLost, QueryFailed, RemoteProtocolError
from dicom_quarry.wire.c_store import DimseMessage
from dicom_quarry.wire.dimse import Command, c_find_rq
from dicom_quarry.wire.header_scan import scan_dataset

#: How long an archive may take to end a query that was cancelled, before its association is aborted.
CANCEL_TIMEOUT = 5.0


def run_find(
    association: PooledAssociation, identifier: bytes, tags: Iterable[int], *, cap: int, timeout: float
) -> QueryRows:
    """Ask, and read on to the final response: a query left half-way would poison the association.

    More than ``cap`` answers are cancelled; ``silence`` seconds without an answer are Lost. Raises
    QueryFailed for a failure without answers; after answers it only makes them incomplete.
    """
    request = c_find_rq(association.next_message_id(), association.sop_class)
    association.send_request(request, identifier)
    answers, wanted = QueryRows(), tuple(tags)
    while True:
        message = association.receive_response(request, timeout)
        if message is None:
            association.requestor.abort()
            raise ConnectionLost(f"the archive was silent for {timeout:.0f} s in a query")
        if not is_pending(message.command.status):
            _handle_final_status(answers, message.command)
            return answers
        if len(answers.rows) == cap:
            answers.incomplete_reason = f"the archive gave more than {cap} answers, and was stopped"
            _cancel(association, request)
            return answers
        _add_row(answers, message, association.transfer_syntax, wanted)


def _add_row(answers: QueryRows, message: DimseMessage, transfer_syntax: str, tags: tuple[int, ...]) -> None:
    try:
        row = scan_dataset(message.dataset, transfer_syntax, tags)
    except RemoteProtocolError as damage:
        row = {}
        answers.incomplete_reason = f"an answer of the archive cannot be read: {damage}"
    answers.rows.append(row)


def _handle_final_status(answers: QueryRows, final: Command) -> None:
    meaning = interpret_find(final.status)
    if meaning.verdict is Verdict.SUCCESS:
        return
    detail = describe(meaning, final.error_comment, final.offending_elements)
    if not answers.rows and meaning.verdict not in (Verdict.WARNING, Verdict.CANCELLED):
        raise QueryFailed(detail, status=final.status)
    answers.incomplete_reason = detail


def _cancel(association: PooledAssociation, request: Command) -> None:
    """C-CANCEL (PS3.7 9.3.2.3), then drain; many archives do not heed it: then abort."""
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
