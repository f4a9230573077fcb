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
_CHILD = (sys.executable, "-I", hash_worker.__file__)

#: More at once bring nothing, unless somebody knows better: the disk or its network is the bottleneck then.
_MOST = 8

#: Batches that wait for each process: enough that none ever does.
_AHEAD = 3


def default_threads() -> int:
    """As many as there are processors for this process, within reason."""
    return min(
        _MOST, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


class Checkers:
    """So many processes; a context. The thread that asks one waits for its answer."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._children: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(number)

    def __enter__(self) -> Self:
        for _ in range(self._number):
            command = (*_CHILD, str(os.getpid()))
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._children.append(child)
            self._idle.put(child)
        return self

    def __exit__(self, *_: object) -> None:
        # Ended early, nobody waits for batches: what is being read is read in vain.
        for child in self._children:
            child.kill()
        self._pool.shutdown(cancel_futures=True)
        for child in self._children:
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with suppress(OSError):  # what it did not take is still in the buffer
                        stream.close()

    def check(self, parts: Iterable[T], batch_of: Callable[[T], Batch]) -> Iterator[tuple[T, Problems]]:
        """Each part with its problems; reads no further ahead than the processes are busy with."""
        waiting: deque[tuple[T, Future[Problems]]] = deque()
        for part in parts:
            waiting.append((part, self._pool.submit(self._ask, batch_of(part))))
            if len(waiting) > _AHEAD * self._number:
                first, answer = waiting.popleft()
                yield first, answer.result()
        for first, answer in waiting:
            yield first, answer.result()

    def _ask(self, batch: Batch) -> Problems:
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
