"""A child process of Python with limits on memory, time and output, for input that may exhaust them."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

#: Wall-clock seconds for each second of processor time, and in addition: a busy computer is slow.
_WALL_FACTOR = 4
_WALL_SECONDS = 30.0

#: Exit code of a child whose memory is used up.
_OUT_OF_MEMORY = 71


class LimitExceeded(Exception):
    """The child reached a limit, or could not be started; the message is the reason."""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Bytes of memory, seconds of processor time, and bytes of a file that is written."""

    memory: int
    seconds: int
    output: int

    def apply(self) -> None:
        """Limit this process: a child calls it before it reads its input."""
        for kind, limit in (
            (resource.RLIMIT_AS, self.memory),
            (resource.RLIMIT_CPU, self.seconds),
            (resource.RLIMIT_FSIZE, self.output),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(kind)[1]
            soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            with suppress(ValueError, OSError):  # a system without this limit has the others
                resource.setrlimit(kind, (soft, hard))


def run_limited(
    module: str, arguments: Sequence[str], stdin: BinaryIO, stdout: BinaryIO, limits: ProcessLimits
) -> None:
    """Run a module of Quarry, which applies ``limits`` itself, until it ends.

    It gets the limits as its first arguments. It has its own session, so that Ctrl-C reaches Quarry only.
    Raises LimitExceeded for a child that does not end by itself, with exit code 0.
    """
    numbers = [str(limits.memory), str(limits.seconds), str(limits.output)]
    command = [sys.executable, "-P", "-m", module, *numbers, *arguments]
    try:
        child = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        raise LimitExceeded(f"a process for it could not be started: {error.strerror}") from error
    try:
        code = child.wait(_WALL_SECONDS + _WALL_FACTOR * limits.seconds)
    except subprocess.TimeoutExpired:
        code = -signal.SIGXCPU
    finally:
        child.kill()
        child.wait()
    if code == -signal.SIGXCPU:
        raise LimitExceeded(f"it takes more than {limits.seconds} seconds")
    if code in (-signal.SIGKILL, _OUT_OF_MEMORY):
        raise LimitExceeded(f"it takes more than {limits.memory >> 20:,} MB of memory")
    if code:
        raise LimitExceeded(f"the process for it ended with code {code}")


@contextmanager
def limited(arguments: Sequence[str]) -> Iterator[None]:
    """Apply the limits, which are the first arguments of a child; end the process where memory runs out."""
    memory, seconds, output = map(int, arguments[:3])
    ProcessLimits(memory, seconds, output).apply()
    try:
        yield
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)
