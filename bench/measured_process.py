"""A piece of work in a process of its own: what it gives, how long it takes, and how large it becomes."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Measured(Generic[T]):
    """``seconds`` are those of the work; ``peak`` is the process's largest resident set, in bytes.

    ``before`` is what it was when the work began: Python, and what Quarry imports.
    """

    result: T
    seconds: float
    before: int
    peak: int


def measured(work: Callable[..., T], *arguments: object) -> Measured[T]:
    """Do a piece of work (a function of a module, on arguments that can be pickled) in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, work, arguments).result()


def _measure(work: Callable[..., T], arguments: tuple[object, ...]) -> Measured[T]:
    before = _peak()
    began = time.monotonic()
    result = work(*arguments)
    return Measured(result, time.monotonic() - began, before, _peak())


def _peak() -> int:
    # On Linux ru_maxrss begins with the parent's size (getrusage(2)); VmHWM does not.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
