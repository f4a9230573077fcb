"""``--detach``: a job that runs on when its terminal, or its SSH session, is gone.

The same command is started again, as a process of its own: with the same arguments, so that nothing stands on
a command line that the user did not write there. A fork of this process would be shorter, but is sound only
while no library has started a thread: what a thread holds locked at that moment stays locked in the child for
good. A fresh interpreter does not depend on that.

Until the job is under way it speaks on the launcher's terminal, so that what keeps it from starting is seen
there, and its exit code is the launcher's. Then it turns to its log, and lets the launcher go by a byte in a
pipe, which ends without one if the job does.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import typer

from dicom_quarry.cli.display.plain import PlainDisplay
from dicom_quarry.cohort.input_source import STANDARD_INPUT, spool_to_disk
from dicom_quarry.errors import StartError
from dicom_quarry.jobs.folder import JobFolder

#: The job's end of the pipe; set by the launcher, for the job alone.
_LAUNCHER_VARIABLE = "QUARRY_LAUNCHER"


def is_launched() -> bool:
    """Whether this process is a job that was started by ``leave``."""
    return _LAUNCHER_VARIABLE in os.environ


def run_in_background(table: Path | None = None) -> None:
    """Start this command again in the background, and exit as soon as it is under way, or has ended.

    In the job itself this does nothing. ``table``: where it is standard input it is read to its end before.
    Raises InputError and StartError.
    """
    if not is_launched():
        _launch(table)


def _launch(table: Path | None) -> NoReturn:
    ours, theirs = os.pipe()
    with ExitStack() as closing:
        stdin: int = subprocess.DEVNULL
        if table == STANDARD_INPUT:
            copy = closing.enter_context(spool_to_disk(sys.stdin.buffer))
            copy.seek(0)
            stdin = copy.fileno()
        child = subprocess.Popen(
            # -P: what lies in the current folder is not imported, as with the quarry command itself.
            [sys.executable, "-P", "-m", "dicom_quarry", *sys.argv[1:]],
            stdin=stdin,
            pass_fds=[theirs],
            start_new_session=True,
            env={**os.environ, _LAUNCHER_VARIABLE: str(theirs), "NO_COLOR": "1"},
        )
    os.close(theirs)
    if _wait_until_started(ours, child):
        raise typer.Exit
    code = child.wait()
    if code < 0:
        raise StartError(f"the job was ended by signal {-code} before it was under way")
    raise typer.Exit(code)


def _wait_until_started(pipe: int, child: subprocess.Popen[bytes]) -> bool:
    while True:
        try:
            return bool(os.read(pipe, 1))
        except KeyboardInterrupt:
            # The job does not hear a Ctrl-C typed here: it has no terminal.
            child.terminate()


class DetachedDisplay(PlainDisplay):
    """Speaks on the launcher's terminal until the job is under way, afterwards in its log."""

    def __init__(self) -> None:
        super().__init__()
        # Not for the session's end alone: some shells send it to every process that they have started.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._launcher_pipe: int | None = int(os.environ.pop(_LAUNCHER_VARIABLE))
        os.set_inheritable(self._launcher_pipe, False)

    def on_started(self, folder: JobFolder) -> None:
        """Let the launcher go."""
        if self._launcher_pipe is None:
            return
        out = shlex.quote(str(folder.out))
        print(f"in the background (process {os.getpid()}); what it says goes to {folder.output_log}")
        print(f"  quarry status {out}\n  quarry stop {out}", flush=True)
        log = os.open(folder.output_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(nothing, 0)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        os.close(nothing)
        os.write(self._launcher_pipe, b".")
        os.close(self._launcher_pipe)
        self._launcher_pipe = None
