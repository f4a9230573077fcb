"""Log handlers that never raise into what they log, and a limit on the lines of one cause."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TextIO

#: Seconds in which the same text appears once, and one cause fills at most so many lines.
_INTERVAL = 60.0
_LINES_PER_CAUSE = 20

#: Causes that are remembered at once.
_MAX_CAUSES = 1000

#: Loggers whose lines a stranger on the network can cause, at any level.
_OF_STRANGERS = ("dicom_quarry.receiver", "dicom_quarry.wire")


class _Window:
    """The lines of one cause within the interval that began at ``began``."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.texts: set[str] = set()
        self.left_out = 0


class RepeatLimit:
    """A limit on repeated lines: the same text once a minute, and 20 lines of one cause a minute."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._windows: dict[Hashable, _Window] = {}

    def admit(self, cause: Hashable, text: str) -> str:
        """Return the line to write, empty to leave it out; it names how many were left out before it."""
        with self._lock:
            now = self._monotonic()
            window = self._windows.get(cause)
            left_out = 0
            if window is None or now - window.began >= _INTERVAL:
                left_out = window.left_out if window else 0
                if len(self._windows) >= _MAX_CAUSES:
                    self._windows.clear()
                window = self._windows[cause] = _Window(now)
            if text in window.texts or len(window.texts) >= _LINES_PER_CAUSE:
                window.left_out += 1
                return ""
            window.texts.add(text)
        return f"{text} (lines like this that were left out: {left_out:,})" if left_out else text


class SafeHandler(logging.Handler):
    """A log handler that never raises into what it logs; ``lost`` counts the records it could not write.

    Warnings, and all lines that a stranger on the network can cause, are limited in rate.
    """

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.lost = 0
        self._limit = RepeatLimit()

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a record, unless it is one too many of its cause."""
        try:
            if record.levelno >= logging.WARNING or record.name.startswith(_OF_STRANGERS):
                text = self._limit.admit((record.name, record.lineno), record.getMessage())
                if not text:
                    return False
                record = logging.makeLogRecord({**record.__dict__, "msg": text, "args": ()})
            return bool(super().handle(record))
        except Exception:  # noqa: BLE001 - a log must not end what it logs
            self.lost += 1
            return False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002 (logging's names)
        """Count a record that could not be written; printing it could fail, too."""
        self.lost += 1


class SafeFileHandler(SafeHandler, logging.StreamHandler[TextIO]):
    """An open file as a log: a full disk costs lines, and ends nothing. Closing the log closes the file."""

    def __init__(self, file: TextIO) -> None:
        super().__init__(file)

    def close(self) -> None:
        """Close the file."""
        super().close()
        with suppress(OSError):  # what could not be written is lost
            self.stream.close()
