"""Processes and users of this computer. psutil is imported where it is needed: it costs time at the start."""

from __future__ import annotations

import os
import pwd


def find_port_owner(port: int) -> str:
    """Return the process that listens on a TCP port, such as ``storescp (process 4711)``; empty if unknown.

    Without root only the processes of this user can be found.
    """
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or connection.pid is None:
                continue
            if connection.laddr and connection.laddr.port == port:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass  # the process has ended meanwhile, or the system does not show its processes
    return ""


def process_runs_as(pid: int, uid: int) -> bool:
    """Return whether the process is alive and belongs to the user ``uid``."""
    import psutil

    try:
        return bool(psutil.Process(pid).uids().effective == uid)
    except (psutil.Error, OSError, ValueError, OverflowError):
        return False


def process_owner(pid: int) -> str | None:
    """Return the name of the user that a process runs as; None if there is no such process."""
    import psutil

    try:
        return user_name(psutil.Process(pid).uids().effective)
    except (psutil.Error, OSError, ValueError, OverflowError):
        return None


def user_name(uid: int | None = None) -> str:
    """Return the name of a user, of this process's by default; the number if the system knows no name.

    The user database is read, as anyone could set a variable such as ``USER``.
    """
    number = os.getuid() if uid is None else uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def is_running(pid: int) -> bool:
    """Return whether there is a process of this computer with an ID."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
