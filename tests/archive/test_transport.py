"""One connection for one thread: what it may serve after an answer, and what it must not take for one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from dicom_quarry.archive.dicomweb.http_client import HttpClient
from dicom_quarry.config.credentials import HttpSettings
from dicom_quarry.errors import ConnectionLost
from dicom_quarry.model import BaseUri

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"


class Scripted:
    """Sends these bytes, one after the other, for a request each; a connection stays open after that."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = list(answers)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.base = BaseUri("http", "127.0.0.1", self._server.getsockname()[1], "")
        self.connections = 0
        self.requests: list[str] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def say(self, unasked: bytes) -> None:
        """Send something over the latest connection; on this host it has arrived when this returns."""
        self._open[-1].sendall(unasked)

    def _accept(self) -> None:
        while True:
            try:
                client = self._server.accept()[0]
            except OSError:
                return
            self.connections += 1
            self._open.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while request := client.recv(10_000):
                self.requests.append(request.decode())
                client.sendall(self._answers.pop(0))


@contextmanager
def serving(*answers: bytes) -> Iterator[tuple[Scripted, HttpClient]]:
    """A server, and the way to it."""
    server = Scripted(answers)
    http = HttpClient(server.base, HttpSettings())
    try:
        yield server, http
    finally:
        http.close()
        server.close()


def body(http: HttpClient, path: str = "/x") -> bytes:
    """What comes for a path."""
    with http.get(path, accept="*/*", read_timeout=5.0) as response:
        return b"".join(response.iter_raw())


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\nX-Trailer: 1\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
    ids=["length", "chunks", "nothing"],
)
def test_after_a_whole_answer_the_connection_is_used_again(first: bytes) -> None:
    with serving(first, GOOD) as (server, http):
        assert body(http) == (b"" if b"204" in first else b"first")
        assert body(http) == b"good"
        assert server.connections == 1


def test_after_an_answer_that_was_not_read_to_its_end_it_is_not() -> None:
    with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst", GOOD) as (server, http):
        with http.get("/x", accept="*/*"):
            pass
        assert body(http) == b"good"
        assert server.connections == 2


@pytest.mark.parametrize(
    "damage",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nfirst\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nfirst",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 3\r\n\r\nfirst",
        b"HTTP/1.1 200 OK\r\nno header\r\nContent-Length: 5\r\n\r\nfirst",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
    ids=["interim", "chunk size", "coding", "length", "two lengths", "header", "no HTTP"],
)
def test_what_is_no_answer_is_lost_and_nothing_of_it_answers_the_next_request(damage: bytes) -> None:
    with serving(damage, GOOD) as (server, http):
        with pytest.raises(ConnectionLost):
            body(http)
        assert body(http) == b"good"
        assert server.connections == 2


def test_bytes_behind_an_answer_answer_nothing() -> None:
    with serving(GOOD + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", GOOD) as (_, http):
        assert body(http) == b"good"
        assert body(http, "/y") == b"good"


def test_what_a_server_says_unasked_answers_nothing() -> None:
    with serving(GOOD, GOOD) as (server, http):
        assert body(http) == b"good"
        server.say(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        assert body(http) == b"good"
        assert server.connections == 2


def test_cookies_come_back_with_the_next_request_of_a_redirect_too() -> None:
    login = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nSet-Cookie: node=b\r\nContent-Length: 0\r\n\r\n"
    with serving(login, GOOD) as (server, http):
        assert body(http) == b"good"
    assert "Cookie: node=b" in server.requests[1]


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.1:{port}"])
def test_no_proxy_counts_with_a_port_too(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    server = Scripted([GOOD])
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", entry.format(port=server.base.port))
    http = HttpClient(server.base, HttpSettings(proxy="environment"))
    assert body(http) == b"good"
    http.close()
    server.close()
