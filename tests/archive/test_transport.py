"""One connection for one thread: its reuse, damaged responses, cookies, redirects, proxies."""

from __future__ import annotations

import socket
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from dicom_quarry.archive.dicomweb.connection import MAX_INTERIM_RESPONSES
from dicom_quarry.archive.dicomweb.http_client import HttpClient
from dicom_quarry.archive.dicomweb.transport import Proxy
from dicom_quarry.config.credentials import HttpSettings
from dicom_quarry.errors import ConnectionLost
from dicom_quarry.model import BaseUri

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"


class Scripted:
    """Sends one of these byte strings for each request; the connection stays open."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.answers = list(answers)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.base = BaseUri("http", "127.0.0.1", self._server.getsockname()[1], "")
        self.connections = 0
        self.requests: list[str] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def send(self, data: bytes) -> None:
        """Send bytes without a request; on this host they have arrived when this returns."""
        self._open[-1].sendall(data)

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
                client.sendall(self.answers.pop(0))


@contextmanager
def serving(*answers: bytes) -> Iterator[tuple[Scripted, HttpClient]]:
    """Run a server, with a client for it."""
    server = Scripted(answers)
    http = HttpClient(server.base, HttpSettings())
    try:
        yield server, http
    finally:
        http.close()
        server.close()


def body(http: HttpClient, path: str = "/x") -> bytes:
    """Return the body of the response for a path."""
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
def test_after_a_complete_response_the_connection_is_used_again(first: bytes) -> None:
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
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * (MAX_INTERIM_RESPONSES + 1) + GOOD,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nfirst\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nfirst",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 3\r\n\r\nfirst",
        b"HTTP/1.1 200 OK\r\nno header\r\nContent-Length: 5\r\n\r\nfirst",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
    ids=[
        "interim",
        "continue",
        "protocol",
        "chunk size",
        "coding",
        "length",
        "two lengths",
        "header",
        "no HTTP",
    ],
)
def test_a_damaged_response_is_lost_and_nothing_of_it_answers_the_next_request(damage: bytes) -> None:
    with serving(damage, GOOD) as (server, http):
        with pytest.raises(ConnectionLost):
            body(http)
        assert body(http) == b"good"
        assert server.connections == 2


@pytest.mark.parametrize("count", [1, MAX_INTERIM_RESPONSES])
def test_interim_responses_are_skipped_up_to_a_limit(count: int) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * count
    with serving(interim + GOOD, GOOD) as (server, http):
        assert body(http) == b"good"
        assert body(http) == b"good"
        assert server.connections == 1


def test_a_transfer_coding_that_changes_nothing_is_passed_over() -> None:
    answer = GOOD.replace(b"OK", b"OK\r\nTransfer-Encoding: identity")
    with serving(answer, GOOD) as (server, http):
        assert body(http) + body(http) == b"goodgood"
        assert server.connections == 1


def test_bytes_behind_an_answer_answer_nothing() -> None:
    with serving(GOOD + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", GOOD) as (_, http):
        assert body(http) == b"good"
        assert body(http, "/y") == b"good"


def test_bytes_without_a_request_answer_nothing() -> None:
    with serving(GOOD, GOOD) as (server, http):
        assert body(http) == b"good"
        server.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        assert body(http) == b"good"
        assert server.connections == 2


def test_cookies_come_back_with_the_next_request_of_a_redirect_too() -> None:
    login = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nSet-Cookie: node=b\r\nContent-Length: 0\r\n\r\n"
    with serving(login, GOOD) as (server, http):
        assert body(http) == b"good"
    assert "Cookie: node=b" in server.requests[1]


def test_cookies_of_one_server_do_not_reach_another_port() -> None:
    login = GOOD.replace(b"OK", b"OK\r\nSet-Cookie: node=b")
    with serving(login, GOOD) as (first, http), serving(GOOD, GOOD) as (second, other):
        assert [body(one) for one in (http, other, http, other)] == [b"good"] * 4
    assert "Cookie: node=b" in first.requests[1]
    assert not any("Cookie" in request for request in second.requests)


def test_a_cookie_in_the_settings_counts_instead_of_the_server_s() -> None:
    server = Scripted([GOOD.replace(b"OK", b"OK\r\nSet-Cookie: node=b"), GOOD])
    http = HttpClient(server.base, HttpSettings(headers={"cookie": "a=1", "HOST": "pacs"}))
    assert body(http) + body(http) == b"goodgood"
    for request in server.requests:
        assert request.lower().count("cookie:") == request.lower().count("host:") == 1
        assert "cookie: a=1" in request and "HOST: pacs" in request
    http.close()
    server.close()


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/y?a=b%20c#part", "/y?a=b%20c"),
        ("?page=2", "/x?page=2"),
        ("z/../y", "/y"),
        ("/a b\xfc", "/a%20b%FC"),
        ("//127.0.0.1:{port}/y", "/y"),
        ("http://127.0.0.1:{port}", "/"),
        ("http://me:secret@127.0.0.1:{port}/y", "/y"),
    ],
)
def test_where_a_redirect_leads(location: str, target: str) -> None:
    server = Scripted([])
    place = location.format(port=server.base.port).encode("latin-1")
    server.answers += [b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + place + b"\r\n\r\n", GOOD]
    http = HttpClient(server.base, HttpSettings())
    assert body(http) == b"good"
    assert server.requests[1].startswith(f"GET {target} HTTP/1.1\r\n")
    http.close()
    server.close()


@pytest.mark.parametrize(
    "location", ["http://[::1/", "http://host:port/", "http://\x1b[1m/", "http://p\xe4cs/", "//a b/"]
)
def test_a_redirect_to_an_invalid_address_is_not_followed_nor_repeated(location: str) -> None:
    answer = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n"
    with serving(answer.encode("latin-1")) as (_, http), pytest.raises(ConnectionLost) as lost:
        body(http)
    assert str(lost.value).endswith("redirects to an invalid address")


@pytest.mark.parametrize(
    ("url", "host", "port", "login"),
    [
        ("http://proxy.example.org:3128", "proxy.example.org", 3128, None),
        ("proxy.example.org", "proxy.example.org", 80, None),
        ("http://[::1]:3128/", "::1", 3128, None),
        ("http://me:p%40ss@proxy:3128", "proxy", 3128, b"me:p@ss"),
        ("me:@proxy:3128", "proxy", 3128, b"me:"),
    ],
)
def test_proxies_of_the_environment(url: str, host: str, port: int, login: bytes | None) -> None:
    authorization = "Basic " + b64encode(login).decode() if login else ""
    assert Proxy.parse(url) == Proxy(host, port, authorization)


def test_a_proxy_sees_its_password_and_the_archive_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(GOOD) as (proxy, _):
        monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{proxy.base.port}")
        http = HttpClient(BaseUri("http", "pacs.example.org", 8042, ""), HttpSettings(proxy="environment"))
        assert body(http) == b"good"
        http.close()
    (request,) = proxy.requests
    assert request.startswith(
        "GET http://pacs.example.org:8042/x HTTP/1.1\r\nHost: pacs.example.org:8042\r\n"
    )
    assert f"Proxy-Authorization: Basic {b64encode(b'me:secret').decode()}\r\n" in request


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.1:{port}"])
def test_no_proxy_counts_with_a_port_too(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    server = Scripted([GOOD])
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", entry.format(port=server.base.port))
    http = HttpClient(server.base, HttpSettings(proxy="environment"))
    assert body(http) == b"good"
    http.close()
    server.close()
