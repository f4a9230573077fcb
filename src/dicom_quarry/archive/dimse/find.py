"""One C-FIND, from the request to its final response (PS3.4 C.4.1)."""

from __future__ import annotations

import time
from collections.abc import Iterable

from dicom_quarry.archive.base import Answers, Verdict
from dicom_quarry.archive.dimse.association_pool import Line
from dicom_quarry.archive.dimse.status import in_words, is_pending, of_find
from dicom_quarry.errors import Lost, QueryFailed, RemoteProtocolError
from dicom_quarry.wire.dimse import Command, c_find_rq
from dicom_quarry.wire.header_scan import scan
from dicom_quarry.wire.message_assembler import Message

#: How long an archive may take to end a query that was cancelled, before its association is aborted.
CANCEL_PATIENCE = 5.0


def run(line: Line, identifier: bytes, tags: Iterable[int], *, cap: int, silence: float) -> Answers:
    """Ask, and read on to the final response: a query left half-way would poison the association.

    More than ``cap`` answers are cancelled; ``silence`` seconds without an answer are Lost. Raises
    QueryFailed for a failure without answers; after answers it only makes them incomplete.
    """
    request = c_find_rq(line.next_message_id(), line.sop_class)
    line.ask(request, identifier)
    answers, wanted = Answers(), tuple(tags)
    while True:
        message = line.answer(request, silence)
        if message is None:
            line.requestor.abort()
            raise Lost(f"the archive was silent for {silence:.0f} s in a query")
        if not is_pending(message.command.status):
            _conclude(answers, message.command)
            return answers
        if len(answers.rows) == cap:
            answers.why = f"the archive gave more than {cap} answers, and was stopped"
            _cancel(line, request)
            return answers
        _take(answers, message, line.transfer_syntax, wanted)


def _take(answers: Answers, message: Message, transfer_syntax: str, tags: tuple[int, ...]) -> None:
    try:
        row = scan(message.dataset, transfer_syntax, tags)
    except RemoteProtocolError as damage:
        row = {}
        answers.why = f"an answer of the archive cannot be read: {damage}"
    answers.rows.append(row)


def _conclude(answers: Answers, final: Command) -> None:
    meaning = of_find(final.status)
    if meaning.verdict is Verdict.SUCCESS:
        return
    said = in_words(meaning, final.error_comment, final.offending_elements)
    if not answers.rows and meaning.verdict not in (Verdict.WARNING, Verdict.CANCELLED):
        raise QueryFailed(said, status=final.status)
    answers.why = said


def _cancel(line: Line, request: Command) -> None:
    """C-CANCEL (PS3.7 9.3.2.3), then drain; many archives do not heed it: then abort."""
    deadline = time.monotonic() + CANCEL_PATIENCE
    try:
        line.cancel(request)
        while (left := deadline - time.monotonic()) > 0:
            message = line.answer(request, left)
            if message is not None and not is_pending(message.command.status):
                return
    except Lost:
        return
    line.requestor.abort()
