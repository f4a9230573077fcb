"""Sends a command to the command server; also the ``quarry`` on the PATH of a test's shells.

It is started for each command of a shell, so it imports little.
"""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any

NUMBER = struct.Struct("i")

#: Signals that a shell, a terminal or another program sends.
_FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGWINCH)


def send(address: str, request: Mapping[str, Any], fds: Sequence[int]) -> socket.socket:
    """Start a command with these three streams and the caller's surroundings.

    Return the connection on which its process id and exit code arrive. A command whose connection is
    closed is killed.
    """
    umask = os.umask(0)
    os.umask(umask)
    whole = {"cwd": os.getcwd(), "umask": umask, "env": dict(os.environ), **request}  # noqa: PTH109 - pathlib is slow to import
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    connection.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
    connection.sendall(json.dumps(whole).encode())
    connection.shutdown(socket.SHUT_WR)
    return connection


def receive(connection: socket.socket) -> int:
    """Return the next number. Raises OSError if the server has ended."""
    answer = connection.recv(NUMBER.size)
    if len(answer) < NUMBER.size:
        raise OSError("the command server has ended")
    number: int = NUMBER.unpack(answer)[0]
    return number


def main(address: str) -> None:
    """Be the command: forward signals to it, and end as it does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    connection = send(address, {"program": sys.argv[0], "words": sys.argv[1:]}, (0, 1, 2))
    pid = receive(connection)
    for number in _FORWARDED:
        signal.signal(number, lambda received, _: os.kill(pid, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    code = receive(connection)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
