"""A disk that is full, and gets space again; what is free is told by the test."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import cast

import pytest

from dicom_quarry.errors import InstanceRefused, OutOfSpace
from dicom_quarry.extraction.inbound import InboundStudies
from dicom_quarry.extraction.inbound_sink import InboundSink
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.model import InstanceInfo, Writer
from dicom_quarry.scheduling import disk_space as rooms
from dicom_quarry.scheduling.disk_space import DiskSpaceMonitor
from dicom_quarry.system.shutdown import Shutdown, Stopped
from tests.peers.process import wait_for
from tests.store.instances import arrival, dataset, files, make_store

GB = 1_000_000_000

#: A job that keeps no record of its instances.
UNRECORDED = cast(InboundStudies, SimpleNamespace(record=lambda _: True))


class Disk:
    """A room of which one GB is to be left, and threads that wait for it."""

    def __init__(self, path: Path, keep_free: int = GB) -> None:
        self.free = 5 * GB
        self.stop, self.board = Shutdown(), StatusBoard()
        self.monitor = DiskSpaceMonitor(
            path, keep_free, self.stop, self.board, get_free=lambda _: self.free, poll_interval=0.01
        )
        self.passed = 0
        self._threads: list[threading.Thread] = []

    def wait(self) -> None:
        def work() -> None:
            try:
                self.monitor.wait_for_space()
                self.passed += 1
            except Stopped:
                pass

        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def waits(self) -> bool:
        return self.board.waiting_for == "free disk space"

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.stop.request()
    made.join()


def test_room_enough(disk: Disk) -> None:
    disk.free = GB
    disk.monitor.wait_for_space()
    disk.monitor.require_space()
    assert list(disk.board.take_messages()) == []


def test_it_waits_says_so_once_and_goes_on(disk: Disk, tmp_path: Path) -> None:
    disk.free = GB - 1
    for _ in range(3):
        disk.wait()
    wait_for(disk.waits, "it to wait", 10)
    with pytest.raises(OutOfSpace) as refused:
        disk.monitor.require_space()
    assert refused.value.status == 0xA700
    messages: list[str] = []

    def has_message() -> bool:
        messages.extend(disk.board.take_messages())
        return bool(messages)

    wait_for(has_message, "a message", 10)
    (said,) = messages
    assert said == (
        f"disk full: 1,000 MB free on the disk of {tmp_path}, Quarry keeps 1 GB free (keep-free). "
        "Free some space; the job then continues by itself"
    )
    assert disk.passed == 0
    disk.free = GB
    disk.join()
    assert (disk.passed, disk.waits()) == (3, False)
    assert list(disk.board.take_messages()) == ["there is enough free disk space again"]


def test_a_job_that_waits_for_room_can_be_stopped(disk: Disk) -> None:
    disk.free = 0
    disk.wait()
    wait_for(disk.waits, "it to wait", 10)
    disk.stop.request()
    disk.join()
    assert (disk.passed, disk.waits()) == (0, False)


def test_after_an_instance_found_no_room_more_must_be_free(disk: Disk) -> None:
    disk.free = 2 * GB  # enough by the setting, and not for what came
    disk.monitor.mark_full()
    disk.wait()
    wait_for(disk.waits, "it to wait", 10)
    assert "too little for an instance" in next(disk.board.take_messages())
    disk.free += 20_000_000
    disk.join()
    assert disk.passed == 1
    disk.monitor.wait_for_space()


def test_a_quota_is_tried_again_after_a_while(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_RETRY_SECONDS", 0.05)
    disk.monitor.mark_full()
    disk.wait()
    disk.join()
    assert disk.passed == 1


def test_the_sink_refuses_and_tells(disk: Disk, tmp_path: Path) -> None:
    store = make_store(tmp_path / "out")
    sink = InboundSink(store, UNRECORDED, disk.monitor)
    disk.free = 0
    with pytest.raises(OutOfSpace):
        sink.begin(arrival())
    disk.free = 5 * GB
    writer = sink.begin(arrival())
    writer.write(memoryview(dataset()))
    writer.commit()
    assert len(files(tmp_path / "out")) == 1
    disk.monitor.wait_for_space()


def test_an_instance_larger_than_what_is_left_is_refused_on_its_way(disk: Disk, tmp_path: Path) -> None:
    sink = InboundSink(make_store(tmp_path / "out"), UNRECORDED, disk.monitor)
    disk.free = 2 * GB
    writer = sink.begin(arrival())
    writer.write(memoryview(dataset(pixels=bytes(5 << 20))))
    disk.free = GB - 1
    with pytest.raises(OutOfSpace):
        writer.write(memoryview(bytes(5 << 20)))
    assert files(tmp_path / "out") == []
    disk.free = GB + 1  # as its bytes were given back
    disk.wait()
    wait_for(disk.waits, "it to wait for more than that", 10)


@pytest.mark.parametrize("step", ["write", "commit"])
def test_no_space_left_in_the_middle_is_told(disk: Disk, step: str) -> None:
    class Full:
        def write(self, *pieces: memoryview) -> None:
            self.fail("write")

        def commit(self) -> None:
            self.fail("commit")

        def abort(self) -> None:
            pass

        def fail(self, now: str) -> None:
            if now == step:
                raise OutOfSpace("no space")
            raise InstanceRefused("for another reason", status=0x0110)

        def begin(self, _arrival: InstanceInfo) -> Writer:
            return self  # type: ignore[return-value]

        def sync(self, paths: Iterable[PurePosixPath]) -> None:
            raise AssertionError("nothing is stored here")

        discard = sync

    writer = InboundSink(Full(), UNRECORDED, disk.monitor).begin(arrival())
    for name in ("write", "commit"):
        with pytest.raises(InstanceRefused):
            writer.write(memoryview(b"x")) if name == "write" else writer.commit()
    disk.wait()
    wait_for(disk.waits, "it to wait", 10)


def test_where_there_is_plenty_the_disk_is_not_looked_at_for_every_instance(tmp_path: Path) -> None:
    looks: list[int] = []

    def free(_: Path) -> int:
        looks.append(1)
        return 100 * GB

    monitor = DiskSpaceMonitor(tmp_path, GB, Shutdown(), StatusBoard(), get_free=free)
    for _ in range(1000):
        monitor.require_space()
    assert len(looks) < 100


def test_where_there_is_little_it_is(disk: Disk) -> None:
    disk.free = 2 * GB
    disk.monitor.require_space()
    disk.free = GB - 1
    with pytest.raises(OutOfSpace):
        disk.monitor.require_space()
