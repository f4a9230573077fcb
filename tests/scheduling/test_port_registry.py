"""Tickets for a port: in order, void with their process, and nothing that is written in them is trusted."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_quarry.scheduling import host_state
from dicom_quarry.scheduling.port_queue import PortEntry, PortRegistry

PORT = 11112

_DRAW = """
import os, sys
from pathlib import Path
from dicom_quarry.scheduling.port_queue import PortRegistry
if int(sys.argv[3]):
    os.setuid(int(sys.argv[3]))
with PortRegistry(Path(sys.argv[1]), 11112).register("", Path(sys.argv[2]), queued=False) as mine:
    mine.update(seconds_left=60.0)
    print(mine.number, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def other_job(shared: Path, folder: Path, *, user: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A job in a process of its own, that holds a ticket."""
    command = [sys.executable, "-c", _DRAW, str(shared), str(folder), str(user)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip().isdigit()
        try:
            yield child
        finally:
            child.kill()


def test_they_are_in_the_order_in_which_they_were_drawn(tmp_path: Path) -> None:
    ours = PortRegistry(tmp_path, PORT)
    with (
        ours.register("", tmp_path / "one", queued=False) as first,
        ours.register("10.0.0.1", tmp_path / "two", queued=True) as second,
        PortRegistry(tmp_path, PORT + 1).register("", tmp_path / "elsewhere", queued=False),
    ):
        found = ours.active()
        assert [one.number for one in found] == [first.number, second.number]
        assert [one.folder for one in found] == [str(tmp_path / "one"), str(tmp_path / "two")]
        assert [(one.host, one.queued) for one in found] == [("", False), ("10.0.0.1", True)]
        assert {one.process for one in found} == {os.getpid()}
        second.update(queued=False, seconds_left=90)
        assert [(one.queued, one.seconds_left) for one in ours.active()] == [(False, None), (False, 90)]
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_the_ticket_of_a_killed_job_is_void_and_goes(tmp_path: Path) -> None:
    ours = PortRegistry(tmp_path, PORT)
    with other_job(tmp_path, tmp_path / "one") as child:
        found = ours.active()
        assert [(one.process, one.seconds_left) for one in found] == [(child.pid, 60)]
        child.kill()
        child.wait(10)
        assert list(tmp_path.iterdir())
        assert ours.active() == []
        assert list(tmp_path.iterdir())
        with ours.register("", tmp_path, queued=True) as mine:
            PortRegistry(tmp_path, PORT + 1).remove_stale()
            assert [one.number for one in ours.active()] == [mine.number], "a ticket that lives stays"
            assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_a_job_of_another_user_is_found_and_named() -> None:
    shared = Path(tempfile.mkdtemp(prefix="quarry-tickets."))
    try:
        shared.chmod(0o1777)
        with other_job(shared, Path("/data/out"), user=65534) as child:
            (found,) = PortRegistry(shared, PORT).active()
            assert (found.user, found.process, found.folder) == ("nobody", child.pid, "/data/out")
    finally:
        shutil.rmtree(shared)


# -- what somebody else wrote


def read(folder: Path, written: bytes) -> PortEntry:
    """The ticket that a file is whose writer lives."""
    path = folder / f"port.{PORT}.7"
    path.write_bytes(written)
    with path.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        (found,) = PortRegistry(folder, PORT).active()
    return found


@pytest.mark.parametrize(
    "written", [b"", b"\xff\xfe", b"{", b"[" * 2048, b"[]", b"null", b'{"folder": 3, "process": "x"}']
)
def test_what_is_damaged_says_nothing(tmp_path: Path, written: bytes) -> None:
    found = read(tmp_path, written)
    assert (found.folder, found.process, found.host) == ("an unknown folder", None, "")
    assert not found.queued and found.seconds_left is None


def test_what_is_written_is_made_printable_and_short(tmp_path: Path) -> None:
    found = read(tmp_path, json.dumps({"folder": "/x\x1b[2J\n" + "y" * 1000, "host": "\r"}).encode())
    assert found.folder.startswith("/x\\x1b[2J\\x0ay") and len(found.folder) < 320
    assert found.host == "\\x0d"


@pytest.mark.parametrize("left", ["NaN", "-1", "1e300", '"soon"', "[]"])
def test_a_time_that_is_none_is_not_told(tmp_path: Path, left: str) -> None:
    assert read(tmp_path, f'{{"seconds_left": {left}}}'.encode()).seconds_left is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_process_of_somebody_else_is_not_named(tmp_path: Path) -> None:
    written = json.dumps({"process": os.getpid()}).encode()
    assert read(tmp_path, written).process == os.getpid()
    os.chown(tmp_path / f"port.{PORT}.7", 65534, 65534)
    found = read(tmp_path, written)
    assert (found.process, found.user) == (None, "nobody")


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / f"port.{PORT}.1").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / f"port.{PORT}.2")
    (tmp_path / f"port.{PORT}.3").mkdir()
    (tmp_path / f"port.{PORT}.x").touch()
    assert PortRegistry(tmp_path, PORT).active() == []
    assert len(list(tmp_path.iterdir())) == 5
    assert (tmp_path / "victim").read_text() == "precious"


def test_without_the_sites_folder_another_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_state, "FALLBACK_FOLDER", tmp_path / "elsewhere")
    (tmp_path / "file").touch()
    with PortRegistry(tmp_path / "file", PORT).register("", tmp_path, queued=False):
        assert len(PortRegistry(tmp_path / "file", PORT).active()) == 1
        assert len(list((tmp_path / "elsewhere").iterdir())) == 1
