"""Files compared in several processes at once, their answers in the order of the questions."""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Self, TypeVar

from dicom_quarry.errors import StartError
from dicom_quarry.store import hash_worker
from dicom_quarry.store.hash_worker import Batch, Problems

T = TypeVar("T")

#: By its file, in isolation: nothing in the user's folder or environment is imported in place of a library.
_WORKER_COMMAND = (sys.executable, "-I", hash_worker.__file__)

#: More at once bring nothing, unless somebody knows better: the disk or its network is the bottleneck then.
_MAX_PROCESSES = 8

#: Batches that wait for each process: enough that none ever does.
_BATCHES_PER_PROCESS = 3


def default_threads() -> int:
    """As many as there are processors for this process, within reason."""
    return min(
        _MAX_PROCESSES,
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


class HashPool:
    """So many processes; a context. The thread that asks one waits for its answer."""

    def __init__(self, processes: int) -> None:
        self._process_count = processes
        self._children: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(processes)

    def __enter__(self) -> Self:
        for _ in range(self._process_count):
            command = (*_WORKER_COMMAND, str(os.getpid()))
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._children.append(child)
            self._idle.put(child)
        return self

    def __exit__(self, *_: object) -> None:
        # Ended early, nobody waits for batches: what is being read is read in vain.
        for child in self._children:
            child.kill()
        self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with suppress(OSError):  # what it did not take is still in the buffer
                        stream.close()

    def compare(self, parts: Iterable[T], build_batch: Callable[[T], Batch]) -> Iterator[tuple[T, Problems]]:
        """Each part with its problems; reads no further ahead than the processes are busy with."""
        pending: deque[tuple[T, Future[Problems]]] = deque()
        for part in parts:
            pending.append((part, self._threads.submit(self._compare_batch, build_batch(part))))
            if len(pending) > _BATCHES_PER_PROCESS * self._process_count:
                first, future = pending.popleft()
                yield first, future.result()
        for first, future in pending:
            yield first, future.result()

    def _compare_batch(self, batch: Batch) -> Problems:
        child = self._idle.get()
        assert child.stdin is not None and child.stdout is not None
        try:
            pickle.dump(batch, child.stdin)
            child.stdin.flush()
            problems: Problems = pickle.load(child.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise StartError(
                "a process that compares files was ended from outside, perhaps for want of memory: "
                "run again to go on, with fewer --threads"
            ) from None
        self._idle.put(child)
        return problems
