"""The guard around a service loop: an error costs one turn, never the loop; and threads that start late."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from dicom_quarry.errors import StartError
from dicom_quarry.system.error_trace import describe_place

#: Seconds of the first and of the longest wait after errors in a row.
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 2.0

#: Seconds for which a thread that the system refuses is tried again.
START_TIMEOUT = 20.0


class LoopGuard:
    """Counts the errors of a loop, and waits after each: longer after several in a row.

    ``wait`` pauses for some seconds, and may return early when the loop is to end.
    """

    def __init__(self, name: str, log: logging.Logger, wait: Callable[[float], object] = time.sleep) -> None:
        self.errors = 0
        self._name = name
        self._log = log
        self._wait = wait
        self._in_a_row = 0

    def on_success(self) -> None:
        """Note a turn without an error."""
        self._in_a_row = 0

    def on_error(self, error: Exception) -> None:
        """Count and log an error, and wait; never raises, whatever a log handler does."""
        self.errors += 1
        self._in_a_row += 1
        with suppress(Exception):
            detail = (error.strerror if isinstance(error, OSError) else "") or describe_place(error)
            self._log.error("%s: %s; it goes on", self._name, detail)
        self._wait(min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(self._in_a_row - 1, 10)))


def start_thread(
    thread: threading.Thread, *, timeout: float = START_TIMEOUT, wait: Callable[[float], object] = time.sleep
) -> None:
    """Start a thread; try again for ``timeout`` seconds where the system starts none. Raises StartError."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            if thread.ident is not None:
                raise
            if time.monotonic() >= deadline:
                raise StartError(
                    "this computer starts no more threads for this user: end other programs, or raise the "
                    "limit (ulimit -u, TasksMax of the unit, or pids of the container)"
                ) from error
            wait(0.1)
        else:
            return
