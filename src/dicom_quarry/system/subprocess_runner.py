"""Run a command of the settings: without a shell, with data on its standard input, for a limited time."""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import IO

from dicom_quarry.errors import ConfigError, StartError
from dicom_quarry.system.service_loop import start_thread

#: Seconds between two checks of a running command, and seconds that it has to end after SIGTERM.
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 2.0

#: Bytes that are kept of the end of a command's output: a token has some thousands.
_OUTPUT_BYTES = 64_000


#: Variables without secrets, which most programs need: where things are, and the language.
ORDINARY_VARIABLES = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "TMPDIR", "LANG", "LANGUAGE", "LC_*"),
    *("XDG_*", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"),
)


#: Process ids of the commands that run, each the leader of its own session.
_running: set[int] = set()


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command: ``problem``, empty after a success, and the end of its ``output``."""

    problem: str
    output: str


def parse_command(text: str) -> tuple[str, ...]:
    """Split a command line into its words, quoted as in a shell; raise ValueError."""
    try:
        arguments = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"it cannot be read as a command: {error}") from error
    if not arguments:
        raise ValueError("it is empty: write a command, or leave it out")
    return arguments


def check_program(setting: str, command_line: Sequence[str]) -> None:
    """Raise ConfigError, which names the setting, if this computer does not have the program."""
    if shutil.which(command_line[0]) is None:
        raise ConfigError(f"{setting}: there is no program '{command_line[0]}' on this computer")


def run_command(
    command_line: Sequence[str],
    stdin: str,
    *,
    timeout: float,
    is_cancelled: Callable[[], bool] = lambda: False,
    environment: Mapping[str, str] | None = None,
    passed: Collection[str] = ("*",),
    with_errors: bool = True,
) -> CommandResult:
    """Run a command until it ends, for at most ``timeout`` seconds; ``stdin`` is its standard input.

    The command has its own session, so that Ctrl-C reaches Quarry only. After the timeout, or once
    ``is_cancelled`` returns True, the command ends together with the processes that it started. It gets the
    variables of ``environment``, and those of this process whose names match one of the patterns ``passed``.
    Its standard error is a part of the output, unless ``with_errors`` is False.
    """
    try:
        child = subprocess.Popen(
            command_line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if with_errors else subprocess.DEVNULL,
            env={**_select_variables(passed), **(environment or {})},
            start_new_session=True,
        )
    except OSError as error:
        return CommandResult(f"it could not be started: {error.strerror}", "")
    _running.add(child.pid)
    try:
        return _run(child, stdin, timeout, is_cancelled)
    finally:
        _running.discard(child.pid)


def _run(
    child: subprocess.Popen[bytes], stdin: str, timeout: float, is_cancelled: Callable[[], bool]
) -> CommandResult:
    tail = bytearray()
    try:
        threads = _start_pipe_threads(child, stdin.encode("utf-8", "surrogateescape"), tail)
    except StartError as error:
        _terminate(child)
        return CommandResult(f"it could not be started: {error}", "")
    problem = _wait_for_exit(child, timeout, is_cancelled)
    until = time.monotonic() + _GRACE_SECONDS
    for thread in threads:
        # A process that the command left behind may keep the pipe open.
        thread.join(max(0.0, until - time.monotonic()))
    return CommandResult(problem, bytes(tail).decode("utf-8", "replace").strip())


def kill_running_commands() -> None:
    """Kill every command that runs, with the processes that it started: this process ends at once."""
    for pid in tuple(_running):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


# A thread that waits for a command does not keep the process from its end.
atexit.register(kill_running_commands)


def _select_variables(patterns: Collection[str]) -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


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
            return f"it took longer than {timeout:g} s and was stopped"


def _describe_exit_code(code: int) -> str:
    return f"it ended with exit code {code}" if code > 0 else f"it was killed by signal {-code}"


def _terminate(child: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the command and the processes that it started, SIGKILL to those that do not end."""
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
    threads = [threading.Thread(target=target, args=args, daemon=True) for target, args in (writer, reader)]
    for thread in threads:
        start_thread(thread)
    return threads


def _write_stdin(stream: IO[bytes], data: bytes) -> None:
    # A command need not read its standard input.
    with suppress(OSError), stream:
        stream.write(data)


def _read_output(stream: IO[bytes], tail: bytearray) -> None:
    with suppress(OSError, ValueError), stream:
        while chunk := os.read(stream.fileno(), _OUTPUT_BYTES):
            tail += chunk
            del tail[:-_OUTPUT_BYTES]
