"""Warnings of a process that runs for long, on standard error: a line each, with the time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from dicom_quarry.api import SafeHandler
from dicom_quarry.cli.console import err, out

_OWN = "dicom_quarry"


def timestamp() -> str:
    """Return the local time with its offset from UTC, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


@contextmanager
def log_warnings(logger: str = _OWN) -> Iterator[None]:
    """Print the warnings of a logger and of those below it; the empty name is that of all."""
    source, handler = logging.getLogger(logger), _WarningHandler(logging.WARNING)
    source.addHandler(handler)
    try:
        yield
    finally:
        source.removeHandler(handler)


class _WarningHandler(SafeHandler):
    """Prints warnings, limited in rate, however often a sender tries."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning; a library's is one line, whatever it has raised and caught itself."""
        text = record.getMessage()
        if not record.name.startswith(_OWN):
            text = f"{record.name}: {' '.join(text.split())}"
        # On a terminal by the console that draws the live line, so that the warning appears above it.
        console = out if out.is_terminal and err.is_terminal else err
        console.print(f"{timestamp()} {text}")
