"""The identity of a process that works on jobs, by which another process finds out that it is gone."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


@cache
def _identity_of(pid: int) -> str:
    return "/".join((socket.gethostname(), _boot(), str(pid), _start_of(pid)))


def worker_identity() -> str:
    """Return host, start of the computer, process ID and start of this process, with slashes between them."""
    return _identity_of(os.getpid())


def is_gone(worker: str) -> bool:
    """Return True if the process of this identity was on this host, and has ended."""
    host, _, rest = worker.partition("/")
    boot, _, process = rest.partition("/")
    pid, _, start = process.partition("/")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    return boot != _boot() or not start or _start_of(int(pid)) != start


def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
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
