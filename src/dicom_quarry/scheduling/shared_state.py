"""The port for everything that limits share: slots, numbers and a clock, under names.

Slots, rates, the concurrency limit, the circuit breaker and the time windows of an archive use it alone, so
that another place than the host's folder (``host_state``) is one more adapter. Its clock decides about
windows and rates: all that share a state must have the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")

#: Sleeps for so many seconds; raises Stopped when a shutdown is requested.
Sleep = Callable[[float], None]

#: Seconds between two attempts at a slot.
_POLL_INTERVAL = 0.1

#: The numbers under one name; empty at first.
Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks: ``now`` is POSIX time; ``monotonic`` never jumps, and is the same in all processes."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class Slot(Protocol):
    """A slot that is held."""

    @property
    def is_lost(self) -> bool:
        """True if another may be about to get the slot: what is done under it has to end."""


class KeptSlot:
    """A slot that only its holder gives back."""

    is_lost = False


class SharedState(Protocol):
    """Slots and numbers that several jobs share, or the threads of one.

    All methods raise OperatorActionRequired where the place of the state cannot be used.
    """

    @property
    def clock(self) -> Clock:
        """The clock of all that share this state."""

    def slot(self, pool: str, limit: int, sleep: Sleep) -> AbstractContextManager[Slot]:
        """Hold one of ``limit`` slots of a pool; sleep until one is free. A killed process holds none."""

    def update(self, name: str, compute: Callable[[Numbers], tuple[Numbers, T]]) -> T:
        """Replace the numbers under a name by the first result of ``compute``; return the second."""

    def read(self, name: str) -> Numbers:
        """Return the numbers under a name, as the last update left them."""

    def describe_holder(self, pool: str) -> str:
        """Return what keeps others from a pool, as a part of a sentence."""


class ProcessState:
    """The state of one process: nothing of it is shared with others."""

    def __init__(self, clock: Clock = Clock()) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._values: dict[str, Numbers] = {}
        self._slots: dict[str, threading.BoundedSemaphore] = {}

    @contextmanager
    def slot(self, pool: str, limit: int, sleep: Sleep) -> Iterator[Slot]:
        """Hold one of ``limit`` slots of a pool."""
        with self._lock:
            slots = self._slots.setdefault(pool, threading.BoundedSemaphore(limit))
        while not slots.acquire(blocking=False):
            sleep(_POLL_INTERVAL)
        try:
            yield KeptSlot()
        finally:
            slots.release()

    def update(self, name: str, compute: Callable[[Numbers], tuple[Numbers, T]]) -> T:
        """Replace the numbers under a name."""
        with self._lock:
            self._values[name], result = compute(self._values.get(name, ()))
            return result

    def read(self, name: str) -> Numbers:
        """Return the numbers under a name."""
        return self._values.get(name, ())

    def describe_holder(self, pool: str) -> str:  # noqa: ARG002 - only this process has slots
        """Return a sentence's part: only this job has slots."""
        return "this job has all slots"
