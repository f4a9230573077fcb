"""Listening sockets for this computer alone: a Unix socket of one user, and a port on loopback."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from dicom_quarry.errors import PortInUse, StartError
from dicom_quarry.system.processes import find_port_owner

LOOPBACK = "127.0.0.1"

#: Longest path of a Unix socket in bytes: ``sun_path`` of Linux has 108, the last of which is zero.
MAX_SOCKET_PATH = 107

_BACKLOG = 64


def listen_unix(path: Path) -> socket.socket:
    """Listen on a Unix socket with the mode 0600, in place of one that an ended process left. Raises OSError.

    To be called in a private folder, under a lock: a socket in use would be replaced, too.
    """
    path.unlink(missing_ok=True)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.bind(os.fspath(path))
        # Connections are refused until listen(), so none is accepted under the mode of the umask.
        path.chmod(0o600)
        found.listen(_BACKLOG)
    except BaseException:
        found.close()
        raise
    return found


def listen_loopback(port: int) -> socket.socket:
    """Listen on a port of the loopback interface, 0 for any; raise PortInUse or another StartError."""
    try:
        return socket.create_server((LOOPBACK, port), backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            owner = find_port_owner(port) or "another process"
            raise PortInUse(f"port {port} is held by {owner}: choose another port with --port") from error
        if error.errno == errno.EACCES:
            raise StartError(
                f"port {port} cannot be opened: ports below 1024 need root. Use a higher port"
            ) from error
        raise StartError(f"port {port} cannot be opened: {error.strerror or error}") from error
