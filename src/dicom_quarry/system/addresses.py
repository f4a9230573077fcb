"""Addresses of computers, compared as addresses: of one address there are many spellings."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")

#: All addresses of this computer are one: what listens on every interface answers on each of them.
THIS_COMPUTER = IPv4Address("127.0.0.1")

#: Seconds for which a name is waited for that does not resolve, and between two tries.
_NAME_TIMEOUT = 60.0
_NAME_INTERVAL = 1.0


def parse_address(text: str) -> IPAddress | None:
    """Return an address, an IPv4-mapped one as IPv4; None for a name."""
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def normalize_network(network: IPNetwork) -> IPNetwork:
    """Return a network of IPv4-mapped addresses as one of IPv4."""
    if not isinstance(network, IPv6Network) or not network.subnet_of(_MAPPED):
        return network
    first = network.network_address.ipv4_mapped
    return ip_network(f"{first}/{network.prefixlen - 96}")


def normalize_host(host: str) -> str:
    """Return one spelling of a host, without resolving a name: its address, or the name in ASCII."""
    address = parse_address(host)
    if address is not None:
        return str(address)
    name = host.rstrip(".").casefold()
    try:
        return name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        return name


def resolve(host: str) -> frozenset[IPAddress]:
    """Return the addresses of a host; raises OSError for a name that does not resolve."""
    address = parse_address(host)
    if address is not None:
        return frozenset((address,))
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(str(error)) from error
    addresses = (parse_address(str(sockaddr[0])) for *_, sockaddr in found)
    return frozenset(one for one in addresses if one is not None)


def wait_for_name(host: str, sleep: Callable[[float], None] = time.sleep) -> frozenset[IPAddress]:
    """Return the addresses of a host; try again for a minute where its name does not resolve.

    Raises OSError after that.
    """
    deadline = time.monotonic() + _NAME_TIMEOUT
    while True:
        try:
            return resolve(host)
        except OSError:
            if time.monotonic() >= deadline:
                raise
        sleep(_NAME_INTERVAL)


def identify_computer(address: IPAddress) -> IPAddress:
    """Return the same address for all those of this computer, and any other one as it is."""
    if address.is_loopback or address.is_unspecified or _is_own(address):
        return THIS_COMPUTER
    return address


def _is_own(address: IPAddress) -> bool:
    """Return True for an address of an interface of this computer: a socket can be bound to it."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
