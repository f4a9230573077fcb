"""Quarry calls the archive and nobody else, and looks no name up: the kernel's word for it, by strace."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.command import PATIENCE, QUARRY, outcomes
from tests.e2e.demo_process import Content, DemoProcess
from tests.peers.process import free_port

CONTENT = Content(studies=2, images=2)

#: Where a system call sends or connects to. Sockets within the computer do not matter: one of them tells,
#: for example, what the user is called.
_INTERNET = re.compile(r"sa_family=(AF_INET6?), sin6?_port=htons\((\d+)\).*?\"([^\"]+)\"")
#: What the C library reads first when it looks a name up, whoever then does it on its behalf.
_LOOK_UP = "/etc/resolv.conf"


def traced(log: Path, *command: object, python_path: str | None = None) -> tuple[int, set[str]]:
    """The exit code of a command, and whom it, or a process of its own, calls or looks up."""
    strace = [
        "strace",
        "--follow-forks",
        "--seccomp-bpf",
        "--trace=openat,connect,sendto,sendmsg,sendmmsg",
        "--string-limit=200",
    ]
    # A name that is looked up is not waited for.
    environment = {**os.environ, "RES_OPTIONS": "timeout:1 attempts:1"}
    if python_path:
        environment["PYTHONPATH"] = os.pathsep.join([python_path, os.environ.get("PYTHONPATH", "")])
    code = subprocess.run(
        [*strace, f"--output={log}", str(QUARRY), *map(str, command)],
        env=environment,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    ).returncode
    text = log.read_text(errors="replace")
    assert "+++ exited with" in text, "nothing was traced"
    addresses = {f"{host}:{port}" for _, port, host in _INTERNET.findall(text)}
    return code, addresses | ({_LOOK_UP} if _LOOK_UP in text else set())


@pytest.fixture(autouse=True)
def _strace(tmp_path: Path) -> None:
    """Never skipped: without the kernel's word nothing is known."""
    try:
        trial = subprocess.run(["strace", "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.fail("strace is not installed: make archives installs it")
    if trial.returncode:
        pytest.fail(f"strace may not trace here, so that nothing can be said of connections: {trial.stderr}")


def test_nobody_but_the_archive_is_called(work: Path) -> None:
    port = free_port()
    (work / "cohort.csv").write_text("Accession\nNOBODY\n" + "\n".join(s.accession for s in CONTENT.made()))
    with DemoProcess(work / "demo", CONTENT, destination=port) as archive:
        addresses = ("--from", archive.ae, "--as", f"QUARRY@127.0.0.1:{port}")
        code, called = traced(work / "extract", "extract", "cohort.csv", *addresses, "--to", "out")
    assert code == 1
    assert [word for word, _ in outcomes(work / "out")] == ["not_found", "complete", "complete"]
    # Before it asks for images it makes sure that its own receiver answers.
    assert called == {f"127.0.0.1:{archive.ae.port}", f"127.0.0.1:{port}"}
    # What asks no archive calls nobody.
    for command in (("report", "out", "--xlsx"), ("verify", "out"), ("status", "out")):
        code, called = traced(work / command[0], *command)
        assert (code, called) in ((0, set()), (1, set())), command


STRAY = """
import contextlib, socket
socket.socket().connect_ex(("127.0.0.2", 9))
socket.socket(socket.AF_INET6).connect_ex(("::1", 9))
socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("127.0.0.3", 9))
with contextlib.suppress(OSError):
    socket.getaddrinfo("telemetry.invalid", 443)
"""


def test_a_stray_call_would_be_seen(work: Path) -> None:
    """The same command, by a Python that calls home."""
    (work / "sitecustomize.py").write_text(STRAY)
    code, called = traced(work / "log", "--version", python_path=str(work))
    assert code == 0
    assert called >= {"127.0.0.2:9", "::1:9", "127.0.0.3:9", _LOOK_UP}
