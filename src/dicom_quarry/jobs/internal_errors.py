"""Defects of Quarry itself: one sentence for the user, and a trace in a log without any identifier."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from dicom_quarry.errors import InputError, InstanceRefused, ProtocolError, QuarryError
from dicom_quarry.jobs.registry import make_state_folder, state_home
from dicom_quarry.system.error_trace import format_trace
from dicom_quarry.system.ownership import open_own_file
from dicom_quarry.system.shutdown import Stopped

_log = logging.getLogger(__name__)

_NOTE = "trace in "
_REPEATED = "repeated: "


def is_internal(error: BaseException) -> bool:
    """Return True if an error that reached the top is a defect, and not a cause that Quarry knows.

    Protocol errors and refusals are handled where they occur: one that is not is a defect, too.
    """
    if isinstance(error, ProtocolError | InstanceRefused):
        return True
    return isinstance(error, Exception) and not isinstance(error, QuarryError | OSError | Stopped)


def log_internal(error: BaseException, log: Path) -> None:
    """Write the trace of an internal error to the log, which is the file ``log``, and note that path."""
    _log.error("internal error, a defect of Quarry\n%s", format_trace(error))
    error.add_note(f"{_NOTE}{log}")


def note_repetition(error: BaseException, unit: str, count: int) -> None:
    """Note that an error of this kind ended so many rows or studies in a row."""
    error.add_note(f"{_REPEATED}It ended {count} {unit} in a row, so the job was stopped. ")


def describe_internal(error: BaseException) -> str:
    """Return the sentence for the user; write the trace to a file of its own if no log has it."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(_NOTE)]
    where = notes[0].removeprefix(_NOTE) if notes else _write_trace(error)
    repeated = [note for note in getattr(error, "__notes__", ()) if note.startswith(_REPEATED)]
    return (
        f"internal error ({type(error).__name__}): this is a defect of Quarry, not of your input. "
        f"{repeated[0].removeprefix(_REPEATED) if repeated else ''}What is "
        f"stored stays stored: run the same command again. If it happens again, report it with {where}"
    )


def _write_trace(error: BaseException) -> str:
    path = state_home() / "internal-error.log"
    trace = format_trace(error)
    try:
        make_state_folder(path.parent)
        with os.fdopen(open_own_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
            file.write(f"{trace}\n")
    except (OSError, InputError):
        return f"this trace:\n{trace}"
    return str(path)
