"""The identity of a process that works on jobs, by which another process finds out that it is gone."""

from __future__ import annotations

import itertools
import os
import socket
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


_numbers = itertools.count(1)


@cache
def _identity_of(pid: int) -> str:
    return "/".join((socket.gethostname(), _boot(), _namespace(), str(pid), _start_of(pid)))


def new_worker_identity() -> str:
    """Return the identity of a new worker of this process, with slashes between its parts.

    The parts are: host, start of the computer, namespace of process IDs, process ID, start of the process,
    and a number within the process.
    """
    return f"{_identity_of(os.getpid())}/{next(_numbers)}"


def is_gone(worker: str) -> bool:
    """Return True if the process of this identity was on this host, and has ended."""
    parts = worker.split("/")
    if len(parts) != 6 or parts[0] != socket.gethostname() or not parts[3].isdecimal():
        return False
    _, boot, namespace, pid, start, _ = parts
    if boot != _boot():
        return True
    # A process of another container cannot be seen.
    return namespace == _namespace() and _start_of(int(pid)) != start


def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return (_PROC / "self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """Return the start of a process in clock ticks since that of the computer; empty if it has ended."""
    try:
        # The name of the program, in parentheses, may have spaces (proc(5)).
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return "" if fields[0] in (b"Z", b"X") else fields[19].decode("ascii")
    except (OSError, IndexError):
        return ""
