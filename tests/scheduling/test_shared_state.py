"""What the jobs of one host share: real processes, real locks; no sleeps, only conditions."""

from __future__ import annotations

import itertools
import os
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_quarry.errors import OperatorActionRequired, StartError
from dicom_quarry.scheduling.host_state import HostState
from dicom_quarry.scheduling.shared_state import Numbers, ProcessState
from dicom_quarry.system.locks import try_lock
from dicom_quarry.system.shutdown import Shutdown, Stopped

TIMEOUT = 60.0


class Job:
    """A visitor; what it has said so far."""

    def __init__(self, what: str, folder: Path, count: int, changed: threading.Condition) -> None:
        command = [sys.executable, "-m", "tests.scheduling.slot_process", what, str(folder), str(count)]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.output: list[list[str]] = []
        self._changed = changed
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            with self._changed:
                self.output.append(line.split())
                self._changed.notify_all()

    def names(self, verb: str, since: int = 0) -> set[str]:
        return {words[1] for words in self.output[since:] if words[0] == verb}

    def kill(self) -> None:
        self.child.kill()
        self.child.wait(TIMEOUT)
        self._reader.join(TIMEOUT)


Start = Callable[[str, int], Job]


@pytest.fixture
def changed() -> threading.Condition:
    return threading.Condition()


@pytest.fixture
def start(tmp_path: Path, changed: threading.Condition) -> Iterator[Start]:
    started: list[Job] = []

    def begin(what: str, count: int) -> Job:
        started.append(Job(what, tmp_path / "shared", count, changed))
        return started[-1]

    yield begin
    for job in started:
        job.kill()


def test_two_jobs_stay_together_under_the_ceiling_and_a_killed_one_makes_room(
    start: Start, changed: threading.Condition
) -> None:
    jobs = [start("moves", 3), start("moves", 3)]

    def inside() -> int:
        return sum(len(job.names("in")) for job in jobs)

    def all_but_two_wait() -> bool:
        assert inside() <= 2, "the site's ceiling is two"
        return sum(len(job.names("waits") - job.names("in")) for job in jobs) == 4 and inside() == 2

    with changed:
        assert changed.wait_for(all_but_two_wait, TIMEOUT)
    killed, other = sorted(jobs, key=lambda job: len(job.names("in")), reverse=True)
    killed.kill()
    with changed:
        assert changed.wait_for(lambda: len(other.names("in")) == 2, TIMEOUT), "the slots came back"
        since = len(other.output)
        assert changed.wait_for(lambda: other.names("waits", since) - other.names("in"), TIMEOUT)
    assert len(other.names("in")) == 2, "and not more than that"


def test_two_jobs_ask_together_no_faster_than_the_rate(start: Start) -> None:
    jobs = [start("queries", 20), start("queries", 20)]
    for job in jobs:
        assert job.child.wait(TIMEOUT) == 0
        job._reader.join(TIMEOUT)
    granted = sorted(float(words[1]) for job in jobs for words in job.output if words[0] == "granted")
    assert len(granted) == 40
    assert min(after - before for before, after in itertools.pairwise(granted)) >= 1 / 50 - 1e-6


def test_who_gives_a_slot_back_queues_behind_who_waits(tmp_path: Path) -> None:
    folder = HostState(tmp_path)
    waits, entered, leave = threading.Event(), threading.Event(), threading.Event()

    def other() -> None:
        with folder.slot("all", 1, lambda _: waits.set()):
            entered.set()
            leave.wait(TIMEOUT)

    thread = threading.Thread(target=other)
    with folder.slot("all", 1, lambda _: None):
        thread.start()
        # It waits at the head of the queue, and spins there.
        assert waits.wait(TIMEOUT)
    with pytest.raises(TimeoutError), folder.slot("all", 1, _only_until(entered)):
        pass
    leave.set()
    thread.join(TIMEOUT)


def _only_until(event: threading.Event) -> Callable[[float], None]:
    def pause(_: float) -> None:
        assert event.wait(TIMEOUT)
        raise TimeoutError

    return pause


def test_every_user_may_use_the_folder_and_its_files(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        folder = HostState(tmp_path / "run" / "quarry")
        with folder.slot("all", 1, lambda _: None):
            folder.update("all.queries", lambda _: ((1.0,), None))
    finally:
        os.umask(umask)
    made = tmp_path / "run" / "quarry"
    assert stat.S_IMODE(made.stat().st_mode) == 0o1777
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()}
    assert files == dict.fromkeys(["all.0", "all.queries", "all.queue"], 0o666)


