"""A server process of ours: started on free loopback ports, awaited by condition, stopped by its own id."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

# Below the range from which the kernel takes the ports of clients, and apart for each process of a test run:
# no other process takes a port between here and the server that is meant to have it.
_FIRST, _EACH, _PROCESSES = 20_000, 1_500, 8
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES
_ports = (_FIRST + _worker * _EACH + number % _EACH for number in itertools.count(os.getpid()))


def free_port() -> int:
    """Return a free loopback port that was not returned lately."""
    while True:
        port = next(_ports)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
    """Return as soon as the condition holds; the time-out only ends a test that has failed already."""
    deadline = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        if condition():
            return
        if began > deadline:
            raise AssertionError(f"waited {timeout:.0f} s for {what}")
        # A condition that is a command takes a processor from what is waited for.
        time.sleep(max(0.01, 2 * (time.monotonic() - began)))


def listens(port: int) -> bool:
    """Return True if a process accepts connections on this loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


class Server:
    """A child process in a session of its own, so that what it forks ends with it."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.name = name
        self.log_path = folder / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """The command line; called at every start."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Return True once the server answers."""
        raise NotImplementedError

    def start(self) -> Self:
        """Start, and return when the server answers."""
        assert self._child is None, f"{self.name} runs already"
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                # A test run that is killed leaves no server behind; setpriv becomes the server, by exec.
                ["setpriv", "--pdeathsig", "KILL", *self.command()],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        wait_for(self._ready_or_dead, f"{self.name} to answer")
        return self

    def _ready_or_dead(self) -> bool:
        assert self._child is not None
        if self._child.poll() is not None:
            raise AssertionError(
                f"{self.name} ended with {self._child.returncode}:\n{self.log_text()[-2000:]}"
            )
        return self.is_ready()

    def stop(self) -> None:
        """Ask the process to end, insist after ten seconds, and take what it forked with it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start on the same ports."""
        self.stop()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.send_signal(how)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._child is not None, f"{self.name} does not run"
        return self._child.pid

    def log_text(self) -> str:
        """Return the output of the server so far."""
        return self.log_path.read_text(errors="replace")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        # Its last writes are not needed, and Orthanc takes seconds for them.
        self.kill()
