"""Jobs in the background: a process of their own that outlives its terminal or SSH session.

The same command is started again in a new process with the same arguments. A fork of this process would be
shorter, but a lock held by a library's thread at that moment would stay locked in the child for good.

Until the job is running, its output goes to the launcher's terminal, so that a failure to start is seen
there, and its exit code becomes the launcher's. Then the job turns its output to its log and writes one byte
into a pipe, which lets the launcher end. The pipe closes without a byte if the job ends earlier.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from dicom_quarry.cohort.input_source import STANDARD_INPUT, spool_to_disk
from dicom_quarry.errors import StartError
from dicom_quarry.system.ownership import open_own_file

#: The number of the job's end of the pipe; set by the launcher, for the job alone.
_PIPE_VARIABLE = "QUARRY_LAUNCHER"


def is_background_job() -> bool:
    """Return True if this process was started by :func:`start_in_background`."""
    return _PIPE_VARIABLE in os.environ


def start_in_background(
    arguments: Sequence[str], table: Path | None = None, *, output: IO[bytes] | None = None
) -> int | None:
    """Run ``quarry`` with these arguments in the background.

    Returns None once its job is running, its exit code if it ended before. A ``table`` on standard input is
    read to its end first. ``output`` gets what the command prints until then, by default this process's own.
    Raises InputError and StartError.
    """
    read_end, write_end = os.pipe()
    with ExitStack() as closing:
        stdin: int = subprocess.DEVNULL
        if table == STANDARD_INPUT:
            copy = closing.enter_context(spool_to_disk(sys.stdin.buffer))
            copy.seek(0)
            stdin = copy.fileno()
        child = subprocess.Popen(
            # -P: modules in the current folder are not imported, as with the quarry command itself.
            [sys.executable, "-P", "-m", "dicom_quarry", *arguments],
            stdin=stdin,
            stdout=output,
            stderr=output,
            pass_fds=[write_end],
            start_new_session=True,
            env={**os.environ, _PIPE_VARIABLE: str(write_end), "NO_COLOR": "1"},
        )
    os.close(write_end)
    with os.fdopen(read_end, "rb"):
        is_running = _wait_until_running(read_end, child)
    if is_running:
        # A program that goes on, such as a server, takes the exit code at the end.
        threading.Thread(target=child.wait, name="background job", daemon=True).start()
        return None
    code = child.wait()
    if code < 0:
        raise StartError(f"the job was ended by signal {-code} before it was running")
    return code


def _wait_until_running(pipe: int, child: subprocess.Popen[bytes]) -> bool:
    while True:
        try:
            return bool(os.read(pipe, 1))
        except KeyboardInterrupt:
            # A Ctrl-C typed here does not reach the job: it has no terminal.
            child.terminate()


class Launcher:
    """The process that started this background job and waits until the job is running."""

    def __init__(self) -> None:
        # Some shells send SIGHUP to every process that they have started, not only when the session ends.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._pipe: int | None = int(os.environ.pop(_PIPE_VARIABLE))
        os.set_inheritable(self._pipe, False)

    @property
    def is_waiting(self) -> bool:
        """True until :meth:`release` was called."""
        return self._pipe is not None

    def release(self, log: Path) -> None:
        """Turn standard output and error to ``log`` and let the launcher end; must be called once."""
        assert self._pipe is not None
        output = open_own_file(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(nothing, 0)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.close(output)
        os.close(nothing)
        os.write(self._pipe, b".")
        os.close(self._pipe)
        self._pipe = None
