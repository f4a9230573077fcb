"""The listening socket of the receiver, and the messages for a port that cannot be opened."""

from __future__ import annotations

import errno
import socket

from dicom_quarry.errors import PortInUse, StartError
from dicom_quarry.model import AE
from dicom_quarry.system.processes import find_port_owner

_BACKLOG = 1024


def listen(local: AE, *, admits_ipv6: bool = False) -> socket.socket:
    """Open a listening socket; raises PortInUse or another StartError.

    Without an address it is for IPv4 on every interface, and for IPv6 too if ``admits_ipv6``, or if the
    address is ``::``. An address of its own is listened on alone.
    """
    dual = (local.host == "::" or (not local.host and admits_ipv6)) and socket.has_dualstack_ipv6()
    host = "" if dual or (local.host == "::") else local.host
    family = socket.AF_INET6 if dual or ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, local.port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        kind = PortInUse if error.errno == errno.EADDRINUSE else StartError
        raise kind(_describe_error(local, error)) from error


def _describe_error(local: AE, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        owner = find_port_owner(local.port) or "another process"
        return f"port {local.port} is held by {owner}: stop that program, or receive on another port"
    if error.errno == errno.EACCES:
        return f"port {local.port} cannot be opened: ports below 1024 need root. Use a higher port"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return (
            f"{local.host} is not an address of this computer: the receiver cannot listen there. "
            "Use one of its addresses, or leave the address out"
        )
    return f"the receiver cannot listen on {local}: {error.strerror or error}"
