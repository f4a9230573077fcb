"""Locks on files: exclusive, shared, waiting or not, and released by the kernel when a process dies."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_quarry.system.locks import FileLock, LockHeld, locked, read_lock_owner, try_lock

_HOLD = """
import sys
from pathlib import Path
from dicom_quarry.system.locks import FileLock
with FileLock(Path(sys.argv[1])) as lock:
    lock.record_owner()
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def other_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        yield fd
    finally:
        os.close(fd)


def test_an_exclusive_lock_excludes_all_and_a_shared_one_exclusive_ones(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with opened(path) as one, opened(path) as two, opened(path) as three:
        assert try_lock(one, shared=True) and try_lock(two, shared=True)
        assert not try_lock(three)
        os.close(os.dup(two))  # only the last descriptor of an open file releases its lock
        assert not try_lock(three)
    with opened(path) as one, opened(path) as two:
        assert try_lock(one)
        assert not try_lock(two) and not try_lock(two, shared=True)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert read_lock_owner(path) is None
    with other_process(path) as child:
        assert read_lock_owner(path) == child.pid
        with pytest.raises(LockHeld) as held:
            FileLock(path).acquire(timeout=0)
        assert held.value.owner == child.pid
        child.kill()
        child.wait(10)
        assert read_lock_owner(path) is None
        with FileLock(path) as lock:
            lock.record_owner()
            assert read_lock_owner(path) == os.getpid()
    assert read_lock_owner(path) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_owner_that_recorded_nothing_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("no number")
    with FileLock(tmp_path / "lock"), pytest.raises(LockHeld) as held:
        FileLock(tmp_path / "lock").acquire(timeout=0)
    assert held.value.owner is None


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second, third = FileLock(path), FileLock(path), FileLock(path)
    first.acquire()
    with pytest.raises(LockHeld):
        second.acquire(timeout=0.05)
    threading.Timer(0.1, first.release).start()
    second.acquire(timeout=60)
    threading.Timer(0.1, second.release).start()
    with third:
        assert read_lock_owner(path) is None, "not recorded"
    third.release()  # has no effect any more


def test_locked_excludes_while_it_lasts(tmp_path: Path) -> None:
    path = tmp_path / "data"
    order = []

    def append(name: str) -> None:
        with opened(path) as fd, locked(fd):
            order.append(f"{name} in")
            time.sleep(0.02)
            order.append(f"{name} out")

    threads = [threading.Thread(target=append, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [step.split()[1] for step in order] == ["in", "out"] * 4
    assert [step.split()[0] for step in order[::2]] == [step.split()[0] for step in order[1::2]]
