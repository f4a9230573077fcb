"""The guard of a job's rows and studies: an unforeseen error ends one of them, and a repeated one the job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from dicom_quarry.errors import LedgerError
from dicom_quarry.jobs.internal_errors import is_internal, note_repetition
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.model import Request
from dicom_quarry.outcomes import INTERNAL_ERROR
from dicom_quarry.system.error_trace import describe_place, format_trace

_log = logging.getLogger(__name__)

#: Errors of one kind, without a success in between, after which the job stops.
_MAX_IN_A_ROW = 3


class InternalErrorGuard:
    """Counts the unforeseen errors of one kind of work; ``unit`` is what each ends: row or study."""

    def __init__(self, unit: str, report: Callable[[str], object]) -> None:
        self._unit = unit
        self._report = report
        self._lock = threading.Lock()
        self._kind = ""
        self._in_a_row = 0

    def on_success(self) -> None:
        """Note a row or study that was worked on without such an error."""
        with self._lock:
            self._in_a_row = 0

    def on_error(self, row: int, error: BaseException) -> bool:
        """Log and report an error; return True if the job must stop: it was one of its kind too many."""
        kind = describe_place(error)
        _log.error("row %d: internal error, a defect of Quarry\n%s", row, format_trace(error))
        self._report(f"row {row}: internal error ({kind}), a defect of Quarry; its trace is in quarry.log")
        with self._lock:
            self._in_a_row = self._in_a_row + 1 if kind == self._kind else 1
            self._kind = kind
            is_too_many = self._in_a_row >= _MAX_IN_A_ROW
        if is_too_many:
            note_repetition(error, self._unit, _MAX_IN_A_ROW)
        return is_too_many


class RowGuard:
    """The guard around the queries for a row: ``resolve`` makes them, and the ledger gets the outcome."""

    def __init__(
        self,
        resolve: Callable[[Request], Future[int]],
        ledger: Ledger,
        report: Callable[[str], object],
    ) -> None:
        self._resolve = resolve
        self._ledger = ledger
        self._guard = InternalErrorGuard("rows", report)

    def resolve(self, request: Request) -> Future[int]:
        """Query for a row; an unforeseen error ends it, and no later run of the job tries it again.

        The future is the number of rows that are settled, once that is durable. It raises an unforeseen error
        that is one of its kind too many.
        """
        settled: Future[int] = Future()
        try:
            recorded = self._resolve(request)
        except Exception as error:  # the row ends with it, if it was not foreseen
            if not is_internal(error):
                raise
            if self._end_row(request, error, settled):
                settled.result()  # no other row is begun
        else:
            recorded.add_done_callback(partial(self._on_recorded, request, settled))
        return settled

    def _on_recorded(self, request: Request, settled: Future[int], recorded: Future[int]) -> None:
        error = recorded.exception()
        if error is None:
            self._guard.on_success()
            settled.set_result(recorded.result())
        elif is_internal(error):
            self._end_row(request, error, settled)
        else:
            settled.set_exception(error)

    def _end_row(self, request: Request, error: BaseException, settled: Future[int]) -> bool:
        is_too_many = self._guard.on_error(request.row, error)

        def on_ended(ended: Future[int]) -> None:
            problem = ended.exception() or (error if is_too_many else None)
            if problem is not None:
                settled.set_exception(problem)
            else:
                settled.set_result(ended.result())

        try:
            ended = self._ledger.conclude_request(request, INTERNAL_ERROR, place=describe_place(error))
        except LedgerError as closed:
            settled.set_exception(closed)
        else:
            ended.add_done_callback(on_ended)
        return is_too_many
