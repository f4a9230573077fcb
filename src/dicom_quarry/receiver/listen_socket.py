"""Opening the port, or saying in one sentence why it cannot be had."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from dicom_quarry.errors import PortInUse, StartError
from dicom_quarry.model import AE

_BACKLOG = 1024
_TCP_LISTEN = "0A"  # the state column of /proc/net/tcp


def listen(local: AE) -> socket.socket:
    """A listening socket; raises StartError, of which PortInUse."""
    family = socket.AF_INET6 if ":" in local.host else socket.AF_INET
    try:
        return socket.create_server((local.host, local.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        kind = PortInUse if error.errno == errno.EADDRINUSE else StartError
        raise kind(_describe_error(local, error)) from error


def _describe_error(local: AE, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        owner = find_port_owner(local.port) or "another process"
        return f"port {local.port} is held by {owner}: stop that, or receive on another port"
    if error.errno == errno.EACCES:
        return f"port {local.port} is not ours to open: ports below 1024 need root, take one above"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{local.host} is not an address of this computer: the receiver cannot listen there"
    return f"the receiver cannot listen on {local}: {error.strerror or error}"


def find_port_owner(port: int) -> str:
    """Who listens on a port, such as ``storescp (process 4711)``; empty where /proc does not tell."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not sockets:
        return ""
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(entry.readlink()) in sockets:
                process = entry.parent.parent
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:  # ended meanwhile, or somebody else's
            continue
    return ""


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, lines):
            if columns[3] == _TCP_LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(columns[9])
    return inodes