def test_a_number_is_kept_for_the_next_process(tmp_path: Path) -> None:
    HostState(tmp_path).update("all.queries", lambda _: ((7.5, 8.5), None))
    assert HostState(tmp_path).update("all.queries", lambda before: (before, before)) == (7.5, 8.5)
    assert HostState(tmp_path).read("all.queries") == (7.5, 8.5)


def test_a_number_is_changed_by_one_at_a_time(tmp_path: Path) -> None:
    folder, between = HostState(tmp_path), threading.Event()

    def later(before: Numbers) -> tuple[Numbers, None]:
        between.set()
        return (before[0] + 1,), None

    thread = threading.Thread(target=lambda: folder.update("all.queries", later))

    def step(before: Numbers) -> tuple[Numbers, None]:
        thread.start()
        assert not between.wait(0.2), "it was let in between reading and writing"
        return (*before, 1.0), None

    folder.update("all.queries", step)
    thread.join(TIMEOUT)
    assert folder.update("all.queries", lambda before: (before, before)) == (2.0,)


def test_a_damaged_number_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "all.queries").write_bytes(b"\x00\x01")
    assert HostState(tmp_path).update("all.queries", lambda before: ((9.0,), before)) == ()


def test_numbers_have_names(tmp_path: Path) -> None:
    for numbers in (ProcessState(), HostState(tmp_path)):
        numbers.update("one", lambda _: ((1.0,), None))
        assert numbers.update("other", lambda before: ((2.0,), before)) == ()
        assert numbers.update("one", lambda before: (before, before)) == (1.0,)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    shared = tmp_path / "shared"
    folder = HostState(shared)
    (shared / "all.queries").symlink_to(victim)
    with pytest.raises(OperatorActionRequired, match=r"is a link.*belongs to the user"):
        folder.update("all.queries", lambda _: ((1.0,), None))
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("plant", "problem"),
    [
        (os.mkfifo, "is a named pipe"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(struct.pack("<d", float("inf"))), "has no number"),
        (lambda path: path.write_bytes(struct.pack("<d", float("nan"))), "has no number"),
    ],
)
def test_what_another_user_left_is_named_with_its_owner(
    tmp_path: Path, plant: Callable[[Path], object], problem: str
) -> None:
    path = tmp_path / "all.queries"
    plant(path)
    with pytest.raises(
        OperatorActionRequired, match=f"{path}.* {problem}.*user .*administrator.* rm -r {path}"
    ):
        HostState(tmp_path).update("all.queries", lambda _: ((1.0,), None))


def test_a_lock_that_is_held_for_ever_is_named_with_its_holder(tmp_path: Path) -> None:
    folder = HostState(tmp_path, sleep=lambda _: None)
    folder.update("all.queries", lambda _: ((1.0,), None))
    with (tmp_path / "all.queries").open("rb") as held:
        assert try_lock(held.fileno())
        with pytest.raises(OperatorActionRequired, match=f"process {os.getpid()} of the user"):
            folder.update("all.queries", lambda _: ((1.0,), None))


def test_a_wait_for_a_counter_ends_with_the_job(tmp_path: Path) -> None:
    shutdown = Shutdown()
    folder = HostState(tmp_path, shutdown.wait_unless_cancelled)
    folder.update("all.queries", lambda _: ((1.0,), None))
    shutdown.request()
    shutdown.request()
    with (tmp_path / "all.queries").open("rb") as held:
        assert try_lock(held.fileno())
        with pytest.raises(Stopped):
            folder.update("all.queries", lambda _: ((1.0,), None))


def test_a_slot_that_another_process_has_is_described(tmp_path: Path) -> None:
    folder = HostState(tmp_path)
    with folder.slot("all", 1, lambda _: None):
        text = folder.describe_holder("all")
    assert text.startswith(f"{tmp_path}/all.0 is held by process {os.getpid()} of the user ")


@pytest.mark.parametrize("kind", ["file", "link", "below a file"])
def test_a_folder_that_cannot_be_used_is_explained(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "quarry"
    if kind == "file":
        path.touch()
    elif kind == "link":
        path.symlink_to(tmp_path)
    else:
        (tmp_path / "plain").touch()
        path = tmp_path / "plain" / "quarry"
    with pytest.raises(StartError, match=f"install -d -m 1777 {path}"):
        HostState(path)
