"""The guard of a job's rows and studies: an unforeseen error ends one of them, and a repeated one the job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from dicom_quarry.jobs.internal_errors import note_repetition
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
