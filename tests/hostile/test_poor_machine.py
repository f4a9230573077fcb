"""Receivers and jobs on a machine without threads, files, or a name server that answers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from dicom_quarry.wire import dimse
from tests.e2e.command import QUARRY
from tests.peers.process import free_port, wait_for
from tests.receiver.helpers import RawPeer

pytestmark = pytest.mark.hostile


#: Lines of the shell before the receiver. Each thread has a stack of 64 MB: a dozen of them fill its memory.
LIMITS = {"files": "ulimit -n 40", "threads": "ulimit -s 65536 && ulimit -v 1200000"}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_receiver_outlives_what_it_lacks(limit: str, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    command = f"{LIMITS[limit]} && exec {QUARRY} receive -b QUARRY@127.0.0.1:{port} --directory in"
    with log.open("w") as output:
        receiver = subprocess.Popen(["sh", "-c", command], cwd=tmp_path, stdout=output, stderr=output)
    try:
        wait_for(lambda: "ready" in log.read_text(), "the receiver")
        with ExitStack() as stack:
            for _ in range(60):
                stack.callback(socket.create_connection(("127.0.0.1", port), 30).close)
            wait_for(lambda: is_served(port), "an association during the flood")
        wait_for(lambda: is_served(port), "an association after it")
        assert receiver.poll() is None
        assert "Traceback" not in log.read_text()
        assert log.stat().st_size < 20_000
    finally:
        receiver.terminate()
        receiver.wait(60)
    assert "waits for a thread, a file or memory" in log.read_text(), "the limit was reached"


def is_served(port: int) -> bool:
    try:
        with RawPeer(port) as peer:
            peer.associate()
            peer.send(peer.message(1, dimse.c_echo_rq(1)))
            return peer.response().status == dimse.SUCCESS
    except (OSError, AssertionError):
        return False


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_a_name_server_that_never_answers_does_not_hold_a_job(tmp_path: Path) -> None:
    """In a mount and network namespace of its own, with a name server that only listens."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: dns\n")
    (tmp_path / "cohort.csv").write_text("Accession\nA1\n")
    (tmp_path / "silent.py").write_text(
        "import os, socket\ns = socket.socket(type=socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 53))\n"
        "s.recv(512)\nos.mknod('asked')\ns.recv(512) if False else __import__('time').sleep(100)\n"
    )
    script = (
        "ip link set lo up && mount --bind resolv.conf /etc/resolv.conf && "
        "mount --bind nsswitch.conf /etc/nsswitch.conf && (python3 silent.py & echo $! > silent.pid; "
        f"sleep 0.5; exec {QUARRY} extract cohort.csv --from PACS@pacs.example:104 --to out)"
    )
    with (tmp_path / "log").open("w") as output:
        job = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-c", script], cwd=tmp_path, stdout=output, stderr=output
        )
    try:
        wait_for(lambda: (tmp_path / "asked").exists() or job.poll() is not None, "the query for a name")
        if job.poll() is not None:
            pytest.skip(f"no namespaces here: {(tmp_path / 'log').read_text()}")
        child = int((tmp_path / "out" / ".quarry" / "lock").read_text())
        began = time.monotonic()
        for _ in range(2):
            os.kill(child, 15)
            time.sleep(0.3)
        assert job.wait(25) == 4, (tmp_path / "log").read_text()
        assert time.monotonic() - began < 20
    finally:
        job.kill()
        if (tmp_path / "silent.pid").exists():
            subprocess.run(["kill", (tmp_path / "silent.pid").read_text().strip()], check=False)
