"""``quarry web`` as a process of its own, and requests to it as a browser sends them."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.e2e.command import PATIENCE, QUARRY
from tests.peers.process import wait_for

_LINK = re.compile(r"http://localhost:(\d+)(/start\?token=\S+)")
_SSH = re.compile(r"^ *ssh -L \d+:(\S+) \S+@\S+$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sent."""

    status: int
    headers: http.client.HTTPMessage
    body: str


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


class WebServer:
    """A running ``quarry web``; ``words`` is the command of another user, with its environment and folder."""

    def __init__(
        self,
        output: Path,
        *options: object,
        words: Sequence[object] = (QUARRY,),
        environment: dict[str, str] | None = None,
        cwd: Path = Path("/"),
    ) -> None:
        # The path of a Unix socket must be short, which those of pytest are not.
        self.runtime = Path(tempfile.mkdtemp(prefix="quarry-web-"))
        self._output, self._cwd = output, cwd
        self._command = [*map(str, words), "web", *map(str, options)]
        self._environment = {**(environment or os.environ), "XDG_RUNTIME_DIR": str(self.runtime)}
        self.cookie = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(PATIENCE)
        shutil.rmtree(self.runtime, ignore_errors=True)

    def start(self) -> None:
        """Start the process, and wait for its link."""
        self._output.write_bytes(b"")
        with self._output.open("ab") as stream:
            self.child = subprocess.Popen(
                self._command, stdout=stream, stderr=stream, env=self._environment, cwd=self._cwd
            )
        wait_for(lambda: "Press Ctrl-C" in self.output or self.child.poll() is not None, "a link", PATIENCE)
        assert self.child.poll() is None, self.output

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def link(self) -> tuple[int, str]:
        """The port and the rest of the link."""
        found = _LINK.search(self.output)
        assert found, self.output
        return int(found[1]), found[2]

    @property
    def address(self) -> str:
        """The server's end of the tunnel: a path, or host and port."""
        found = _SSH.search(self.output)
        assert found, self.output
        return found[1]

    @property
    def host(self) -> str:
        return f"localhost:{self.link[0]}"

    def connect(self) -> http.client.HTTPConnection:
        if self.address.startswith("/"):
            return UnixConnection(self.address)
        return http.client.HTTPConnection(self.address, timeout=PATIENCE)

    def request(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Send a request with the cookie of the session, and ``headers`` in place of a browser's."""
        given = {"Host": self.host, "Cookie": self.cookie, **{k.title(): v for k, v in headers.items()}}
        if method == "POST":
            given.setdefault("Origin", f"http://{given['Host']}")
        connection = self.connect()
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                if value:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", "0")
            connection.endheaders()
            found = connection.getresponse()
            return Answer(found.status, found.headers, found.read().decode("utf-8", "replace"))
        finally:
            connection.close()

    def open_session(self, link: str = "") -> Answer:
        """Follow the link."""
        answer = self.request(link or self.link[1])
        if answer.status == 303:
            self.cookie = answer.headers["Set-Cookie"].split(";")[0]
        return answer

    def open_stream(self, path: str) -> Any:
        """Open a page's live updates; returns the response, to be read line by line."""
        connection = self.connect()
        connection.request("GET", path, headers={"Host": self.host, "Cookie": self.cookie})
        return connection.getresponse()

    def interrupt(self) -> int:
        """Press Ctrl-C; return the exit code."""
        self.child.send_signal(signal.SIGINT)
        return self.child.wait(PATIENCE)
