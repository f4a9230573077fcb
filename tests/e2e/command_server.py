"""Starts commands for the tests without importing Quarry each time.

``python -m tests.e2e.command_server FD FD`` is its server. A process imports all commands once, and forks a
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
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from tests.e2e.command_client import NUMBER, receive, send
from tests.namespaces import Host, enter

#: The environment of the tests before the first one, which may set variables for its commands alone. A
#: console keeps the size that is in the environment when it is made; the server makes that of all commands.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}


class CommandServer:
    """The client: commands of several threads may run at once.

    Its ``folder`` has a ``quarry`` for the PATH of shells and scripts, which the server runs, too.
    """

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="quarry-")
        self.folder = Path(self._temporary.name)
        self._address = str(self.folder / "socket")
        self._write_program()
        self.environment = _ENVIRONMENT
        self._alive, theirs = socket.socketpair()
        with theirs, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen(64)
            fds = [listener.fileno(), theirs.fileno()]
            subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.command_server", *map(str, fds)],
                pass_fds=fds,
                cwd=Path(__file__).parents[2],
                env=self.environment,
                stdin=subprocess.DEVNULL,
            )

    def _write_program(self) -> None:
        program = self.folder / "quarry"
        place = str(Path(__file__).parent)
        program.write_text(
            f"#!{sys.executable} -IS\nimport sys\nsys.path.append({place!r})\n"
            f"from command_client import main\nmain({self._address!r})\n"
        )
        program.chmod(0o755)

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

    def run_code(self, code: str, timeout: float) -> tuple[int, str]:
        """Run a program in Python, as with ``python -c``; return its exit code and all that it wrote."""
        with tempfile.TemporaryFile() as out, Path(os.devnull).open() as nothing:
            fds = (nothing.fileno(), out.fileno(), out.fileno())
            with closing(StartedCommand(send(self._address, {"code": code}, fds))) as program:
                ended = program.wait(timeout)
            out.seek(0)
            return ended, out.read().decode()

    def start(
        self,
        words: Sequence[str],
        cwd: Path | None,
        out: int,
        err: int,
        host: Host | None = None,
        prepare: str = "",
    ) -> StartedCommand:
        """Start a command that writes to these files; on a host of the test's, if one is given.

        ``prepare`` is a module whose function of that name is called before.
        """
        request: dict[str, object] = {"program": "quarry", "words": words, "cwd": str(cwd or Path.cwd())}
        if prepare:
            request["prepare"] = prepare
        if host is not None:
            request["host"] = host.as_request()
        with Path(os.devnull).open() as nothing:
            return StartedCommand(send(self._address, request, (nothing.fileno(), out, err)))


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
        return receive(self._answers)


def serve(listener: socket.socket, alive: socket.socket) -> None:
    """Fork a child for each request, until the client is gone, which closes the other end of ``alive``."""
    from dicom_quarry import api
    from dicom_quarry.__main__ import main
    from dicom_quarry.cli import commands

    for name in (
        *(f"cli.commands.{one.name}" for one in pkgutil.iter_modules(commands.__path__)),
        *api.EXPORTS,
        "jobs.cluster.opening",
        "ledger.postgres",
    ):
        importlib.import_module(f"dicom_quarry.{name}")
    gc.collect()
    gc.freeze()
    while True:
        ready, _, _ = select.select([listener, alive], [], [])
        if alive in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            alive.close()
            _supervise(connection, main)
        connection.close()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _supervise(connection: socket.socket, main: Any) -> None:
    """Run the command in a child of its own; report its process id, and how it ended."""
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(3 * NUMBER.size))
    fds = array.array("i")
    fds.frombytes(ancillary[0][2])
    with connection.makefile("rb") as body:
        request = json.load(body)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(request, fds)
        if "prepare" in request:
            importlib.import_module(request["prepare"]).prepare()
        _run(main if "words" in request else lambda: exec(request["code"], {"__name__": "__main__"}))
    for fd in fds:
        os.close(fd)
    # The client may be gone.
    with suppress(BrokenPipeError):
        connection.send(NUMBER.pack(pid))
        _kill_with_client(pid, connection)
        _, status = os.waitpid(pid, 0)
        connection.send(NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _kill_with_client(pid: int, connection: socket.socket) -> None:
    """Wait for the command's end; kill it if the client ends before."""
    ended = os.pidfd_open(pid)
    either = select.poll()
    either.register(ended, select.POLLIN)
    either.register(connection, 0)
    if not any(fd == ended for fd, _ in either.poll()):
        os.kill(pid, signal.SIGKILL)


def _become(request: Mapping[str, Any], fds: Sequence[int]) -> None:
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["env"])
    if "host" in request:
        enter(request["host"])
    time.tzset()
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    sys.argv = [request.get("program", "-c"), *request.get("words", ())]
    Path("/proc/self/comm").write_text("quarry")


def _run(main: Any) -> None:
    """Run the command, and end the process as the interpreter does."""
    code: object = 70
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else int(bool(code)))


if __name__ == "__main__":
    serve(*(socket.socket(fileno=int(fd)) for fd in sys.argv[1:]))
