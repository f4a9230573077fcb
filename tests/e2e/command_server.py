"""Starts commands for the tests without importing Quarry each time.

``python -m tests.e2e.command_server FD`` is its server. A process imports all commands once, and forks a
child for each that is typed. The child is a process like any other, with its own arguments, environment,
folder, umask and streams.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

_NUMBER = struct.Struct("i")


class CommandServer:
    """The client: commands of several threads may run at once."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.environment = dict(os.environ)
        with theirs:
            subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.command_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
            )
        self._lock = threading.Lock()

    def run(self, words: Sequence[str], cwd: Path | None, timeout: float) -> tuple[int, bytes, bytes]:
        """Run a command to its end; return its exit code and what it wrote.

        Raises subprocess.TimeoutExpired.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with closing(self.start(words, cwd, out.fileno(), err.fileno())) as command:
                code = command.wait(timeout)
            out.seek(0)
            err.seek(0)
            return code, out.read(), err.read()

    def start(self, words: Sequence[str], cwd: Path | None, out: int, err: int) -> StartedCommand:
        """Start a command that writes to these files."""
        mine, theirs = socket.socketpair()
        umask = os.umask(0)
        os.umask(umask)
        request = {"words": words, "cwd": str(cwd or Path.cwd()), "umask": umask, "env": dict(os.environ)}
        with theirs, tempfile.TemporaryFile() as body:
            body.write(json.dumps(request).encode())
            body.flush()
            fds = array.array("i", [theirs.fileno(), out, err, body.fileno()])
            with self._lock:
                self._control.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        return StartedCommand(mine)


class StartedCommand:
    """A command that was started by the server; used by one thread at a time."""

    def __init__(self, answers: socket.socket) -> None:
        self._answers = answers
        self._code: int | None = None
        self.pid = self._read(60.0)

    def poll(self) -> int | None:
        """The exit code; None while the command runs."""
        if self._code is None:
            with suppress(BlockingIOError):
                self._code = self._read(0.0)
        return self._code

    def wait(self, timeout: float) -> int:
        """Wait for the end, and return the exit code. Raises subprocess.TimeoutExpired."""
        if self._code is None:
            try:
                self._code = self._read(timeout)
            except TimeoutError:
                raise subprocess.TimeoutExpired("quarry", timeout) from None
        return self._code

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the command has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def close(self) -> None:
        self._answers.close()

    def _read(self, timeout: float) -> int:
        self._answers.settimeout(timeout)
        answer = self._answers.recv(_NUMBER.size)
        if len(answer) < _NUMBER.size:
            raise AssertionError("the command server has ended")
        number: int = _NUMBER.unpack(answer)[0]
        return number


def serve(control: socket.socket) -> None:
    """Fork a child for each request, until the client is gone."""
    from dicom_quarry import api
    from dicom_quarry.cli import commands
    from dicom_quarry.cli.main import main

    for name in (
        *(f"cli.commands.{one.name}" for one in pkgutil.iter_modules(commands.__path__)),
        *api.EXPORTS,
    ):
        importlib.import_module(f"dicom_quarry.{name}")
    gc.collect()
    gc.freeze()
    while True:
        data, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(4 * _NUMBER.size))
        if not data:
            return
        fds = array.array("i")
        fds.frombytes(ancillary[0][2])
        if os.fork() == 0:
            control.close()
            _supervise(list(fds), main)
        for fd in fds:
            os.close(fd)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _supervise(fds: list[int], main: Any) -> None:
    """Run the command in a child of its own; report its process id, and how it ended."""
    answer, out, err, body = fds
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        size = os.fstat(body).st_size
        request = json.loads(os.pread(body, size, 0))
        os.close(body)
        _become(request, out, err)
        _run(main)
    os.write(answer, _NUMBER.pack(pid))
    _, status = os.waitpid(pid, 0)
    # The client may be gone.
    with suppress(BrokenPipeError):
        os.write(answer, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _become(request: Mapping[str, Any], out: int, err: int) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    sys.argv = ["quarry", *request["words"]]
    Path("/proc/self/comm").write_text("quarry")


def _run(main: Any) -> None:
    """Run the command, and end the process as the interpreter does."""
    code: object = 70
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else int(bool(code)))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
