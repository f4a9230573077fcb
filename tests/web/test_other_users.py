"""The pages of one user, and another user of the same computer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.conftest import alice, mallory, place
from tests.hostile.users import User, quarry_command
from tests.web.conftest import Site
from tests.web.web_server import WebServer

__all__ = ["alice", "mallory", "place"]

pytestmark = pytest.mark.hostile

#: Connects to a socket, sends a request, and prints the answer.
_REQUEST = """
import socket, sys
family, path, *address = sys.argv[1:]
sock = socket.socket(getattr(socket, family))
sock.connect(address[0] if len(address) == 1 else (address[0], int(address[1])))
sock.sendall(f"GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n".encode())
print(sock.makefile().read())
"""


def alices_server(alice: User, log: Path, *options: object) -> WebServer:
    words = alice.command(*quarry_command(alice.uid))
    return WebServer(log, *options, words=words, environment=alice.environment())


def request(user: User, server: WebServer, path: str) -> str:
    """The answer to a request, or the error, of a user of the computer."""
    family, address = ("AF_UNIX", [server.address])
    if not server.address.startswith("/"):
        family, address = "AF_INET", server.address.split(":")
    python = quarry_command(user.uid)[0]
    done = user.run(python, "-c", _REQUEST, family, path, *address, check=False)
    return done.out or done.err.splitlines()[-1]


def test_a_port_is_open_to_all_and_its_pages_are_not(
    alice: User, mallory: User, place: Path, tmp_path: Path
) -> None:
    with alices_server(alice, tmp_path / "log", "--port", 0) as server:
        assert request(mallory, server, "/").startswith("HTTP/1.1 401")
        assert request(mallory, server, "/start?token=x").startswith("HTTP/1.1 403")
        assert server.open_session().status == 303
        assert server.request("/").status == 200
        assert request(mallory, server, server.link[1]).startswith("HTTP/1.1 403"), "the link was used"
        second = mallory.quarry("web", "--port", server.link[0])
        assert second.code == 3 and "is held by" in second.err and "token" not in second.err
        folder = alice.home / "state" / "quarry" / "web"
        assert folder.is_dir() and mallory.run("ls", folder, check=False).code != 0


def test_a_socket_is_closed_to_other_users(site: Site, mallory: User) -> None:
    assert request(mallory, site.server, "/").startswith("PermissionError")
