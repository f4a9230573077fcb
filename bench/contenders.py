"""Receivers to compare: Quarry and others, each in its own process, and plain writing of the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil
from tests.peers.process import Server, free_port, listens, wait_for

from bench.receiver_process import SYNCED
from bench.store_sender import Load, dataset, send
from dicom_quarry.model import AE


@dataclass(frozen=True, slots=True)
class Result:
    """One round of one contender: seconds on the clock, and of processor time of all its processes.

    ``peak`` is the largest resident set in bytes, 0 where not measured.
    """

    seconds: float
    busy: float
    peak: int = 0


class Receiving(Server):
    """A receiver that is started for one round, below ``folder``."""

    label: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "receiver")
        self.ae = AE("BENCH", "127.0.0.1", free_port())

    def is_ready(self) -> bool:
        return listens(self.ae.port)

    @property
    def received(self) -> Path:
        return self.folder / "received"

    def busy(self) -> float:
        """Seconds of processor time so far, of what it has forked too."""
        process = psutil.Process(self.pid)
        seconds = 0.0
        for one in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):  # a child that has just ended is in its parent's sum
                seconds += sum(one.cpu_times()[:4])
        return seconds

    def sync(self) -> None:
        """Make what has arrived durable, where that is a part of the work."""

    def peak(self) -> int:
        status = Path(f"/proc/{self.pid}/status")
        if not status.exists():
            return 0
        found = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(found.split()[1]) * 1024


class QuarryJob(Receiving):
    label: ClassVar[str] = "Quarry, in a job"
    kind: ClassVar[str] = "job"

    def command(self) -> Sequence[str]:
        return [
            sys.executable,
            "-m",
            "bench.receiver_process",
            self.kind,
            str(self.ae.port),
            str(self.folder),
        ]

    def start(self) -> QuarryJob:
        # The process runs in its own folder, and must find the bench.
        paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
        super().start()
        return self

    def sync(self) -> None:
        """Have the studies made durable, as at their end."""
        os.kill(self.pid, signal.SIGUSR1)
        wait_for((self.folder / SYNCED).exists, "the studies to be durable")


class Pynetdicom(QuarryJob):
    label: ClassVar[str] = "pynetdicom, raw bytes"
    kind: ClassVar[str] = "pynetdicom"

    def sync(self) -> None:
        """Leave the files to the system."""


class QuarryReceive(Receiving):
    label: ClassVar[str] = "quarry receive"

    def command(self) -> Sequence[str]:
        quarry = str(Path(sys.executable).with_name("quarry"))
        return [quarry, "receive", "-b", f"BENCH@127.0.0.1:{self.ae.port}", "--directory", str(self.received)]


class Storescp(Receiving):
    """DCMTK's; without --fork it serves one association at a time."""

    label: ClassVar[str] = "DCMTK storescp"
    options: ClassVar[Sequence[str]] = ()

    def command(self) -> Sequence[str]:
        self.received.mkdir()
        return ["storescp", *self.options, "--fork", "-od", str(self.received), str(self.ae.port)]

    def start(self) -> Storescp:
        os.environ["TCP_NODELAY"] = "1"
        super().start()
        return self


class StorescpRaw(Storescp):
    label: ClassVar[str] = "DCMTK storescp +B -pdu 131072"
    options: ClassVar[Sequence[str]] = ("+B", "-pdu", "131072")


class Dcm4che(Receiving):
    label: ClassVar[str] = "dcm4che storescp"

    def command(self) -> Sequence[str]:
        return [str(dcm4che()), "-b", f"BENCH:{self.ae.port}", "--directory", str(self.received)]


def dcm4che() -> Path | None:
    """dcm4che's storescp, which bears the same name as DCMTK's: a shell script that starts Java."""
    for folder in os.get_exec_path():
        script = Path(folder) / "storescp"
        if script.is_file() and b"org.dcm4che3" in script.read_bytes()[:20000]:
            return script
    return None


class Files:
    """The same bytes, file by file, each with fsync before the next is begun."""

    label: ClassVar[str] = "plain files with fsync"


#: Plain files are written in blocks, as dd would: Linux is slow at 100 MB in one call.
_BLOCK = 1 << 20

Contender = type[Receiving] | type[Files]


def run(contender: Contender, load: Load, workspace: Path) -> Result:
    """One round in a folder of its own, emptied afterwards. Raises SystemExit if an instance is missing."""
    folder = place(workspace) / "round"
    folder.mkdir()
    try:
        # What others have left to the kernel to write is not counted against this one.
        os.sync()
        if not issubclass(contender, Receiving):
            return write_files(load, folder)
        with contender(folder) as receiver:
            before = receiver.busy()
            seconds = send(receiver.ae, load)
            began = time.monotonic()
            receiver.sync()
            seconds += time.monotonic() - began
            result = Result(seconds, receiver.busy() - before, receiver.peak())
            files = [path for path in receiver.received.rglob("*") if path.is_file()]
            arrived = sum(not path.name.endswith(".part") and ".quarry" not in path.parts for path in files)
        if arrived != load.total:
            raise SystemExit(f"{contender.label}: {arrived} instances arrived, not {load.total}")
        return result
    finally:
        free(folder)


def free(folder: Path) -> None:
    """Give the space back, but not the files: for minutes ext4 searches its way around deleted ones."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)


@contextmanager
def workspace(parent: Path | None) -> Iterator[Path]:
    """A folder for all rounds; on ext4 the folders in it are spread over the disk."""
    folder = Path(tempfile.mkdtemp(prefix="quarry-bench-", dir=parent))
    try:
        subprocess.run(["chattr", "+T", str(folder)], capture_output=True, check=False)
        yield folder
    finally:
        shutil.rmtree(folder)


def place(workspace: Path) -> Path:
    """A folder for one round, where files are made quickly: of some the best.

    ext4 passes over every inode of a block group that was freed in the last minutes, each time that it makes
    a file there. After thousands of files were deleted that takes a millisecond, for every receiver.
    """
    return min((Path(tempfile.mkdtemp(dir=workspace)) for _ in range(12)), key=_time_to_make_files)


def _time_to_make_files(folder: Path) -> float:
    began = time.thread_time()
    for number in range(10):
        (folder / str(number)).touch()
    return time.thread_time() - began


def write_files(load: Load, folder: Path) -> Result:
    """Write the load from as many threads as it has associations."""
    data = dataset(0, load.pixel_bytes)

    def write(thread: int) -> None:
        for number in range(load.instances):
            fd = os.open(folder / f"{thread}-{number}.dcm", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view[:_BLOCK]) :]
            os.fsync(fd)
            os.close(fd)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(load.associations)]
    began, before = time.monotonic(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Result(time.monotonic() - began, time.process_time() - before)
