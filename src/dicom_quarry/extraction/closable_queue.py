"""A bounded queue between the threads of a job."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: Seconds after which a waiting thread checks for the end of the job.
_POLL_INTERVAL = 0.5


class ClosableQueue(Generic[T]):
    """Bounded blocking queue that can be closed; ``take`` returns None once it is closed and empty.

    Waiting threads call ``check`` now and then; an exception that it raises ends the wait.
    """

    def __init__(self, capacity: int, check: Callable[[], None]) -> None:
        self._capacity = capacity
        self._check = check
        self._items: deque[T] = deque()
        self._closed = False
        self._lock = threading.Lock()
        self._not_empty = threading.Condition(self._lock)
        self._not_full = threading.Condition(self._lock)

    def put(self, item: T) -> None:
        """Add an item; waits while the queue is full."""
        with self._lock:
            while len(self._items) >= self._capacity:
                self._not_full.wait(_POLL_INTERVAL)
                self._check()
            self._items.append(item)
            self._not_empty.notify()

    def take(self, on_idle: Callable[[], None] = lambda: None) -> T | None:
        """Remove and return the next item, None once the queue is closed and empty.

        ``on_idle`` is called before the thread waits for an item.
        """
        while True:
            self._check()
            with self._lock:
                if self._items:
                    self._not_full.notify()
                    return self._items.popleft()
                if self._closed:
                    return None
            on_idle()
            with self._lock:
                if not self._items and not self._closed:
                    self._not_empty.wait(_POLL_INTERVAL)

    def close(self) -> None:
        """Accept no more items."""
        with self._lock:
            self._closed = True
            self._not_empty.notify_all()
