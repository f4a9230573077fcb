"""Compares files with their records in several processes; the results keep the order of the files."""

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

#: Isolated (-I): nothing in the user's folder or environment can be imported instead of a library.
_WORKER_COMMAND = (sys.executable, "-I", hash_worker.__file__)

#: Default limit of processes: with more, the disk or its network is the bottleneck.
_MAX_PROCESSES = 8

#: Queued batches for each process, so that no process is idle.
_BATCHES_PER_PROCESS = 3


def default_threads() -> int:
    """Return the number of processors that this process may use, at most eight."""
    return min(
        _MAX_PROCESSES,
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


class HashPool:
    """A pool of worker processes, each with a thread that sends batches and waits for results; a context."""

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
        # After an early end no result is needed, so the processes need not finish their batches.
        for child in self._children:
            child.kill()
        self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with suppress(OSError):  # closing flushes what the process did not read
                        stream.close()

    def compare(self, parts: Iterable[T], build_batch: Callable[[T], Batch]) -> Iterator[tuple[T, Problems]]:
        """Yield each part with its problems; takes only as many parts ahead as keep the processes busy."""
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
                "a process that compares files was killed, perhaps because memory ran out: "
                "run the command again with fewer --threads; it resumes"
            ) from None
        self._idle.put(child)
        return problems
