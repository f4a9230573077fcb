"""SIGINT and SIGTERM of a command: a thread takes them, and ends a process that does not end by itself."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from dicom_quarry.system.subprocess_runner import kill_running_commands

_NUMBERS = (signal.SIGINT, signal.SIGTERM)

#: Exit code of a job that was stopped.
_NOT_FINISHED = 4

#: Seconds after the second signal in which the command ends in order; then its process ends.
END_AFTER = 6.0

#: Shows the cursor, which a live display has hidden.
_SHOW_CURSOR = b"\x1b[?25h"


class StopSignals:
    """A context in which SIGINT and SIGTERM stop the work, by a thread that calls the function of ``begin``.

    The main thread may be in a call of the system that no signal ends, such as a search for a host name: the
    thread takes the signals all the same. A few seconds after the second signal the process ends, whatever it
    waits for, with ``exit_code``; after the first one if the work is over, and at once if it has not begun.
    To be entered in the main thread.
    """

    def __init__(self, *, end_after: float = END_AFTER) -> None:
        self.exit_code = _NOT_FINISHED
        self._on_signal: Callable[[], object] | None = None
        self._has_begun = False
        self._end_after = end_after
        self._count = 0
        self._ends_at: float | None = None
        self._reader = self._writer = self._previous_fd = -1
        self._previous: dict[int, object] = {}
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            pass  # without a thread the handler itself takes the signals
        else:
            self._thread = thread
            self._previous_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in _NUMBERS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._thread is not None:
            signal.set_wakeup_fd(self._previous_fd)
            os.write(self._writer, b"\0")
            self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def begin(self, on_signal: Callable[[], object]) -> None:
        """Call this function for each signal from now on."""
        self._on_signal, self._has_begun = on_signal, True

    def finish(self) -> None:
        """Note that the work is over, and only its end remains, such as the reports."""
        self._on_signal = None

    def _handle(self, *_: object) -> None:
        """Take a signal in the main thread, if there is no other."""
        if self._thread is None:
            self._take_signal()

    def _watch(self) -> None:
        while True:
            left = None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())
            if not select.select([self._reader], [], [], left)[0]:
                self._end()
            for number in os.read(self._reader, 64):
                if not number:
                    return
                if number in _NUMBERS:
                    self._take_signal()

    def _take_signal(self) -> None:
        self._count += 1
        if self._ends_at is None and (self._count > 1 or self._on_signal is None):
            self._ends_at = time.monotonic() + (self._end_after if self._has_begun else 0.0)
        if self._on_signal is not None:
            self._on_signal()

    def _end(self) -> None:
        """End the process. The ledger and the stored instances are as safe as after a crash."""
        text = "quarry: stopped before it began\n"
        if self._has_begun and self.exit_code != _NOT_FINISHED:
            text = "quarry: the job is over; its last step, such as a mail, was not waited for any longer\n"
        elif self._has_begun:
            text = (
                "quarry: cancelled, without waiting any longer for an answer. What is stored stays stored: "
                "run the same command again to continue\n"
            )
        with suppress(OSError, ValueError, AttributeError):
            if sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR)
            os.write(2, text.encode())
        kill_running_commands()
        os._exit(self.exit_code)
