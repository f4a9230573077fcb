"""A command of the user's: run without a shell, told what it needs on its standard input, ended in time."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from dicom_quarry.errors import ConfigError

#: Seconds between two looks at a command, and those that it is given to end once it is asked to.
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 2.0

#: So much of what a command says at its end is kept, in bytes.
_OUTPUT_BYTES = 1000


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended: ``problem`` in words, empty if well; ``said`` is the end of what it wrote."""

    problem: str
    output: str


def parse_command(text: str) -> tuple[str, ...]:
    """The words of a command line, quoted as in a shell; raises ValueError."""
    try:
        arguments = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"it cannot be read as a command: {error}") from error
    if not arguments:
        raise ValueError("it is empty: write a command, or leave it out")
    return arguments


def check_program(setting: str, command_line: Sequence[str]) -> None:
    """Raises ConfigError if there is no such program here."""
    if shutil.which(command_line[0]) is None:
        raise ConfigError(f"{setting}: there is no program '{command_line[0]}' that could be run")


def run_command(
    command_line: Sequence[str],
    stdin: str,
    *,
    timeout: float,
    is_cancelled: Callable[[], bool] = lambda: False,
    environment: Mapping[str, str] | None = None,
) -> CommandResult:
    """Run a command to its end, of at most ``limit`` seconds; ``told`` is its standard input.

    It has a session of its own, as Ctrl-C is for Quarry; where it has to be ended, so has what it started.
    """
    try:
        child = subprocess.Popen(
            command_line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    except OSError as error:
        return CommandResult(f"it could not be started: {error.strerror}", "")
    tail = bytearray()
    threads = _start_pipe_threads(child, stdin.encode("utf-8", "surrogateescape"), tail)
    problem = _wait_for_exit(child, timeout, is_cancelled)
    for thread in threads:
        # A process that it left behind may keep the pipe open.
        thread.join(_POLL_SECONDS)
    return CommandResult(problem, bytes(tail).decode("utf-8", "replace").strip())


def _wait_for_exit(child: subprocess.Popen[bytes], timeout: float, is_cancelled: Callable[[], bool]) -> str:
    until = time.monotonic() + timeout
    while True:
        with suppress(subprocess.TimeoutExpired):
            code = child.wait(_POLL_SECONDS)
            return "" if code == 0 else _describe_exit_code(code)
        if is_cancelled():
            _terminate(child)
            return "it was cancelled"
        if time.monotonic() >= until:
            _terminate(child)
            return f"it took longer than {timeout:g} s, and was ended"


def _describe_exit_code(code: int) -> str:
    return f"it ended with exit code {code}" if code > 0 else f"it was ended by signal {-code}"


def _terminate(child: subprocess.Popen[bytes]) -> None:
    """Ask the command, and what it started, to end; insist after a while."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_SECONDS)


def _start_pipe_threads(
    child: subprocess.Popen[bytes], stdin: bytes, tail: bytearray
) -> list[threading.Thread]:
    assert child.stdin is not None and child.stdout is not None
    writer, reader = (_write_stdin, (child.stdin, stdin)), (_read_output, (child.stdout, tail))
    threads = [threading.Thread(target=target, args=given, daemon=True) for target, given in (writer, reader)]
    for thread in threads:
        thread.start()
    return threads


def _write_stdin(stream: IO[bytes], data: bytes) -> None:
    # A command need not read what it is told.
    with suppress(OSError), stream:
        stream.write(data)


def _read_output(stream: IO[bytes], tail: bytearray) -> None:
    with suppress(OSError, ValueError), stream:
        while chunk := os.read(stream.fileno(), _OUTPUT_BYTES):
            tail += chunk
            del tail[:-_OUTPUT_BYTES]
