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
_TICK = 0.1
_GRACE = 2.0

#: So much of what a command says at its end is kept, in bytes.
_TAIL = 1000


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: ``problem`` in words, empty if well; ``said`` is the end of what it wrote."""

    problem: str
    said: str


def parsed(text: str) -> tuple[str, ...]:
    """The words of a command line, quoted as in a shell; raises ValueError."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"it cannot be read as a command: {error}") from error
    if not words:
        raise ValueError("it is empty: write a command, or leave it out")
    return words


def check(setting: str, words: Sequence[str]) -> None:
    """Raises ConfigError if there is no such program here."""
    if shutil.which(words[0]) is None:
        raise ConfigError(f"{setting}: there is no program '{words[0]}' that could be run")


def run(
    words: Sequence[str],
    told: str,
    *,
    limit: float,
    cancelled: Callable[[], bool] = lambda: False,
    variables: Mapping[str, str] | None = None,
) -> Ended:
    """Run a command to its end, of at most ``limit`` seconds; ``told`` is its standard input.

    It has a session of its own, as Ctrl-C is for Quarry; where it has to be ended, so has what it started.
    """
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(variables or {})},
            start_new_session=True,
        )
    except OSError as error:
        return Ended(f"it could not be started: {error.strerror}", "")
    tail = bytearray()
    threads = _piping(child, told.encode("utf-8", "surrogateescape"), tail)
    problem = _awaited(child, limit, cancelled)
    for thread in threads:
        # A process that it left behind may keep the pipe open.
        thread.join(_TICK)
    return Ended(problem, bytes(tail).decode("utf-8", "replace").strip())


def _awaited(child: subprocess.Popen[bytes], limit: float, cancelled: Callable[[], bool]) -> str:
    until = time.monotonic() + limit
    while True:
        with suppress(subprocess.TimeoutExpired):
            code = child.wait(_TICK)
            return "" if code == 0 else _in_words(code)
        if cancelled():
            _end(child)
            return "it was cancelled"
        if time.monotonic() >= until:
            _end(child)
            return f"it took longer than {limit:g} s, and was ended"


def _in_words(code: int) -> str:
    return f"it ended with exit code {code}" if code > 0 else f"it was ended by signal {-code}"


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask the command, and what it started, to end; insist after a while."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)


def _piping(child: subprocess.Popen[bytes], told: bytes, tail: bytearray) -> list[threading.Thread]:
    assert child.stdin is not None and child.stdout is not None
    feed, hear = (_feed, (child.stdin, told)), (_hear, (child.stdout, tail))
    threads = [threading.Thread(target=target, args=given, daemon=True) for target, given in (feed, hear)]
    for thread in threads:
        thread.start()
    return threads


def _feed(stream: IO[bytes], told: bytes) -> None:
    # A command need not read what it is told.
    with suppress(OSError), stream:
        stream.write(told)


def _hear(stream: IO[bytes], tail: bytearray) -> None:
    with suppress(OSError, ValueError), stream:
        while heard := os.read(stream.fileno(), _TAIL):
            tail += heard
            del tail[:-_TAIL]
