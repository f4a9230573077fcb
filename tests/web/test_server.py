"""The server as a process: its port, its end, its place, and a package that is missing."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dicom_quarry.api import web_place
from dicom_quarry.api.web_place import WebPlace, open_web_place
from dicom_quarry.cli.commands.web import web
from dicom_quarry.errors import PortInUse, StartError
from dicom_quarry.web.server import serve
from dicom_quarry.web.sessions import LIFETIME, Sessions
from tests.e2e.command import PATIENCE
from tests.web.web_server import WebServer


def test_a_port_on_loopback_alone_and_ctrl_c_with_an_open_page(tmp_path: Path) -> None:
    with WebServer(tmp_path / "log", "--port", 0) as server:
        port = server.link[0]
        assert server.address == f"127.0.0.1:{port}"
        assert _listening_addresses(port) == {"0100007F"}
        server.open_session()
        events = server.open_stream("/events")
        assert events.status == 200 and events.readline() == b"event: parts\n"
        assert server.interrupt() == 0
        assert list((server.runtime / "quarry").iterdir()) == []
        assert server.output.endswith("\nended\n"), "nothing about tasks or tracebacks"


def test_the_end_does_not_wait_for_a_page_that_is_being_made() -> None:
    entered, release = threading.Event(), threading.Event()

    def slow(_: Request) -> Response:
        entered.set()
        release.wait(PATIENCE)
        return Response()

    listener = socket.create_server(("127.0.0.1", 0))

    def press_ctrl_c() -> None:
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            entered.wait(PATIENCE)
            os.kill(os.getpid(), signal.SIGINT)
            client.recv(1)

    client = threading.Thread(target=press_ctrl_c)
    client.start()
    serve(Starlette(routes=[Route("/", slow)]), listener, asyncio.Event())
    assert not release.is_set()
    release.set()
    client.join(PATIENCE)


def _listening_addresses(port: int) -> set[str]:
    """The addresses of listening sockets, as in /proc/net/tcp: hexadecimal, the last byte first."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            address, _, number = words[1].partition(":")
            if words[3] == "0A" and int(number, 16) == port:
                found.add(address)
    return found


def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} is held by .* with --port"):
            web(port=port)


@pytest.mark.parametrize("module", ["starlette", "uvicorn"])
def test_without_the_extra_the_error_names_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.startswith(("dicom_quarry.web", f"{module}."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StartError, match=r"pip install 'dicom-quarry\[web\]'"):
        web(port=0)


def test_a_link_is_used_once_and_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = WebPlace(tmp_path)

    def token() -> str:
        return place.make_link().split("token=")[1]

    first = token()
    second = token()
    assert first not in "".join(one.read_text() for one in tmp_path.iterdir()), "only its digest is stored"
    assert not place.use_token(first), "the newest link alone"
    assert not place.use_token("") and not place.use_token(second[:-1])
    assert place.use_token(second) and not place.use_token(second)
    late, now = token(), time.time()
    monkeypatch.setattr(time, "time", lambda: now + web_place.LINK_LIFETIME)
    assert not place.use_token(late)


def test_a_session_ends_when_it_is_not_used() -> None:
    sessions = Sessions()
    value = sessions.create(0.0)
    assert sessions.is_valid(value, LIFETIME)
    assert sessions.is_valid(value, 2 * LIFETIME), "each request prolongs it"
    assert not sessions.is_valid(value, 3 * LIFETIME + 1)
    assert not sessions.is_valid("", 0.0)
    for _ in range(100):
        newest = sessions.create(0.0)
    assert sessions.is_valid(newest, 0.0) and not sessions.is_valid(value, 0.0)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short path, where the socket will be."""
    path = Path(tempfile.mkdtemp(prefix="q"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    yield path
    shutil.rmtree(path)


def test_a_socket_of_a_dead_server_is_replaced(runtime: Path) -> None:
    with open_web_place() as (place, listener):
        path = place.socket_path
        assert (listener.family, path.parent) == (socket.AF_UNIX, runtime / "quarry")
        with pytest.raises(StartError, match="is running already"), open_web_place():
            pass
        assert path.is_socket(), "that of a running server stays"
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with open_web_place() as (_, listener), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_long_path_is_not_used_for_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long, short = tmp_path / ("x" * 100), Path(tempfile.mkdtemp(prefix="q"))
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setenv("XDG_STATE_HOME", str(long))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(short))
    with open_web_place() as (place, listener):
        assert place.folder == short / f"quarry-{os.getuid()}"
        assert len(os.fsencode(place.socket_path)) < 108
        assert listener.family is socket.AF_UNIX
    shutil.rmtree(short)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(long))
    with pytest.raises(StartError, match="XDG_RUNTIME_DIR"), open_web_place():
        pass
