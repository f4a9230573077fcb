"""Hosts of a test's own: network namespaces on one bridge, each with its address, name and site policy.

They need root and ``ip``. Names and addresses have the number of the test's process, so that two test runs do
not meet; what a killed run has left is removed by the next one.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

_NEW_MOUNTS, _NEW_NAME, _NEW_NETWORK = 0x0002_0000, 0x0400_0000, 0x4000_0000
_PRIVATE = 0x0004_0000 | 0x4000  # MS_PRIVATE, and for all mounts below: MS_REC

#: Ethernet addresses: of each bridge, and of no host.
_OURS, _NOBODY = "02:00:00:00:00:02", "02:00:00:00:00:01"


@dataclass(frozen=True, slots=True)
class Host:
    """A computer of a test; ``etc`` is laid over its /etc."""

    name: str
    namespace: str
    address: str
    etc: str = ""

    def as_request(self) -> dict[str, str]:
        """Return it for ``enter`` in another process."""
        return asdict(self)


def enter(host: Mapping[str, str]) -> None:
    """Move this process, which has one thread, to a host."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: Any) -> None:
        if getattr(libc, name)(*arguments):
            raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")

    with Path("/run/netns", host["namespace"]).open() as network:
        call("setns", network.fileno(), _NEW_NETWORK)
    call("unshare", _NEW_NAME | _NEW_MOUNTS)
    socket.sethostname(host["name"])
    call("mount", b"none", b"/", None, _PRIVATE, None)
    if host["etc"]:
        options = os.fsencode(f"lowerdir={host['etc']}:/etc")
        call("mount", b"overlay", b"/etc", b"overlay", 0, options)


@cache
def missing() -> str:
    """Return why there can be no hosts here, empty if there can."""
    if os.geteuid() != 0:
        return "hosts need root, for network namespaces"
    try:
        with Network():
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", "") or str(error)
        return f"no network namespaces here: {' '.join(detail.split())}"


class Network:
    """A bridge: ``archive`` and ``database`` are two addresses of this process, on the bridge itself."""

    def __init__(self) -> None:
        self._prefix = f"q{os.getpid()}"
        # A range for tests between networks (RFC 2544).
        self._net = f"198.{18 + os.getpid() // 256 % 2}.{os.getpid() % 256}"
        self.archive, self.database = f"{self._net}.1", f"{self._net}.2"
        self._hosts: dict[str, Host] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        _remove_left_over()
        with ExitStack() as stack:
            stack.callback(self._remove)
            # Of itself a bridge takes the lowest address of its lines: another one when a host is added.
            _ip("link", "add", self._bridge, "address", _OURS, "type", "bridge")
            for address in (self.archive, self.database):
                _ip("address", "add", f"{address}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def _bridge(self) -> str:
        return f"{self._prefix}br"

    def host(self, name: str, etc: Path | None = None) -> Host:
        """Return the host of a name, with an address and a line to the bridge."""
        if name not in self._hosts:
            number = len(self._hosts) + 10
            namespace, line = f"{self._prefix}-{number}", f"{self._prefix}x{number}"
            host = Host(name.lower(), namespace, f"{self._net}.{number}", str(etc) if etc else "")
            self._hosts[name] = host
            _ip("netns", "add", namespace)
            _ip("link", "add", line, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("link", "set", line, "master", self._bridge, "up")
            _ip("-n", namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", namespace, "link", "set", "eth0", "up")
            _ip("-n", namespace, "link", "set", "lo", "up")
        return self._hosts[name]

    @contextmanager
    def cut_off(self, host: Host, address: str) -> Iterator[None]:
        """Lose what a host sends to an address, without a word to either side."""
        neighbour = ("-n", host.namespace, "neighbour")
        _ip(*neighbour, "replace", address, "lladdr", _NOBODY, "dev", "eth0", "nud", "permanent")
        try:
            yield
        finally:
            _ip(*neighbour, "del", address, "dev", "eth0")

    def limit(self, host: Host, megabits: int) -> None:
        """Limit what a host receives to a rate."""
        device = f"{self._prefix}x{host.namespace.rpartition('-')[2]}"
        rate = ["rate", f"{megabits}mbit", "burst", "128k", "latency", "50ms"]
        _run("tc", "qdisc", "replace", "dev", device, "root", "tbf", *rate)

    def remove_hosts(self) -> None:
        """Remove the hosts; the bridge stays."""
        for host in self._hosts.values():
            _run("ip", "netns", "delete", host.namespace, check=False)
        self._hosts.clear()

    def _remove(self) -> None:
        self.remove_hosts()
        _run("ip", "link", "delete", self._bridge, check=False)


def _remove_left_over() -> None:
    """Remove what test runs have left that are not there any more."""
    for kind, command in (
        ("netns", ("netns", "list")),
        ("link", ("-brief", "link", "show", "type", "bridge")),
    ):
        for line in _ip(*command).splitlines():
            name = line.split()[0]
            found = re.fullmatch(r"q(\d+)(-\d+|br)", name)
            if found and not Path("/proc", found[1]).exists():
                _run("ip", kind, "delete", name, check=False)


def _ip(*words: str) -> str:
    return _run("ip", *words)


def _run(*command: str, check: bool = True) -> str:
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout
